"""Densities at which something begins or ends: down to which tickets are as accurate as the dense
network, and the like.

At each level, a condition holds on average over trials, or fails. An interval for the density at
which it ends contains every density that the trials do not exclude: they exclude all densities
above two successive levels at which it clearly holds, and all below two at which it clearly fails.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.case import Case
from analysis.intervals import Array, half_width
from analysis.rules import DensityRule
from analysis.sample import LEFT, SAME, STOP, Untestable

Flags = NDArray[np.bool_]


class Crossing(NamedTuple):
    """The density at which a condition ends or begins on average, and the densities between which
    it may do so, in percent (or in weights). `low` is 0 if it may be below all that were
    measured."""

    value: float
    low: float
    high: float


def crossing(
    rule: DensityRule,
    case: Case,
    *,
    confidence: float,
    others: float = 0.0,
    margin: float = 0.0,
) -> Crossing:
    """Return where the condition of a rule ends or begins.

    `confidence`: of the interval, in (0, 1). `others`: the trials of another study, for whose
    crossing the interval is, 0 if it is for the true one. `margin`: how far below 0 still counts as
    holding. Raises Untestable if the condition fails at level 0.
    """
    table = rule.numbers(case) + margin
    means, deviations = table.mean(axis=0), table.std(axis=0, ddof=1)
    if STOP in rule.reads:  # equal early stops have a spread that the distance of evaluations hides
        stops = ~np.isnan(case.own(STOP)).any(axis=0)
        deviations[stops & (deviations <= SAME)] = np.inf
    half = np.array([half_width(of, len(table), confidence, others) for of in deviations])
    holds, fails = means - half > SAME, means + half < -SAME
    if means[0] < -SAME:
        raise Untestable("the dense network does not have it either")
    levels = (_first if rule.finds == "first" else _last)(means, holds, fails)
    if rule.finds == "after the last":
        last, low, high = levels
        levels = last + 1, low, high + 1
    scale = case.own(LEFT).mean(axis=0) if rule.in_weights else case.densities
    value, low_end, high_end = (float(np.append(scale, 0.0)[level]) for level in levels)
    return Crossing(value, low_end, high_end)


def _last(means: Array, holds: Flags, fails: Flags) -> tuple[int, int, int]:
    """Return the last level at which a condition holds on average, the level at which it clearly
    fails, and the last level down to which it clearly holds."""
    failed = _first_pair(fails)
    held = np.flatnonzero(_pairs(holds)[:failed])
    return end(means >= -SAME), failed, int(held[-1]) + 1 if len(held) else 0


def _first(means: Array, holds: Flags, fails: Flags) -> tuple[int, int, int]:
    """Return the first level at which a condition holds on average, the level from which on it
    clearly holds, and the last level, from 1 on, down to which it clearly fails at all."""
    found = np.flatnonzero(means[1:] > SAME)
    failing = int(np.argmin(np.append(fails[1:], False)))
    first = int(found[0]) + 1 if len(found) else len(means)
    return first, _first_pair(holds), failing if failing > 1 else 0


def _pairs(flags: Flags) -> Flags:
    """Return at which levels a flag is set that is set at the next level as well."""
    return np.asarray(flags[:-1] & flags[1:])


def _first_pair(flags: Flags) -> int:
    """Return the first of two successive levels with a flag; the number of levels if there are
    none."""
    pairs = np.flatnonzero(_pairs(flags))
    return int(pairs[0]) if len(pairs) else len(flags)


def end(holds: Flags) -> int:
    """Return the last level of the first stretch of levels at which a condition holds, or 0.

    A stretch begins at level 1 or with two levels in a row, and ends before two in a row at which
    the condition fails: noise alone makes a single level hold, or fail.
    """
    begins = holds[1:] & np.append(holds[2:], False)
    begins[:1] |= holds[1:2]
    if not begins.any():
        return 0
    start = 1 + int(np.argmax(begins))
    failures = ~holds[start:]
    ends = np.append(failures & np.append(failures[1:], True), True)
    return max(level for level in range(start, start + int(np.argmax(ends))) if holds[level])
