"""The numbers that the paper prints, as points in figures of differences."""

from collections.abc import Callable, Iterator

import pandas as pd

from analysis.paper import Claim, paper_claims

SHOWN: dict[str, tuple[str, Callable[[float], float]]] = {
    "gain": ("gain", lambda points: points),
    "below_ticket": ("behind", lambda points: points),
    "earlier": ("stop", lambda percent: 1 - percent / 100),
    "speedup": ("stop", lambda factor: 1 / factor),
}
"""Rule of a claim -> column of `analysis.paired`, and the claim's value there."""


def printed(levels: pd.DataFrame) -> pd.DataFrame:
    """Return `experiment`, `quantity`, `density` and `value` of each number that the paper prints
    about the presets of these levels, at the nearest level."""
    rows = [
        {"experiment": experiment, **point}
        for (experiment, preset), own in levels.groupby(["experiment", "preset"])
        for claim in paper_claims()
        if claim.rule in SHOWN and not claim.where and claim.matches(str(preset))
        for point in _points(claim, own[own["arm"] == claim.arm])
    ]
    return pd.DataFrame(rows, columns=["experiment", "quantity", "density", "value"])


def _points(claim: Claim, own: pd.DataFrame) -> Iterator[dict[str, object]]:
    quantity, value = SHOWN[claim.rule]
    place = own["density"] if claim.density else own.loc[own["level"] == claim.level, "density"]
    if len(place):
        density = claim.density / 100 if claim.density else float(place.mean())
        if density >= place.min() * 0.95:
            yield {"quantity": quantity, "density": density, "value": value(claim.value)}
