"""The densities at which curves and weights are shown, and their colours."""

import numpy as np
import pandas as pd
import seaborn as sns

from analysis import drawing
from analysis.points import LINE

CURVE_DENSITIES = (1.0, 0.513, 0.211, 0.070, 0.036, 0.019)
"""The densities of the paper's figure 3."""
NEAR = 0.15
"""Largest relative distance between one of these densities and the level drawn for it."""
FEWEST = 3
"""The fewest of these densities with which a line is drawn at them."""


def at_densities(levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the levels nearest to CURVE_DENSITIES, for each line; of a line that has
    fewer than FEWEST of these, levels that are spread evenly over those that it has."""
    parts = []
    for _, rows in levels.groupby(LINE, sort=False):
        means = rows.groupby("level")["density"].mean()
        distances = [(means / density - 1).abs() for density in CURVE_DENSITIES]
        chosen = {distance.idxmin() for distance in distances if distance.min() < NEAR}
        if len(chosen) < FEWEST:
            count = min(len(means), len(CURVE_DENSITIES))
            chosen = {*means.index[np.linspace(0, len(means) - 1, count).round().astype(int)]}
        parts.append(rows[rows["level"].isin(chosen)])
    return pd.concat(parts)


def density_colours(densities: "pd.Series[float]") -> dict[str, drawing.Colour]:
    """Return a colour for each density, by its label, from the highest down. Each of
    CURVE_DENSITIES has the same colour in every figure, unless two would share one."""
    ordered = sorted(densities.unique(), reverse=True)
    near = [min(range(6), key=lambda n: abs(CURVE_DENSITIES[n] / d - 1)) for d in ordered]
    if len({*near}) < len(near):
        return drawing.colours([drawing.in_percent(density) for density in ordered], "viridis")
    palette = sns.color_palette("viridis", len(CURVE_DENSITIES))
    return {drawing.in_percent(d): palette[n] for d, n in zip(ordered, near, strict=True)}
