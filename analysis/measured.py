"""What the paper claims (`paper.csv`), and how each number is computed from what runs measured.

Draws of a seed are averaged; differences and ratios are taken within a seed. Accuracy at early
stop, as in the main text; of VGG-19 and ResNet-18 at the end of training.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.collect import ARMS

Array = NDArray[np.float64]

PAPER = Path(__file__).with_name("paper.csv")
STOP, ACCURACY = "early_stop_iteration", "early_stop_test_accuracy"
FINAL, TRAINED = "final_test_accuracy", "final_train_accuracy"
TICKET, RANDOM_MASK = ARMS[0], ARMS[2]
MEASURED = (STOP, ACCURACY, FINAL, TRAINED, "weights_remaining")

FULLY = 0.995
"""Training accuracy that counts as 100 %: what is printed so."""
NEAR = 0.05
"""How far, relatively, a level's density may be from the one that a claim names."""
SAME = 1e-9
"""What sums of floats may be apart that stand for one number."""


class Claim(NamedTuple):
    """A row of paper.csv. `rule`: a function of RULES, or `name:argument`; `level` or `density`
    (percent): where it holds, if at one place; `depth`: the density that runs have to reach;
    `bound`: = about, >= at least, <= at most, > more than `value`."""

    id: str
    network: str
    rule: str
    arm: str
    level: int | None
    density: float | None
    depth: float | None
    bound: str
    value: float
    unit: str
    says: str
    source: str
    digits: int
    """Decimals of the value as the paper prints it."""

    @property
    def name(self) -> str:
        return self.rule.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.rule.partition(":")[2]


class Untestable(Exception):
    """Why the runs cannot test a claim."""


def paper_claims() -> list[Claim]:
    with PAPER.open(encoding="utf-8", newline="") as file:
        return [_claim(row) for row in csv.DictReader(file)]


def _claim(row: dict[str, str]) -> Claim:
    names = ("level", "density", "depth", "value")
    own = {name: float(row[name]) if row[name] else None for name in names}
    digits = len(row["value"].partition(".")[2])
    level = None if own["level"] is None else int(own["level"])
    return Claim(**{**row, **own, "level": level}, digits=digits)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sample:
    """What runs of one network at one rate measured: arm -> quantity -> (seeds, levels), nan where
    missing. `densities`: arm -> (levels,); `seeds` name the rows."""

    tables: Mapping[str, Mapping[str, Array]]
    densities: Mapping[str, Array]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]

    def of(self, arm: str, quantity: str) -> Array:
        return self.tables[arm][quantity]

    def rows(self, indices: NDArray[np.int64] | list[int]) -> "Sample":
        """Some of the seeds, or some of them several times."""
        tables = {
            arm: {quantity: table[indices] for quantity, table in own.items()}
            for arm, own in self.tables.items()
        }
        return replace(self, tables=tables, seeds=tuple(self.seeds[i] for i in indices))

    def down_to(self, arms: Sequence[str], level: int) -> "Sample":
        """These arms, of the seeds that have all of them down to a level, cut where one ends."""
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
    """That of the rows of one experiment at one rate."""
    seeds = sorted(levels["seed"].unique())
    dense = levels[levels["level"] == 0]  # one training, whatever arm reports it
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
    """A claim, and what is measured of it: of complete seeds only. `place`: the level it is about;
    `other`: the network that it compares with."""

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
    """Of means; or, `each`, the mean of the ratios."""
    return float((one / other).mean() if each else one.mean() / other.mean())


def reported_accuracy(settings: Mapping[str, Any]) -> str:
    """The paper has no early stop of VGG-19 and ResNet-18."""
    return FINAL if str(settings["model"]).startswith(("vgg", "resnet")) else ACCURACY


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
    difference = case.own(ACCURACY) - case.of.of(RANDOM_MASK, ACCURACY)
    return 100 * float(difference[:, _claimed(case)].mean())


def _claimed(case: Case) -> NDArray[np.bool_]:
    """The levels below 50 %, down to the depth that the claim needs."""
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
    """Points above the dense network, level by level."""
    accuracy = case.own(quantity)
    return 100 * np.asarray((accuracy - accuracy[:, :1]).mean(axis=0))


def _stops(case: Case) -> Array:
    """Early stop as a multiple of the dense network's, level by level."""
    means = case.own(STOP).mean(axis=0)
    return np.asarray(means / means[0])


def _end(holds: NDArray[np.bool_]) -> int:
    """The last level at which it holds. It begins at level 1 or with two levels in a row, and ends
    before two in a row at which it does not: noise alone makes one hold, or fail."""
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
    """The density of the first level after 0 at which it holds; 0 where there is none."""
    levels = np.flatnonzero(holds[1:])
    return float(case.densities[1 + levels[0]]) if len(levels) else 0.0


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
"""Rules without chance."""
RATIOS = {"earlier", "speedup", "slower_than_ticket"}
COMPARED = dict.fromkeys(("slower_than_ticket", "below_ticket", "mean_below_ticket"), TICKET) | {
    "above_random_mask": RANDOM_MASK
}
"""Rules that need a second arm."""
