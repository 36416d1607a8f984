"""The numbers that figures show: mean, range and n at each place, and the runs they come from."""

import math

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.arms import in_order
from analysis.intervals import FEWEST
from analysis.labels import numerically

LINE = ["experiment", "arm", "rate"]
"""Columns that name a line of a figure."""
RANGE = "range from minimum to maximum (wider with more repetitions)"
INTERVAL = "95 % interval (Student's t)"
RATIOS = ("stop",)
"""Quantities whose mean and interval are those of their logarithms: then the interval of a ratio
does not reach 0, and a half and a double are equally far from 1."""


def points(rows: pd.DataFrame, quantity: str, *place: str, interval: bool = False) -> pd.DataFrame:
    """Return one row for each line, level and combination of the columns `place`: `quantity`, its
    `mean`, the ends `low` and `high` of its `spread` over the `n` repetitions (minimum and maximum
    or, with `interval`, a 95 % interval of the mean over seeds, with the draws of a seed averaged),
    the `most` repetitions anywhere on the line beyond level 0, the number of `censored` early stops
    that it depends on, and the `runs`. Missing measurements do not count. Means of RATIOS are
    geometric.

    Level 0 is one training for all draws of a seed, so its n may be smaller than that of the other
    levels. A level without measurements, between levels with some, has a row with mean nan and
    n = 0.
    """
    key = [*LINE, "level", *place]
    measured = rows.assign(censored=_censored(rows, quantity)).dropna(subset=[quantity])
    if quantity in RATIOS:
        measured = measured.assign(**{quantity: np.log(measured[quantity])})
    if interval and "seed" in measured:
        measured = _by_seed(measured, quantity, key)
    found = measured.groupby(key, as_index=False, sort=False).agg(
        density=("density", "mean"),
        mean=(quantity, "mean"),
        low=(quantity, "min"),
        high=(quantity, "max"),
        deviation=(quantity, "std"),
        n=(quantity, "size"),
        censored=("censored", "sum"),
        runs=("run", joined),
    )
    if interval:
        half = stdtrit(found["n"] - 1, 0.975) * found["deviation"] / np.sqrt(found["n"])
        half = half.where(found["n"] >= FEWEST)
        found = found.assign(low=found["mean"] - half, high=found["mean"] + half)
    if quantity in RATIOS:
        found = found.assign(**{name: np.exp(found[name]) for name in ("mean", "low", "high")})
    found = found.astype({"low": float, "high": float})
    found = found.assign(spread=INTERVAL if interval else RANGE)
    found = found if place else _with_gaps(found, rows)
    later = found[(found["level"] > 0) | (found["level"].max() == 0)]
    most = later.groupby(LINE, as_index=False).agg(most=("n", "max"))
    found = found.merge(most, on=LINE, how="left").assign(quantity=quantity)
    order = {arm: number for number, arm in enumerate(in_order(set(found["arm"])))}
    ordered = found.assign(place=found["arm"].map(order)).sort_values(
        ["experiment", "place", "rate", "level", *place], key=numerically, ignore_index=True
    )
    measures = ["density", "mean", "low", "high", "spread", "n", "most", "censored", "runs"]
    return ordered[["quantity", *key, *measures]]


def _by_seed(measured: pd.DataFrame, quantity: str, key: list[str]) -> pd.DataFrame:
    """Return one row for each seed: its draws are no independent trials."""
    return measured.groupby([*key, "seed"], as_index=False, sort=False).agg(
        {"density": "mean", quantity: "mean", "censored": "any", "run": joined}
    )


def joined(runs: "pd.Series[str]") -> str:
    """Return the runs of several rows, each once, as one text."""
    return ";".join(sorted({run for each in runs for run in each.split(";")}))


def _censored(rows: pd.DataFrame, quantity: str) -> "pd.Series[bool] | bool":
    """Return which rows have a quantity that depends on a censored early stop."""
    if quantity.startswith("early_stop"):
        return rows["censored"]
    found: pd.Series[bool] | bool = rows.get(f"{quantity}_censored", False)
    return found


def _with_gaps(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add the levels that a line skips, at the densities that other lines have there."""
    densities = rows.groupby(["experiment", "rate", "level"])["density"].mean()
    gaps = [
        {**dict(zip(LINE, line, strict=True)), "level": level, "n": 0, "runs": "",
         "censored": 0,
         "density": densities.get((line[0], line[2], level), math.nan)}
        for line, of_line in found.groupby(LINE)
        for level in range(int(of_line["level"].min()), int(of_line["level"].max()))
        if level not in {*of_line["level"]}
    ]  # fmt: skip
    return pd.concat([found, pd.DataFrame(gaps)]) if gaps else found


def incomplete(found: pd.DataFrame) -> pd.DataFrame:
    """Return the places with fewer repetitions than the line has elsewhere."""
    return found[(found["n"] < found["most"]) & (found["level"] > 0)]


def in_words(found: pd.DataFrame, spread: str = "") -> str:
    """Return the spread and n, or the n of each arm, for a caption."""
    spread = spread or _spread_in_words(found)
    beyond = found[(found["level"] > 0) | (found["level"].max() == 0)]
    arms = _counts(beyond, ["arm"])
    each = arms if all(" to " not in n for n in arms.values()) else _counts(beyond, ["arm", "rate"])
    numbers = set(each.values())
    listed = ", ".join(f"{name} {n}" for name, n in each.items())
    n = f"n = {numbers.pop()}" if len(numbers) == 1 else f"n: {listed}"
    return n if beyond["n"].max() == 1 else f"{spread}, {n}"


def _spread_in_words(found: pd.DataFrame) -> str:
    if found["low"].isna().all():
        return f"mean; an interval needs n >= {FEWEST}"
    return f"mean and {found['spread'].iloc[0]}"


def _counts(found: pd.DataFrame, key: list[str]) -> dict[str, str]:
    """Return the number of repetitions of each group, or its range over levels."""
    counts = found.groupby(key)["n"].agg(["min", "max"])
    names = [name if isinstance(name, str) else " ".join(name) for name in counts.index]
    ranges = [f"{few}" if few == many else f"{few} to {many}" for few, many in counts.to_numpy()]
    return dict(zip(names, ranges, strict=True))
