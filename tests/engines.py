"""Engines on small stores, and what they have made."""

from collections.abc import Callable
from itertools import count

import torch

from lth.engine.engine import Engine
from lth.engine.monitor import Watch
from lth.experiment import lottery
from lth.experiment.node import Weights
from lth.experiment.nodes import Training
from lth.experiment.results import Outcome
from lth.experiment.settings import Spec
from tests.conftest import engine_on


def trainings(spec: Spec) -> list[Training]:
    return [training for _, training in lottery.levels(spec)]


def made(engine: Engine, spec: Spec) -> dict[Training, Outcome]:
    results = dict(engine.ensure(trainings(spec)))
    return {training: results[training] for training in trainings(spec)}


def weights(engine: Engine, node: Weights, of: Training) -> dict[str, torch.Tensor]:
    return engine.maker.build.weights(node, of.recipe.network)


def mask_of(engine: Engine, training: Training) -> dict[str, torch.Tensor]:
    return engine.maker.build.mask(training.mask, training.recipe.network)


def again(engine: Engine, watch: Watch | None = None) -> Engine:
    """Return another process on the same store."""
    return engine_on(engine.store.root, watch)


def elsewhere(engine: Engine) -> Engine:
    """Return an engine on another store, which is empty at first."""
    return engine_on(engine.store.root.parent / "other")


def stopping_every(steps: int) -> Callable[[], bool]:
    """Return a function that asks to stop at each `steps`-th call."""
    calls = count(1)
    return lambda: next(calls) % steps == 0
