"""The rules of claims: how the number of a claim follows from the trials of an experiment.

Differences and ratios are taken within a trial. Accuracy is read at early stop, as in the main text
of the paper; of VGG-19 and ResNet-18 at the end of training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from analysis.arms import RANDOM, TICKET
from analysis.case import (
    Case,
    Levels,
    below_half,
    dense,
    dense_and_there,
    down_to_depth,
    there,
)
from analysis.intervals import FEWEST, Array, ratio_of_means
from analysis.sample import ACCURACY, FINAL, LEFT, STOP, TRAINED, reported_accuracy

ACCURACY_MARGIN = 0.2
"""Points of accuracy that count as none."""
FULLY = 0.995
"""Training accuracy that counts as 100 %, because it is printed so."""

Numbers = Callable[[Case], Array]
Ratio = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Rule:
    """One number for each trial, whose mean is the estimate.

    `numbers` computes them: (trials,). `reads`: the quantities that every trial must have at
    `levels`. `other_arm`: the arm that it compares with, if any. `no_effect`: the number where
    there is no effect; None if no effect is tested. `each`: the numbers of single trials, where
    `numbers` are those of a ratio of means. `exact`: whether the number does not depend on chance.
    """

    numbers: Numbers
    reads: tuple[str, ...] = ()
    levels: Callable[[Case], Levels] = there
    other_arm: str = ""
    no_effect: float | None = None
    each: Numbers | None = None
    exact: bool = False


@dataclass(frozen=True)
class DensityRule(Rule):
    """The density at which a condition begins or ends (`analysis.crossings`).

    `numbers`: (trials, levels), above 0 where the condition holds. `finds`: the last level at which
    it holds, the first, or the one after the last. `margin`: how far below 0 a bound of the density
    still counts as holding. `in_weights`: whether the number is one of weights, not a density.
    """

    levels: Callable[[Case], Levels] = down_to_depth
    finds: Literal["last", "first", "after the last"] = "last"
    margin: float = 0.0
    in_weights: bool = False


def earlier(case: Case, ratio: Ratio = ratio_of_means) -> Array:
    stop = case.own(STOP)
    return 100 * (1 - ratio(stop[:, case.place], stop[:, 0]))


def speedup(case: Case, ratio: Ratio = ratio_of_means) -> Array:
    stop = case.own(STOP)
    return ratio(stop[:, 0], stop[:, case.place])


def slower_than_ticket(case: Case, ratio: Ratio = ratio_of_means) -> Array:
    ticket = case.sample.values(TICKET, STOP)
    return ratio(case.own(STOP)[:, case.place], ticket[:, case.place])


def gain(case: Case) -> Array:
    return gains(case, ACCURACY)[:, case.place]


def below_ticket(case: Case) -> Array:
    ticket = case.sample.values(TICKET, ACCURACY)[:, case.place]
    return 100 * (ticket - case.own(ACCURACY)[:, case.place])


def mean_below_ticket(case: Case) -> Array:
    difference = case.sample.values(TICKET, ACCURACY) - case.own(ACCURACY)
    return 100 * np.asarray(difference[:, below_half(case)].mean(axis=1))


def above_random_mask(case: Case) -> Array:
    difference = case.own(ACCURACY) - case.sample.values(RANDOM, ACCURACY)
    return 100 * np.asarray(difference[:, below_half(case)].mean(axis=1))


def best_gain(case: Case, quantity: str = ACCURACY) -> Array:
    """Return each trial's gain at the level that is best on average over the other trials: at the
    best of all levels, a mean over the same trials is too high by chance."""
    table = gains(case, quantity)[:, 1 : case.depth + 1]
    if len(table) < FEWEST:
        return np.asarray(table[:, table.mean(axis=0).argmax()])
    others = table.sum(axis=0) - table
    return np.asarray(table[np.arange(len(table)), others.argmax(axis=1)])


def final_accuracy(case: Case) -> Array:
    return 100 * case.own(FINAL)[:, case.place]


def dense_gain(case: Case) -> Array:
    assert case.other is not None
    reported = reported_accuracy(case.sample.settings)
    own, other = (
        next(iter(sample.tables.values()))[reported][:, 0] for sample in (case.sample, case.other)
    )
    return 100 * np.asarray(own - other)


def weights(case: Case) -> Array:
    return next(iter(case.sample.tables.values()))[LEFT][:, 0]


def density(case: Case) -> Array:
    return np.full(len(case.sample.seeds), case.densities[case.place])


def setting(case: Case) -> Array:
    return np.full(len(case.sample.seeds), float(case.sample.settings[case.claim.argument]))


def gains(case: Case, quantity: str, allowed: float = 0.0) -> Array:
    """Return the percentage points above the dense network less `allowed`: (trials, levels)."""
    accuracy = case.own(quantity)
    return 100 * np.asarray(accuracy - accuracy[:, :1]) + allowed


def sooner(case: Case) -> Array:
    """Return how much earlier the early stop comes, in means of the dense network's: (trials,
    levels). A network that learnt nothing counts as twice as late."""
    stop = case.own(STOP)
    earlier = (stop[:, :1] - stop) / stop[:, 0].mean()
    return np.where(np.isnan(stop), -1.0, earlier)


def fully_trained(case: Case) -> Array:
    """Return the points of training accuracy above FULLY, at the end: (trials, levels)."""
    return 100 * (case.own(TRAINED) - FULLY)


better = partial(gains, quantity=ACCURACY)
better_at_end = partial(gains, quantity=FINAL)
within_1_at_end = partial(gains, quantity=FINAL, allowed=1.0)

RULES: dict[str, Rule] = {
    "earlier": Rule(
        earlier, (STOP,), dense_and_there, no_effect=0.0, each=partial(earlier, ratio=np.divide)
    ),
    "speedup": Rule(
        speedup, (STOP,), dense_and_there, no_effect=1.0, each=partial(speedup, ratio=np.divide)
    ),
    "slower_than_ticket": Rule(
        slower_than_ticket, (STOP,), other_arm=TICKET, no_effect=1.0,
        each=partial(slower_than_ticket, ratio=np.divide),
    ),
    "gain": Rule(gain, (ACCURACY,), dense_and_there, no_effect=0.0),
    "below_ticket": Rule(below_ticket, (ACCURACY,), other_arm=TICKET, no_effect=0.0),
    "mean_below_ticket": Rule(
        mean_below_ticket, (ACCURACY,), below_half, other_arm=TICKET, no_effect=0.0
    ),
    "above_random_mask": Rule(
        above_random_mask, (ACCURACY,), below_half, other_arm=RANDOM, no_effect=0.0
    ),
    "best_gain": Rule(best_gain, (ACCURACY,), down_to_depth, no_effect=0.0),
    "best_final_gain": Rule(
        partial(best_gain, quantity=FINAL), (FINAL,), down_to_depth, no_effect=0.0
    ),
    "dense_gain": Rule(dense_gain, (ACCURACY,), dense, no_effect=0.0),
    "final_accuracy": Rule(final_accuracy, (FINAL,)),
    "weights": Rule(weights, exact=True),
    "density": Rule(density, exact=True),
    "setting": Rule(setting, exact=True),
    # of early stops, only the dense network's must be there: a ticket that learnt nothing is later
    "earlier_until": DensityRule(sooner, (STOP,), dense, no_effect=0.0),
    "earlier_from": DensityRule(sooner, (STOP,), dense, no_effect=0.0, finds="first"),
    "better_until": DensityRule(better, (ACCURACY,), no_effect=0.0, margin=ACCURACY_MARGIN),
    "better_from": DensityRule(
        better, (ACCURACY,), no_effect=0.0, finds="first", margin=ACCURACY_MARGIN
    ),
    "worse_from": DensityRule(better, (ACCURACY,), no_effect=0.0, finds="after the last"),
    "weights_better_until": DensityRule(
        better, (ACCURACY,), margin=ACCURACY_MARGIN, in_weights=True
    ),
    "final_better_until": DensityRule(better_at_end, (FINAL,), margin=ACCURACY_MARGIN),
    "final_within_1_until": DensityRule(within_1_at_end, (FINAL,)),
    "fully_trained_until": DensityRule(fully_trained, (TRAINED,)),
}  # fmt: skip
"""Name in paper.csv -> rule."""
