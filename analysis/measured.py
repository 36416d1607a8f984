"""Rules that compute the numbers of claims from what runs measured.

Draws of a seed are averaged; differences and ratios are taken within a seed. Accuracy is read at
early stop, as in the main text of the paper; of VGG-19 and ResNet-18 at the end of training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.arms import RANDOM, TICKET
from analysis.paper import Claim

Array = NDArray[np.float64]

STOP, ACCURACY = "early_stop_iteration", "early_stop_test_accuracy"
FINAL, TRAINED = "final_test_accuracy", "final_train_accuracy"
CENSORED = "censored"
MEASURED = (STOP, ACCURACY, FINAL, TRAINED, CENSORED, "weights_remaining")
BUDGET = "the budget ends before the minimum of validation loss"
"""Reason why early stops that are censored decide nothing."""

FULLY = 0.995
"""Training accuracy that counts as 100 %, because it is printed so."""
NEAR = 0.05
"""Largest relative distance between a level's density and the one that a claim names."""
SAME = 1e-9
"""Tolerance for sums of floats that stand for the same number."""


class Untestable(Exception):
    """Raised with the reason why the runs cannot test a claim."""


@dataclass(frozen=True)
class Sample:
    """Measurements of one network at one rate: arm -> quantity -> (seeds, levels), nan where
    missing. `densities`: arm -> (levels,), in (0, 1]. `seeds` name the rows."""

    tables: Mapping[str, Mapping[str, Array]]
    densities: Mapping[str, Array]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]

    def of(self, arm: str, quantity: str) -> Array:
        return self.tables[arm][quantity]

    def rows(self, indices: NDArray[np.int64] | list[int]) -> "Sample":
        """Return the sample of these rows; a row may be repeated."""
        tables = {
            arm: {quantity: table[indices] for quantity, table in own.items()}
            for arm, own in self.tables.items()
        }
        return replace(self, tables=tables, seeds=tuple(self.seeds[i] for i in indices))

    def down_to(self, arms: Sequence[str], level: int) -> "Sample":
        """Return these arms for the seeds that have all of them down to `level`, cut where the
        shortest ends. Raises Untestable where no seed has them."""
        missing = [arm for arm in arms if arm not in self.tables]
        if missing:
            raise Untestable(f"no runs of the arm {missing[0]}")
        reached = {arm: self.of(arm, STOP) for arm in arms}
        there = [
            i for i in range(len(self.seeds))
            if all(table.shape[1] > level and not np.isnan(table[i, : level + 1]).any()
                   for table in reached.values())
        ]  # fmt: skip
        if not there:
            raise Untestable(f"no seed has level {level} of {' and '.join(arms)}")
        return self.rows(there)._cut(arms)

    def _cut(self, arms: Sequence[str]) -> "Sample":
        whole = [~np.isnan(self.of(arm, STOP)).any(axis=0) for arm in arms]
        shared = min(int(np.argmin(np.append(w, False))) for w in whole)
        tables = {a: {q: t[:, :shared] for q, t in self.tables[a].items()} for a in arms}
        densities = {arm: self.densities[arm][:shared] for arm in arms}
        return replace(self, tables=tables, densities=densities)


def sample(levels: pd.DataFrame) -> Sample:
    """Return the sample of the rows of one experiment at one rate."""
    seeds = sorted(levels["seed"].unique())
    dense = levels[levels["level"] == 0]  # one training for all arms
    tables, densities = {}, {}
    for arm, rows in levels.groupby("arm"):
        whole = pd.concat([dense.assign(arm=arm), rows[rows["level"] > 0]])
        own = whole.groupby(["seed", "level"])[[*MEASURED, "density"]].mean()
        columns = range(int(rows["level"].max()) + 1)
        tables[str(arm)] = {
            quantity: own[quantity].unstack().reindex(index=seeds, columns=columns).to_numpy(float)
            for quantity in MEASURED
        }
        by_level = own["density"].groupby("level").mean()
        densities[str(arm)] = by_level.reindex(columns).to_numpy(float)
    return Sample(tables, densities, levels.iloc[0].to_dict(), tuple(map(int, seeds)))


