"""Rules that compute the numbers of claims: one number for each trial, whose mean is the estimate.

Differences and ratios are taken within a trial. Accuracy is read at early stop, as in the main text
of the paper; of VGG-19 and ResNet-18 at the end of training.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.arms import RANDOM, TICKET
from analysis.intervals import FEWEST, Array
from analysis.paper import Claim
from analysis.sample import (
    ACCURACY,
    CENSORED,
    FINAL,
    LEFT,
    SAME,
    STOP,
    TRAINED,
    Sample,
    reported_accuracy,
)

NEAR = 0.05
"""Largest relative distance between a level's density and the one that a claim names."""


class Case(NamedTuple):
    """A claim and the trials that can test it. `place`: the level that it is about; `depth`: the
    deepest level that it is about; `other`: the sample of the preset that it compares with."""

    of: Sample
    claim: Claim
    place: int
    depth: int
    other: Sample | None = None

    def own(self, quantity: str) -> Array:
        return self.of.of(self.claim.arm, quantity)

    @property
    def densities(self) -> Array:
        return 100 * self.of.densities[self.claim.arm]


def ratio(one: Array, other: Array) -> Array:
    """Return numbers whose mean is the ratio of the means, and whose spread is that of its
    residuals, `one - ratio * other`: the usual approximation of the error of a ratio (Cochran,
    Sampling Techniques, 1977, section 6.3)."""
    of_means = one.mean() / other.mean()
    return np.asarray(of_means + (one - of_means * other) / other.mean())


def earlier(case: Case) -> Array:
    stop = case.own(STOP)
    return 100 * (1 - ratio(stop[:, case.place], stop[:, 0]))


def speedup(case: Case) -> Array:
    stop = case.own(STOP)
    return ratio(stop[:, 0], stop[:, case.place])


def slower_than_ticket(case: Case) -> Array:
    return ratio(case.own(STOP)[:, case.place], case.of.of(TICKET, STOP)[:, case.place])


def gain(case: Case) -> Array:
    return gains(case, ACCURACY)[:, case.place]


def below_ticket(case: Case) -> Array:
    ticket = case.of.of(TICKET, ACCURACY)[:, case.place]
    return 100 * (ticket - case.own(ACCURACY)[:, case.place])


def mean_below_ticket(case: Case) -> Array:
    difference = case.of.of(TICKET, ACCURACY) - case.own(ACCURACY)
    return 100 * np.asarray(difference[:, claimed(case)].mean(axis=1))


def above_random_mask(case: Case) -> Array:
    difference = case.own(ACCURACY) - case.of.of(RANDOM, ACCURACY)
    return 100 * np.asarray(difference[:, claimed(case)].mean(axis=1))


def best_gain(case: Case) -> Array:
    return _at_the_best_level(gains(case, ACCURACY)[:, 1 : case.depth + 1])


def best_final_gain(case: Case) -> Array:
    return _at_the_best_level(gains(case, FINAL)[:, 1 : case.depth + 1])


def final_accuracy(case: Case) -> Array:
    return 100 * case.own(FINAL)[:, case.place]


def dense_gain(case: Case) -> Array:
    assert case.other is not None
    reported = reported_accuracy(case.of.settings)
    dense = [next(iter(s.tables.values()))[reported][:, 0] for s in (case.of, case.other)]
    return 100 * np.asarray(dense[0] - dense[1])


def weights(case: Case) -> Array:
    return next(iter(case.of.tables.values()))[LEFT][:, 0]


def density(case: Case) -> Array:
    return np.full(len(case.of.seeds), case.densities[case.place])


def setting(case: Case) -> Array:
    return np.full(len(case.of.seeds), float(case.of.settings[case.claim.argument]))


def gains(case: Case, quantity: str) -> Array:
    """Return the percentage points above the dense network: (trials, levels)."""
    accuracy = case.own(quantity)
    return 100 * np.asarray(accuracy - accuracy[:, :1])


def claimed(case: Case) -> NDArray[np.bool_]:
    """Return which levels have a density below 50 %, but not below the depth of the claim."""
    assert case.claim.depth is not None
    lowest = case.densities[case.densities <= case.claim.depth * (1 + NEAR)].max()
    return np.asarray((case.densities < 50) & (case.densities >= lowest - SAME))


