"""Tables of what the trials of one experiment measured.

A seed is a trial. Draws of one seed are averaged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.intervals import Array

STOP, ACCURACY = "early_stop_iteration", "early_stop_test_accuracy"
FINAL, TRAINED = "final_test_accuracy", "final_train_accuracy"
CENSORED, LEFT = "censored", "weights_remaining"
MEASURED = (STOP, ACCURACY, FINAL, TRAINED, CENSORED, LEFT)
BUDGET = "the budget ends before the minimum of validation loss"
"""Reason why early stops that are censored decide nothing."""
COARSE = "early stops of all trials are in one ratio: set training.evaluate_every lower"
"""Reason why early stops decide nothing whose spread the distance of evaluations hides."""
SAME = 1e-9
"""Tolerance for sums of floats that stand for the same number."""


class Untestable(Exception):
    """Raised with the reason why the runs cannot test a claim."""


@dataclass(frozen=True)
class Sample:
    """Measurements of one network at one rate: arm -> quantity -> (seeds, levels), nan where
    missing. `densities`: arm -> (levels,), in (0, 1]. `seeds` name the rows; `dropped` are seeds
    that were left out because they lack something."""

    tables: Mapping[str, Mapping[str, Array]]
    densities: Mapping[str, Array]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    dropped: tuple[int, ...] = ()

    def values(self, arm: str, quantity: str) -> Array:
        return self.tables[arm][quantity]

    def rows(self, indices: NDArray[np.int64] | list[int]) -> "Sample":
        """Return the sample of these rows."""
        tables = {
            arm: {quantity: table[indices] for quantity, table in own.items()}
            for arm, own in self.tables.items()
        }
        chosen = tuple(self.seeds[i] for i in indices)
        dropped = tuple(seed for seed in self.seeds if seed not in chosen)
        return replace(self, tables=tables, seeds=chosen, dropped=(*self.dropped, *dropped))

    def complete(
        self, arms: Sequence[str], quantities: Iterable[str], levels: Sequence[int], depth: int
    ) -> "Sample":
        """Return these arms for the seeds that have them down to level `depth`, and have these
        quantities at these levels, cut where the shortest arm ends. Raises Untestable where no seed
        has them."""
        missing = [arm for arm in arms if arm not in self.tables]
        if missing:
            raise Untestable(f"no runs of the arm {missing[0]}")
        needed = [(FINAL, range(depth + 1)), *((name, levels) for name in quantities)]
        there = [
            i for i in range(len(self.seeds))
            if all(_has(self.values(arm, name)[i], of) for arm in arms for name, of in needed)
        ]  # fmt: skip
        if not there:
            raise Untestable(f"no seed has level {depth} of {' and '.join(arms)}")
        return self.rows(there)._cut(arms)

    def _cut(self, arms: Sequence[str]) -> "Sample":
        whole = [~np.isnan(self.values(arm, FINAL)).any(axis=0) for arm in arms]
        shared = min(int(np.argmin(np.append(w, False))) for w in whole)
        own = {arm: self.tables[arm] for arm in arms}
        return replace(self, tables=own).first(shared)

    def first(self, levels: int) -> "Sample":
        """Return the sample of the first levels."""
        tables = {
            arm: {quantity: table[:, :levels] for quantity, table in own.items()}
            for arm, own in self.tables.items()
        }
        densities = {arm: self.densities[arm][:levels] for arm in tables}
        return replace(self, tables=tables, densities=densities)


def _has(row: Array, levels: Iterable[int]) -> bool:
    return all(level < len(row) and not np.isnan(row[level]) for level in levels)


def sample(levels: pd.DataFrame) -> Sample:
    """Return the sample of the rows of one experiment at one rate."""
    levels = learnt(levels)
    seeds = sorted(levels["seed"].unique())
    dense = levels[levels["level"] == 0]  # one training for all arms
    tables, densities = {}, {}
    for arm, rows in levels.groupby("arm"):
        whole = pd.concat([dense.assign(arm=arm), rows[rows["level"] > 0]])
        by_seed = whole.groupby(["seed", "level"])[[*MEASURED, "density"]]
        own = by_seed.mean().where(by_seed.count().eq(by_seed.size(), axis=0))
        columns = range(int(rows["level"].max()) + 1)
        tables[str(arm)] = {
            quantity: own[quantity].unstack().reindex(index=seeds, columns=columns).to_numpy(float)
            for quantity in MEASURED
        }
        by_level = own["density"].groupby("level").mean()
        densities[str(arm)] = by_level.reindex(columns).to_numpy(float)
    return Sample(tables, densities, levels.iloc[0].to_dict(), tuple(map(int, seeds)))


def learnt(levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without the early stops of networks that learnt nothing."""
    return levels.assign(**{STOP: levels[STOP].mask(learnt_nothing(levels))})


def learnt_nothing(levels: pd.DataFrame) -> "pd.Series[bool]":
    """Return which networks have their lowest validation loss at their first iteration, which is no
    early stop. Those that go on from the weights of a trained one (`lr`, `finetune`) may have
    nothing left to learn."""
    names = ("rewind.kind", "rewind.iteration", "rewind.survivors")
    kind, iteration, survivors = (levels.get(name, pd.Series(index=levels.index)) for name in names)
    kind = kind.where(levels["level"].gt(0) & survivors.eq("rewind"))
    first = iteration.where(kind.eq("late"), 0)
    return levels[STOP].le(first) & ~kind.isin(["lr", "finetune"])


def reported_accuracy(settings: Mapping[str, Any]) -> str:
    """Return the quantity that the paper reports: it has no early stop of VGG-19 and ResNet-18."""
    model = str(settings["model"])
    deep = model.startswith(("vgg", "resnet")) and "." not in model  # a dotted path is user code
    return FINAL if deep else ACCURACY