class Case(NamedTuple):
    """A claim and the seeds that can test it. `place`: the level that it is about; `other`: the
    sample of the preset that it compares with."""

    of: Sample
    claim: Claim
    place: int
    other: Sample | None = None

    def own(self, quantity: str) -> Array:
        return self.of.of(self.claim.arm, quantity)

    @property
    def densities(self) -> Array:
        return 100 * self.of.densities[self.claim.arm]


def _ratio(one: Array, other: Array, *, each: bool) -> float:
    """Return the ratio of the means; with `each`, the mean of the ratios."""
    return float((one / other).mean() if each else one.mean() / other.mean())


def reported_accuracy(settings: Mapping[str, Any]) -> str:
    """Return the quantity that the paper reports: it has no early stop of VGG-19 and ResNet-18."""
    model = str(settings["model"])
    deep = model.startswith(("vgg", "resnet")) and "." not in model  # a dotted path is user code
    return FINAL if deep else ACCURACY


def earlier(case: Case, *, each: bool = False) -> float:
    stop = case.own(STOP)
    return 100 * (1 - _ratio(stop[:, case.place], stop[:, 0], each=each))


def speedup(case: Case, *, each: bool = False) -> float:
    stop = case.own(STOP)
    return _ratio(stop[:, 0], stop[:, case.place], each=each)


def slower_than_ticket(case: Case, *, each: bool = False) -> float:
    ticket = case.of.of(TICKET, STOP)[:, case.place]
    return _ratio(case.own(STOP)[:, case.place], ticket, each=each)


def gain(case: Case) -> float:
    return float(_gains(case, ACCURACY)[case.place])


def below_ticket(case: Case) -> float:
    ticket = case.of.of(TICKET, ACCURACY)[:, case.place]
    return 100 * float((ticket - case.own(ACCURACY)[:, case.place]).mean())


def mean_below_ticket(case: Case) -> float:
    difference = case.of.of(TICKET, ACCURACY) - case.own(ACCURACY)
    return 100 * float(difference[:, _claimed(case)].mean())


def above_random_mask(case: Case) -> float:
    difference = case.own(ACCURACY) - case.of.of(RANDOM, ACCURACY)
    return 100 * float(difference[:, _claimed(case)].mean())


def _claimed(case: Case) -> NDArray[np.bool_]:
    """Return which levels have a density below 50 %, but not below the depth of the claim."""
    assert case.claim.depth is not None
    lowest = case.densities[case.densities <= case.claim.depth * (1 + NEAR)].max()
    return np.asarray((case.densities < 50) & (case.densities >= lowest - SAME))


def best_gain(case: Case) -> float:
    return float(_gains(case, ACCURACY)[1:].max())


def best_final_gain(case: Case) -> float:
    return float(_gains(case, FINAL)[1:].max())


def final_accuracy(case: Case) -> float:
    return 100 * float(case.own(FINAL)[:, case.place].mean())


def dense_gain(case: Case) -> float:
    assert case.other is not None
    reported = reported_accuracy(case.of.settings)
    dense = [next(iter(s.tables.values()))[reported][:, 0] for s in (case.of, case.other)]
    return 100 * float((dense[0] - dense[1]).mean())


def earlier_until(case: Case) -> float:
    return _last(case, _stops(case) <= 1 + SAME)


def earlier_from(case: Case) -> float:
    return _first(case, _stops(case) < 1 - SAME)


def better_until(case: Case) -> float:
    return _last(case, _gains(case, ACCURACY) >= -SAME)


def better_from(case: Case) -> float:
    return _first(case, _gains(case, ACCURACY) > SAME)


def worse_from(case: Case) -> float:
    after = _end(_gains(case, ACCURACY) >= -SAME) + 1
    return float(case.densities[after]) if after < len(case.densities) else 0.0


def weights_better_until(case: Case) -> float:
    left = case.own("weights_remaining").mean(axis=0)
    return float(left[_end(_gains(case, ACCURACY) >= -SAME)])