def _at_the_best_level(table: Array) -> Array:
    """Return each trial's gain at the level that is best on average over the other trials: at the
    best of all levels, a mean over the same trials is too high by chance."""
    if len(table) < FEWEST:
        return np.asarray(table[:, table.mean(axis=0).argmax()])
    others = table.sum(axis=0) - table
    return np.asarray(table[np.arange(len(table)), others.argmax(axis=1)])


def ratios_of(case: Case) -> Array | None:
    """Return the number of each trial by itself, if a rule's estimate is a ratio of means."""
    stop, name = case.own(STOP) if case.claim.name in RATIOS else None, case.claim.name
    if stop is None:
        return None
    there = np.asarray(stop[:, case.place])
    if name == "slower_than_ticket":
        return np.asarray(there / case.of.of(TICKET, STOP)[:, case.place])
    sooner = np.asarray(stop[:, 0] / there)
    return sooner if name == "speedup" else np.asarray(100 * (1 - 1 / sooner))


RULES: dict[str, Callable[[Case], Array]] = {
    rule.__name__: rule
    for rule in (
        earlier, speedup, slower_than_ticket, gain, below_ticket, mean_below_ticket,
        above_random_mask, best_gain, best_final_gain, final_accuracy, dense_gain, weights, density,
        setting,
    )
}  # fmt: skip
EXACT = {"weights", "density", "setting"}
"""Rules whose value does not depend on chance."""
RATIOS = {"earlier", "speedup", "slower_than_ticket"}
"""Rules that are ratios of means."""
COMPARED = dict.fromkeys(("slower_than_ticket", "below_ticket", "mean_below_ticket"), TICKET) | {
    "above_random_mask": RANDOM
}
"""Rule -> the second arm that it needs."""

Levels = Sequence[int]


def _dense(_: Case) -> Levels:
    return [0]


def _there(case: Case) -> Levels:
    return [case.place]


def _dense_and_there(case: Case) -> Levels:
    return [0, case.place]


def _claimed_levels(case: Case) -> Levels:
    return [int(level) for level in np.flatnonzero(claimed(case))]


def _down_to_depth(case: Case) -> Levels:
    return range(case.depth + 1)


class Reads(NamedTuple):
    """The quantities that a rule reads, and the levels at which it does."""

    quantities: tuple[str, ...]
    levels: Callable[[Case], Levels]


READS = {
    "dense_gain": Reads((ACCURACY,), _dense),
    "earlier": Reads((STOP,), _dense_and_there),
    "speedup": Reads((STOP,), _dense_and_there),
    "gain": Reads((ACCURACY,), _dense_and_there),
    "slower_than_ticket": Reads((STOP,), _there),
    "below_ticket": Reads((ACCURACY,), _there),
    "mean_below_ticket": Reads((ACCURACY,), _claimed_levels),
    "above_random_mask": Reads((ACCURACY,), _claimed_levels),
    "best_gain": Reads((ACCURACY,), _down_to_depth),
    "best_final_gain": Reads((FINAL,), _down_to_depth),
    "final_accuracy": Reads((FINAL,), _there),
    "earlier_until": Reads((STOP,), _dense),
    "earlier_from": Reads((STOP,), _dense),
    "better_until": Reads((ACCURACY,), _down_to_depth),
    "better_from": Reads((ACCURACY,), _down_to_depth),
    "worse_from": Reads((ACCURACY,), _down_to_depth),
    "weights_better_until": Reads((ACCURACY,), _down_to_depth),
    "final_better_until": Reads((FINAL,), _down_to_depth),
    "final_within_1_until": Reads((FINAL,), _down_to_depth),
    "fully_trained_until": Reads((TRAINED,), _down_to_depth),
}
"""Rule -> what it reads and where. Rules about the whole sequence of early stops need only the
dense network's in every trial: a ticket that learnt nothing counts as later."""


def reads_censored(case: Case) -> bool:
    """Return whether a claim is about early stops of which one is censored."""
    name = case.claim.name
    at_end = name == "dense_gain" and reported_accuracy(case.of.settings) == FINAL
    reads = READS.get(name)
    if reads is None or at_end or not {STOP, ACCURACY} & {*reads.quantities}:
        return False
    ladder = name in ("earlier_until", "earlier_from")
    levels = [*(_down_to_depth if ladder else reads.levels)(case)]
    samples = [case.of] if case.other is None else [case.of, case.other]
    tables = [own[CENSORED][:, levels] for s in samples for own in s.tables.values()]
    return any((table > 0).any() for table in tables)
