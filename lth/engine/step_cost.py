"""Measure steps of dense networks on this machine."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch

from lth import models
from lth.engine.build import build_model
from lth.experiment.nodes import Dense, Fresh, Training
from lth.experiment.recipe import Recipe
from lth.experiment.settings import Precision
from lth.experiment.targets import canonical
from lth.training.data import Batch, Data, Examples, Part
from lth.training.loop import synchronize
from lth.training.networks import Task, build_network, on_stream
from lth.training.precision import set_precision
from lth.training.seeds import generator

SECONDS = 1.0
"""Time after which a measurement ends: the one of the slowest precision."""
FEWEST = 3
"""Steps that are measured at least."""


def step_seconds(recipe: Recipe, *precisions: Precision, device: torch.device) -> list[float]:
    """Return the median time of a step of the dense network in each precision, in seconds. Inputs
    are random; the precisions take turns, so that slow phases of the machine affect all of them."""
    data = random_data(recipe, device)
    steps = [_step(recipe, precision, data, device) for precision in precisions]
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()  # the first step allocates memory
    while max(map(sum, times)) < SECONDS or len(times[0]) < FEWEST:
        for step, of_step in zip(steps, times, strict=True):
            of_step.append(_timed(step))
    return [median(of_step) for of_step in times]


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def random_data(recipe: Recipe, device: torch.device) -> Data:
    """Return one batch of random inputs, for all parts."""
    part = random_part(recipe, recipe.training.batch_size, device)
    return Data(part, part, part, [], [], {})


def random_part(recipe: Recipe, size: int, device: torch.device, seed: int = 0) -> Part:
    """Return `size` examples with random inputs and labels."""
    random = generator(seed, "timing")
    inputs = torch.randint(256, (size, *recipe.dataset.shape), dtype=torch.uint8, generator=random)
    labels = torch.randint(recipe.dataset.classes, (size,), generator=random)
    placed = inputs.to(device, memory_format=torch.channels_last)
    return Part(Examples(placed, labels.to(device)), lambda x: x.float().div_(255))


def _step(
    recipe: Recipe, precision: Precision, data: Data, device: torch.device
) -> Callable[[], float]:
    recipe = replace(recipe, training=replace(recipe.training, precision=precision))
    network = build_network(dense_task(recipe, data, device))
    synchronize(device)  # the network's stream waits for nothing
    batch = Batch(data.train, torch.arange(len(data.train), device=device))

    def taken() -> float:
        set_precision(precision)
        with on_stream(network):
            return float(network.step(batch))  # waits for a GPU

    return taken


def dense_task(recipe: Recipe, data: Data, device: torch.device) -> Task:
    """Return a training of the dense network."""
    start = Fresh(recipe.network, seed=0)
    model = models.channels_last(build_model(start).to(device))
    kept = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool, device="cpu")
            for name in models.prunable(model)}  # fmt: skip
    return Task(Training(recipe, 0, start, Dense()), model, models.state(model), kept, data)


class Comparison(NamedTuple):
    """Seconds of a step of the dense network in float32 and in bfloat16, on this machine."""

    model: str
    float32: float
    bfloat16: float


def dense_seconds(trainings: Iterable[Training], device: torch.device) -> float:
    """Return the time that all steps of some trainings take, in seconds, if each takes as long as
    one of the dense network. A step of each kind of training is measured for a second."""
    return sum(
        iterations * step_seconds(recipe, recipe.training.precision, device=device)[0]
        for recipe, iterations in _by_kind(trainings)
    )


def compare_precisions(trainings: Iterable[Training], device: torch.device) -> Comparison | None:
    """Measure a step in both precisions, in a few seconds, of the kind of training that has the
    most iterations. Return None if no training is in float32 or bfloat16."""
    either = [t for t in trainings if t.recipe.training.precision in ("float32", "bfloat16")]
    if not either:
        return None
    recipe, _ = max(_by_kind(either), key=lambda kind: kind[1])
    return Comparison(
        recipe.model.name, *step_seconds(recipe, "float32", "bfloat16", device=device)
    )


def _by_kind(trainings: Iterable[Training]) -> list[tuple[Recipe, int]]:
    """Return a recipe of each network, batch size and precision, with the number of all iterations
    of this kind."""
    work, recipes = Counter[str](), dict[str, Recipe]()
    for training in trainings:
        recipe, budget = training.recipe, training.recipe.training
        kind = json.dumps([canonical(recipe.network), budget.batch_size, budget.precision])
        recipes[kind] = recipe
        work[kind] += budget.iterations - training.start
    return [(recipes[kind], iterations) for kind, iterations in work.items()]
