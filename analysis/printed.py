"""The numbers that the paper prints, as points in figures of differences."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from analysis.case import NEAR
from analysis.paper import Claim, paper_claims
from analysis.points import LINE
from analysis.protocol import departures, has_preset
from analysis.runs import Runs

SHOWN: dict[str, tuple[str, Callable[[float], float]]] = {
    "gain": ("gain", lambda points: points),
    "below_ticket": ("behind", lambda points: points),
    "earlier": ("stop", lambda percent: 1 - percent / 100),
    "speedup": ("stop", lambda factor: 1 / factor),
}
"""Rule of a claim -> column of `analysis.paired`, and the claim's value there."""


def printed(runs: Runs) -> pd.DataFrame:
    """Return `experiment`, `quantity`, `density` and `value` of each number that the paper prints
    about the presets of these runs, at the density that it names or that of the level."""
    claims = [claim for claim in paper_claims() if claim.rule in SHOWN and not claim.where]
    rows = [
        {"experiment": experiment, **point}
        for (experiment, arm, _, preset), own in runs.levels.groupby([*LINE, "preset"])
        if follows(str(preset), own.iloc[0], runs)
        for claim in claims
        if claim.matches(str(preset)) and claim.arm == arm
        for point in _points(claim, own)
    ]
    return pd.DataFrame(rows, columns=["experiment", "quantity", "density", "value"])


def follows(preset: str, row: "pd.Series[Any]", runs: Runs) -> bool:
    """Return whether a run tests the claims about its preset (`analysis.protocol`)."""
    found = departures(preset, row["dataset"], runs.identities[row["run"]])
    return has_preset(preset) and all(each.effect != "disqualifies" for each in found)


def _points(claim: Claim, own: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield the point of a claim, if the arm (its rows are `own`) reaches its place."""
    quantity, value = SHOWN[claim.rule]
    if claim.density:
        density = claim.density / 100
    else:
        density = own.loc[own["level"] == claim.level, "density"].mean()
    if density >= own["density"].min() * (1 - NEAR):
        yield {"quantity": quantity, "density": density, "value": value(claim.value)}