def final_better_until(case: Case) -> float:
    return _last(case, _gains(case, FINAL) >= -SAME)


def final_within_1_until(case: Case) -> float:
    return _last(case, _gains(case, FINAL) >= -1 - SAME)


def fully_trained_until(case: Case) -> float:
    return _last(case, case.own(TRAINED).mean(axis=0) >= FULLY)


def weights(case: Case) -> float:
    return float(next(iter(case.of.tables.values()))["weights_remaining"][0, 0])


def density(case: Case) -> float:
    return float(case.densities[case.place])


def setting(case: Case) -> float:
    return float(case.of.settings[case.claim.argument])


def _gains(case: Case, quantity: str) -> Array:
    """Return the percentage points above the dense network at each level."""
    accuracy = case.own(quantity)
    return 100 * np.asarray((accuracy - accuracy[:, :1]).mean(axis=0))


def _stops(case: Case) -> Array:
    """Return early stop as a multiple of the dense network's at each level."""
    means = case.own(STOP).mean(axis=0)
    return np.asarray(means / means[0])


def _end(holds: NDArray[np.bool_]) -> int:
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


def _last(case: Case, holds: NDArray[np.bool_]) -> float:
    return float(case.densities[_end(holds)])


def _first(case: Case, holds: NDArray[np.bool_]) -> float:
    """Return the density of the first level from 1 at which a condition holds, or 0."""
    levels = np.flatnonzero(holds[1:])
    return float(case.densities[1 + levels[0]]) if len(levels) else 0.0


def reads_censored(case: Case) -> bool:
    """Return whether a claim is about early stops of which one is censored."""
    name = case.claim.name
    at_end = name == "dense_gain" and reported_accuracy(case.of.settings) == FINAL
    if name not in AT_EARLY_STOP or at_end:
        return False
    levels = AT_EARLY_STOP[name](case)
    samples = [case.of] if case.other is None else [case.of, case.other]
    tables = [own[CENSORED][:, levels] for s in samples for own in s.tables.values()]
    return any((table > 0).any() for table in tables)


Levels = list[int] | slice | NDArray[np.bool_]


def _dense(_: Case) -> Levels:
    return [0]


def _there(case: Case) -> Levels:
    return [case.place]


def _dense_and_there(case: Case) -> Levels:
    return [0, case.place]


def _everywhere(_: Case) -> Levels:
    return slice(None)


AT_EARLY_STOP: dict[str, Callable[[Case], Levels]] = {
    "dense_gain": _dense,
    **dict.fromkeys(("earlier", "speedup", "gain"), _dense_and_there),
    **dict.fromkeys(("slower_than_ticket", "below_ticket"), _there),
    **dict.fromkeys(("mean_below_ticket", "above_random_mask"), _claimed),
    **dict.fromkeys(
        ("best_gain", "earlier_until", "earlier_from", "better_until", "better_from", "worse_from",
         "weights_better_until"), _everywhere,
    ),
}  # fmt: skip
"""Rule that reads early stops, or accuracies there -> the levels at which it reads them."""
RULES: dict[str, Callable[..., float]] = {
    rule.__name__: rule
    for rule in (
        earlier, speedup, slower_than_ticket, gain, below_ticket, mean_below_ticket,
        above_random_mask, best_gain, best_final_gain, final_accuracy, dense_gain, earlier_until,
        earlier_from, better_until, better_from, worse_from, weights_better_until,
        final_better_until, final_within_1_until, fully_trained_until, weights, density, setting,
    )
}  # fmt: skip
EXACT = {"weights", "density", "setting"}
"""Rules whose value does not depend on chance."""
RATIOS = {"earlier", "speedup", "slower_than_ticket"}
"""Rules that are ratios of means, and can be means of ratios."""
COMPARED = dict.fromkeys(("slower_than_ticket", "below_ticket", "mean_below_ticket"), TICKET) | {
    "above_random_mask": RANDOM
}
"""Rule -> the second arm that it needs."""
