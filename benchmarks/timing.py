"""Shared parts of the benchmarks: alternating rounds, a network of lth to measure, the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from lth import models
from lth.engine.build import build_model
from lth.experiment.nodes import Dense, Fresh, Training
from lth.experiment.recipe import Recipe
from lth.training.augmentation import Augmentation
from lth.training.data import Batch, BatchOrder, Data, Part
from lth.training.masks import Mask
from lth.training.networks import Task, build_network
from lth.training.precision import set_precision
from lth.training.seeds import generator
from lth.training.sparse import LONGEST, Sparse

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Times:
    """The seconds of several rounds."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def in_ms(self) -> str:
        """Return median, minimum and maximum in ms, e.g. `1.2 (1.1 to 1.4)`."""
        low, high = 1e3 * min(self.rounds), 1e3 * max(self.rounds)
        return f"{1e3 * self.median:.3g} ({low:.3g} to {high:.3g})"


def alternating(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Measure each case once to warm up, then all of them in turn for some rounds."""
    for measure in cases.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            found[name].append(measure())
    return {name: Times(times) for name, times in found.items()}


class Ours:
    """A network under a random mask, trained by the backend that lth chooses.

    `density`: of each type of layer, in (0, 1], or one for all.
    """

    def __init__(self, recipe: Recipe, data: Data, density: Mapping[str, float] | float) -> None:
        start = Fresh(recipe.network, seed=0)
        model = models.channels_last(build_model(start))
        random = generator(0, "mask")
        mask: Mask = {
            name: torch.rand(model.get_parameter(name).shape, generator=random)
            < (density if isinstance(density, float) else density[kind])
            for name, kind in models.prunable(model).items()
        }
        weights = models.state(model)
        task = Task(Training(recipe, 0, start, Dense()), model, weights, mask, data)
        self._network = build_network(task)
        self._data, self._recipe = data, recipe
        size = recipe.training.batch_size
        self._order = BatchOrder(0, len(data.train), size, torch.device("cpu"))

    def seconds_per_step(self, steps: int) -> float:
        set_precision(self._recipe.training.precision)
        started = time.perf_counter()
        if isinstance(self._network, Sparse):
            for first in range(0, steps, LONGEST):
                batches = [self._batch(i) for i in range(first, min(first + LONGEST, steps))]
                self._network.steps(batches, [1e-3] * len(batches), 0.0)
        else:
            for iteration in range(steps):
                self._network.step(self._batch(iteration))
        return (time.perf_counter() - started) / steps

    def _batch(self, iteration: int) -> Batch:
        indices, of = self._order.batch(iteration), self._recipe.dataset
        if not (of.flip or of.crop):
            return Batch(self._data.train, indices)
        random = generator(0, "augment", iteration)
        drawn = Augmentation.draw(len(indices), flip=of.flip, crop=of.crop, random=random)
        return Batch(self._data.train, indices, drawn)

    def seconds_of_inputs(self) -> float:
        """Return the time to gather, scale and augment the inputs of a step."""
        started = time.perf_counter()
        self._batch(0).examples()
        return time.perf_counter() - started

    def seconds_per_evaluation(self, part: Part) -> float:
        started = time.perf_counter()
        self._network.evaluate(part)
        return time.perf_counter() - started


def product_seconds(precision: str) -> float:
    """Return the time of one multiplication or addition in a large matrix product."""
    a = torch.randn(1024, 1024, dtype=getattr(torch, precision))
    a @ a  # the first product packs and allocates
    started = time.perf_counter()
    a @ a
    return (time.perf_counter() - started) / (2 * 1024**3)


def floor() -> dict[str, float]:
    """Measure the speed of matrix products and of copies on this machine, with one thread."""
    a, big = torch.randn(1024, 1024), torch.randn(64 * 2**20 // 4)
    rounded, other = a.bfloat16(), torch.empty_like(big)

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    cases: dict[str, Callable[[], object]] = {
        "product": lambda: a @ a, "bfloat16": lambda: rounded @ rounded,
        "copy": lambda: other.copy_(big),
    }  # fmt: skip
    times = alternating({name: partial(timed, work) for name, work in cases.items()}, rounds=15)
    return {
        "product, GFLOP/s": 2 * 1024**3 / times["product"].median / 1e9,
        "product in bfloat16, GFLOP/s": 2 * 1024**3 / times["bfloat16"].median / 1e9,
        "copy, GB/s": 2 * 64 * 2**20 / times["copy"].median / 1e9,
    }


def machine() -> dict[str, str]:
    """Describe this machine and its software."""
    named = [line.partition(":")[2].strip() for line in _cpu_info() if "model name" in line]
    flags = {word for line in _cpu_info() if line.startswith("flags") for word in line.split()}
    units = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
    return {
        "cpu": named[0] if named else platform.processor(), "cores": str(CORES),
        "units": " ".join(units), "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip


def _cpu_info() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    drawn = Table(*header, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*map(str, row))
    return drawn
