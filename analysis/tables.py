"""Tables for the terminal: levels of each experiment with arms side by side, claims, winners."""

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from analysis.arms import in_order
from analysis.collect import collect
from analysis.points import in_words, points
from analysis.sample import BUDGET, learnt_nothing
from analysis.verdicts import DESIGNED, Verdict
from analysis.winners import smallest_winners

COLUMNS = {
    "early_stop_iteration": ("stop", 1.0, 0),
    "early_stop_test_accuracy": ("accuracy", 100.0, 2),
    "final_test_accuracy": ("at end", 100.0, 2),
}
"""Column of levels.csv -> heading, factor, decimals."""
LEARNT_NOTHING = (
    "a stop at the first iteration: the validation loss never fell, so the network learnt nothing"
)


def tables_of(folder: Path) -> list[Table]:
    """Return the tables of the levels of all runs in a folder."""
    levels = collect([folder]).levels
    return [] if levels.empty else list(level_tables(levels))


def level_tables(levels: pd.DataFrame) -> Iterator[Table]:
    """Return tables for each experiment and rate, with a few arms each: density, then for each arm
    the early-stop iteration and the test accuracies there and at the end, as mean over the
    repetitions ± half of their range."""
    for (experiment, rate), group in levels.groupby(["experiment", "rate"], sort=False):
        arms = in_order(set(group["arm"]))
        abreast = 3 if _found(group)["n"].max() == 1 else 2  # so that 80 columns are enough
        for start in range(0, len(arms), abreast):
            shown = arms[start : start + abreast]
            title = f"{experiment}, {rate} pruned per level"
            yield _table(group[group["arm"].isin(shown)], shown, title)


def _table(group: pd.DataFrame, arms: list[str], title: str) -> Table:
    table = Table(
        title=title,
        caption=f"stop: early-stop iteration; accuracy: on test, there (%); {_spread(group)}"
        + f"; >=: {BUDGET}" * bool(group["censored"].any())
        + f"; {LEARNT_NOTHING}" * bool(learnt_nothing(group).any()),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    columns = [(arm, column) for arm in arms for column in COLUMNS]
    headings = [f"{arm.replace(' ', chr(10))}\n{COLUMNS[column][0]}" for arm, column in columns]
    for heading in ("level", "density", *headings):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    of_arm = group.groupby(["level", "arm"])["density"].transform("mean")
    group = group.assign(shown=(100 * of_arm).map("{:.1f}".format), of_arm=-of_arm)
    ordered = group.sort_values(["level", "of_arm"])  # some arms have densities of their own
    for (level, density), rows in ordered.groupby(["level", "shown"], sort=False):
        cells = (_cell(rows[rows["arm"] == arm], column) for arm, column in columns)
        table.add_row(str(level), str(density), *cells)
    return table


def _cell(rows: pd.DataFrame, column: str) -> str:
    if rows.empty:
        return "-"
    _, factor, digits = COLUMNS[column]
    values = rows[column]
    mean = f"{factor * values.mean():.{digits}f}"
    if column == "early_stop_iteration" and rows["censored"].any():
        return f">={mean}"
    half_range = factor * (values.max() - values.min()) / 2
    return mean if len(values) == 1 else f"{mean}±{half_range:.{digits}f}"


def _found(group: pd.DataFrame) -> pd.DataFrame:
    found = points(group, "early_stop_iteration")
    return found[(found["level"] > 0) | (found["level"].max() == 0)]


def _spread(group: pd.DataFrame) -> str:
    return in_words(_found(group), "mean ± half of the range")


CLAIM_COLUMNS = (
    "claim", "paper", "measured", "95 % interval", "mean of ratios", "n", "effect", "agreement"
)  # fmt: skip


def claim_table(verdicts: Iterable[Verdict]) -> Table:
    """Return a table of claims: the paper's number, the measured one, whether there is an effect,
    and whether the numbers agree. Numbers that follow from the design have one row."""
    table = Table(
        *CLAIM_COLUMNS,
        title="mean over seeds, paired within a seed; interval: Student's t over seeds",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for experiment, rows in claim_rows(verdicts):
        table.add_section()
        table.add_row(f"[bold]{experiment}[/]")
        for row in rows:
            table.add_row(*row)
    return table


def claim_rows(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield each experiment with the rows of its claims."""
    for experiment, found in groupby(verdicts, lambda verdict: verdict.experiment):
        of = list(found)
        designed = sum(verdict.agreement == DESIGNED for verdict in of)
        rows = [claim_cells(verdict) for verdict in of if verdict.agreement != DESIGNED]
        empty = ("",) * (len(CLAIM_COLUMNS) - 2)
        summary = [(f"{designed} densities, weights and settings", *empty, DESIGNED)]
        yield experiment, rows + summary * bool(designed)


def claim_cells(found: Verdict) -> tuple[str, ...]:
    """Return the cells of a claim's row."""
    claim = found.claim
    at = [
        f" at {claim.density:g} %" if claim.density else "",
        f" at level {claim.level}" if claim.level and not claim.says.startswith("density") else "",
        f", {claim.arm}" if claim.arm else "",
    ]
    bound = "" if claim.bound == "=" else f"{claim.bound} "
    return (
        f"{claim.says}{''.join(at)}",
        f"{bound}{number(claim.value)} {claim.unit}",
        number(found.measured),
        _interval(found),
        number(found.mean_of_ratios),
        str(found.n or ""),
        found.effect,
        found.agreement + (f": {found.why}" if found.why else ""),
    )


def _interval(found: Verdict) -> str:
    """Return the ends of an interval; a density of 0 means that it may be below all levels."""
    if math.isnan(found.low) or found.low == found.high:
        return ""
    if found.low == 0 and found.claim.unit == "% density":
        return f"<= {number(found.high)}"
    return f"{number(found.low)} to {number(found.high)}"


def number(value: float) -> str:
    """Format to three digits, whole numbers in full, nan as nothing."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def winner_table(found: pd.DataFrame, epsilon: float) -> Table:
    """Return a table of the smallest density of each arm that is a winning ticket."""
    table = Table(
        *("experiment", "arm", "rate", "winning levels", "smallest winning density", "n"),
        "not judged",
        title=f"winning: accuracy at early stop at most {100 * epsilon:g} points below dense, in "
        "no more iterations (VGG, ResNet: accuracy at the end alone), by one-sided bounds of 95 % "
        "at two levels in a row",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for *line, won, judged, smallest, n, not_judged in smallest_winners(found):
        unit = " %" if won else ""
        cells = f"{won} of {judged}", f"{smallest}{unit}", f"{n}", str(not_judged)
        table.add_row(*map(str, line), *cells)
    return table
