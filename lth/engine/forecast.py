"""Forecast how much work runs have left, and measure how fast it is done.

The unit of work is an iteration of the dense network.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lth.engine.build import build_model
from lth.engine.checks import survivor_counts
from lth.engine.engine import find_device
from lth.experiment.lottery import levels, nodes
from lth.experiment.nodes import Fresh, Training, with_ancestors
from lth.experiment.recipe import recipe
from lth.experiment.settings import Spec
from lth.training import sparse as sparse_steps

FIXED, BY_DENSITY = 0.07, 1.1
"""Cost of a sparse iteration: a fixed part, and one that is proportional to density. They fit the
measurements in docs/speed.md within 15 %."""
MEASURED_AFTER = 1.0
"""Seconds of training before a pace is reported: the first iterations are slow."""


def iteration_cost(density: float, *, sparse: bool) -> float:
    """Return the time of an iteration, relative to one of the dense network. `sparse`: whether
    sparse steps can be used."""
    return FIXED + BY_DENSITY * density if sparse and density <= sparse_steps.DENSEST else 1.0


def costs_of(spec: Spec) -> Callable[[Training], float]:
    """Return a function that returns the cost of an iteration of a run's training."""
    model = build_model(Fresh(recipe(spec).network, seed=0))
    survivors = survivor_counts(spec, model)
    reported = {training: level for level, training in levels(spec)}
    device = find_device(spec.device).type
    fits = sparse_steps.suits(model.to(device), spec.optimizer) and spec.backend == "auto"

    def cost(training: Training) -> float:
        level = reported.get(training, training.mask.level)  # of others, e.g. those of a source
        density = survivors[min(level, len(survivors) - 1)] / survivors[0]
        return iteration_cost(density, sparse=fits and training.pruned == "zero")

    return cost


def costs_of_all(specs: Iterable[Spec]) -> Callable[[Training], float]:
    """Return a function that returns the cost of an iteration of any training of some runs, on one
    device."""
    specs = [*specs]
    if find_device(specs[0].device).type == "cuda":  # where no steps are sparse
        return lambda _: 1.0
    costs: dict[Training, float] = {}
    for spec in specs:
        cost = costs_of(spec)
        for node in with_ancestors({node for _, node in nodes(spec)}):
            if isinstance(node, Training) and node not in costs:
                costs[node] = cost(node)
    return costs.__getitem__


@dataclass
class Forecast:
    """The work that runs have left. `pending`: returns the trainings to make. `cost`: returns the
    time of an iteration of a training, relative to one of the dense network."""

    pending: Callable[[], Sequence[Training]]
    cost: Callable[[Training], float]
    clock: Callable[[], float] = time.monotonic
    done: float = 0.0
    """Work done since the first call."""
    _began: float | None = None
    _current: Sequence[Training] = ()
    _iteration: int = 0
    _pending: Sequence[Training] = ()

    def at(self, trainings: Sequence[Training], iteration: int) -> dict[str, Any]:
        """Return the entries `left` and `pace` of run.json when trainings that run together are
        before a step."""
        self._count(trainings, iteration)
        left = {t.digest[:12]: self._work(t, t.start) for t in self._pending}
        now = {t.digest[:12]: self._work(t, iteration) for t in trainings}
        return {"left": left | now, "pace": self._pace()}

    def _count(self, trainings: Sequence[Training], iteration: int) -> None:
        """Add the work since the last call. Trainings that others follow have ended or failed,
        unless they are still to be made."""
        before = {training: self._work(training, self._iteration) for training in self._current}
        if trainings == self._current:
            now = sum(self._work(training, iteration) for training in trainings)
            self.done += sum(before.values()) - now
        else:
            self._pending = self.pending()
            self.done += sum(before[training] for training in before.keys() - {*self._pending})
        self._current, self._iteration = trainings, iteration

    def _work(self, training: Training, iteration: int) -> float:
        """Return the work from an iteration of a training to its end."""
        return self.cost(training) * (training.recipe.training.iterations - iteration)

    def _pace(self) -> float | None:
        """Return the work per second since the first call; None in the first second."""
        now = self.clock()
        self._began = now if self._began is None else self._began
        seconds = now - self._began
        return self.done / seconds if seconds >= MEASURED_AFTER and self.done else None
