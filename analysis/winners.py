"""Decide which levels are winning tickets."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.measured import BUDGET, CENSORED, FINAL, SAME, STOP, reported_accuracy, sample
from analysis.points import LINE

EPSILON = 0.001
"""Default of how far below the dense network's accuracy a winning ticket may be: 0.1 points."""


def winners(levels: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """Return a row for each experiment, arm, rate and level from 1: `density`, `accuracy`
    (difference from the dense network), `stop` (ratio of means), `n`, `not_judged` (the reason why
    the level can neither win nor lose, or ""), `wins`.

    A level wins if, on average over seeds and paired within them, test accuracy is not below the
    dense network's by more than `epsilon` and early stop is no later. VGG and ResNet, for which
    the paper has no early stop, are judged by accuracy at the end alone. A level is not judged
    by one seed, nor by censored early stops, its own or the dense network's.
    """
    rows = []
    lines = levels.groupby(LINE, sort=False)
    for (experiment, arm, rate), of_arm in lines:
        of = sample(of_arm)
        reported = reported_accuracy(of.settings)
        accuracy, stop, censored = (of.of(str(arm), q) for q in (reported, STOP, CENSORED))
        for level in range(1, accuracy.shape[1]):
            gained = accuracy[:, level] - accuracy[:, 0]
            there = ~np.isnan(gained)
            if there.any():
                better = float(gained[there].mean())
                sooner = float(stop[there, level].mean() / max(stop[there, 0].mean(), SAME))
                in_time = reported == FINAL or sooner <= 1 + SAME
                at = (experiment, arm, rate, level, of.densities[str(arm)][level])
                unknown = reported != FINAL and (censored[there][:, [0, level]] > 0).any()
                n = int(there.sum())
                not_judged = BUDGET if unknown else "n = 1" if n == 1 else ""
                wins = not not_judged and better >= -epsilon - SAME and in_time
                rows.append((*at, better, sooner, n, not_judged, wins))
    names = (*LINE, "level", "density", "accuracy", "stop", "n", "not_judged", "wins")
    return pd.DataFrame(rows, columns=[*names])


def smallest_winners(found: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Return for each line of `winners`: experiment, arm, rate, the number of winning levels, the
    number of levels that are judged, the smallest winning density in percent, n, and how many
    levels are not judged and why."""
    for line, rows in found.groupby(LINE, sort=False):
        won = rows[rows["wins"]]
        reasons = Counter(reason for reason in rows["not_judged"] if reason)
        judged = len(rows) - reasons.total()
        none = "none" if judged else "cannot be judged"
        smallest = f"{100 * won['density'].min():.3g}" if len(won) else none
        not_judged = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        yield (*line, len(won), judged, smallest, rows["n"].min(), not_judged)
