"""Decide which levels are winning tickets."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.crossings import end
from analysis.intervals import FEWEST, Array, mean_of, ratio_of_means
from analysis.points import LINE
from analysis.sample import BUDGET, CENSORED, COARSE, FINAL, SAME, STOP, reported_accuracy, sample

EPSILON = 0.001
"""Default of how far below the dense network's accuracy a winning ticket may be: 0.1 points."""
CONFIDENCE = 0.95
NAMES = (*LINE, "level", "density", "accuracy", "stop", "n", "not_judged", "wins")


def winners(levels: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """Return a row for each experiment, arm, rate and level from 1: `density`, `accuracy`
    (difference from the dense network), `stop` (ratio of means), `n`, `not_judged` (the reason why
    the level can neither win nor lose, or ""), `wins`.

    A level wins if it and a neighbour pass two tests, paired within seeds: the one-sided 95 % bound
    of the difference in test accuracy is not below -`epsilon`, and that of the ratio of early stops
    is not above 1. VGG and ResNet, for which the paper has no early stop, are judged by accuracy at
    the end alone. A level is not judged by fewer than FEWEST seeds, nor by censored early stops,
    its own or the dense network's. A network that learnt nothing does not win.
    """
    parts = [_of_line(line, rows, epsilon) for line, rows in levels.groupby(LINE, sort=False)]
    found = pd.DataFrame([row for rows in parts for row in rows], columns=[*NAMES])
    passes = found["wins"].astype(bool)
    lines = found.groupby(LINE, sort=False)["wins"]
    beside = [lines.shift(step).eq(True) for step in (-1, 1)]
    return found.assign(wins=passes & (beside[0] | beside[1]))


def _of_line(
    line: tuple[str, ...], levels: pd.DataFrame, epsilon: float
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one arm at one rate, with the levels that pass both tests as `wins`."""
    of, arm = sample(levels), str(line[1])
    reported = reported_accuracy(of.settings)
    accuracy, stop, censored = (of.values(arm, q) for q in (reported, STOP, CENSORED))
    for level in range(1, accuracy.shape[1]):
        gained = accuracy[:, level] - accuracy[:, 0]
        there = ~np.isnan(gained)
        n = int(there.sum())
        if n:
            stops = ratio_of_means(stop[there, level], stop[there, 0])
            unknown = reported != FINAL and (censored[there][:, [0, level]] > 0).any()
            not_judged = BUDGET if unknown else f"n = {n}" if n < FEWEST else ""
            if not not_judged and reported != FINAL and stops.std() <= SAME:
                not_judged = COARSE
            in_time = reported == FINAL or (not not_judged and _bound(stops) <= 1 + SAME)
            passes = not not_judged and -_bound(-gained[there]) >= -epsilon - SAME and in_time
            density, means = of.densities[arm][level], (gained[there].mean(), stops.mean())
            yield (*line, level, density, *map(float, means), n, not_judged, passes)


def _bound(values: Array) -> float:
    """Return the upper one-sided bound of a mean."""
    mean = mean_of(values)
    return mean.value + mean.bound(CONFIDENCE)


def smallest_winners(found: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Return for each line of `winners`: experiment, arm, rate, the number of winning levels, the
    number of levels that are judged, the density in percent of the last level of the first stretch
    of winning ones, n, and how many levels are not judged and why."""
    for line, rows in found.groupby(LINE, sort=False):
        won = rows["wins"].to_numpy(bool)
        reasons = Counter(reason for reason in rows["not_judged"] if reason)
        judged = len(rows) - reasons.total()
        none = "none" if judged else "cannot be judged"
        last = end(np.append(False, won))
        smallest = f"{100 * rows['density'].iloc[last - 1]:.3g}" if last else none
        not_judged = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        yield (*line, int(won.sum()), judged, smallest, rows["n"].min(), not_judged)
