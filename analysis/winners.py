"""Decide which levels are winning tickets."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.measured import FINAL, SAME, STOP, reported_accuracy, sample
from analysis.points import LINE

EPSILON = 0.001
"""Default of how far below the dense network's accuracy a winning ticket may be: 0.1 points."""


def winners(levels: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """Return a row for each experiment, arm, rate and level from 1: `density`, `accuracy`
    (difference from the dense network), `stop` (ratio of means), `n`, `wins`.

    A level wins if, on average over seeds and paired within them, test accuracy is not below the
    dense network's by more than `epsilon` and early stop is no later. VGG and ResNet, for which
    the paper has no early stop, are judged by accuracy at the end alone.
    """
    rows = []
    lines = levels.groupby(LINE, sort=False)
    for (experiment, arm, rate), of_arm in lines:
        of = sample(of_arm)
        reported = reported_accuracy(of.settings)
        accuracy, stop = (of.of(str(arm), quantity) for quantity in (reported, STOP))
        for level in range(1, accuracy.shape[1]):
            gained = accuracy[:, level] - accuracy[:, 0]
            there = ~np.isnan(gained)
            if there.any():
                better = float(gained[there].mean())
                sooner = float(stop[there, level].mean() / max(stop[there, 0].mean(), SAME))
                in_time = reported == FINAL or sooner <= 1 + SAME
                at = (experiment, arm, rate, level, of.densities[str(arm)][level])
                wins = better >= -epsilon - SAME and in_time
                rows.append((*at, better, sooner, int(there.sum()), wins))
    names = (*LINE, "level", "density", "accuracy", "stop", "n", "wins")
    return pd.DataFrame(rows, columns=[*names])


def smallest_winners(found: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Return for each line of `winners`: experiment, arm, rate, the number of winning levels, the
    number of levels, the smallest winning density in percent, n."""
    for line, rows in found.groupby(LINE, sort=False):
        won = rows[rows["wins"]]
        smallest = f"{100 * won['density'].min():.3g}" if len(won) else "none"
        yield (*line, len(won), len(rows), smallest, rows["n"].min())
