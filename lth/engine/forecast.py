"""Forecast how much work a run has left, and measure how fast it is done.

The unit of work is an iteration of the dense network.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lth.engine.build import build_model
from lth.engine.checks import survivor_counts
from lth.engine.engine import find_device
from lth.experiment.lottery import levels
from lth.experiment.nodes import Fresh, Training
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


@dataclass
class Forecast:
    """The work that a run has left. `pending`: returns the trainings to make. `cost`: returns the
    time of an iteration of a training, relative to one of the dense network."""

    pending: Callable[[], Sequence[Training]]
    cost: Callable[[Training], float]
    clock: Callable[[], float] = time.monotonic
    _began: float | None = None
    _done: float = 0.0
    _current: Training | None = None
    _iteration: int = 0
    _left: Sequence[Training] = ()

    def at(self, training: Training, iteration: int) -> dict[str, Any]:
        """Return the entries `left` and `pace` of run.json when a training is before a step."""
        self._count(training, iteration)
        left = {t.digest[:12]: self._work(t, t.start) for t in self._left}
        return {
            "left": left | {training.digest[:12]: self._work(training, iteration)},
            "pace": self._pace(),
        }

    def _count(self, training: Training, iteration: int) -> None:
        """Add the work since the last call. A training that another one follows has ended."""
        if training == self._current:
            self._done += self.cost(training) * (iteration - self._iteration)
        else:
            if self._current is not None:
                self._done += self._work(self._current, self._iteration)
            self._left = self.pending()
        self._current, self._iteration = training, iteration

    def _work(self, training: Training, iteration: int) -> float:
        """Return the work from an iteration of a training to its end."""
        return self.cost(training) * (training.recipe.training.iterations - iteration)

    def _pace(self) -> float | None:
        """Return the work per second since the first call; None in the first second."""
        now = self.clock()
        self._began = now if self._began is None else self._began
        seconds = now - self._began
        return self._done / seconds if seconds >= MEASURED_AFTER and self._done else None
