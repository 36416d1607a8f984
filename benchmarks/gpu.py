"""Measure a training step on a GPU: by autograd, as a CUDA graph, as the graphs of several networks
at once, and in the training loop.

python -m benchmarks.gpu    takes a minute; needs no data

A step is that of the dense network on a batch of random inputs, without augmentation. On a CPU,
where there are no graphs, all cases are autograd's. The loop is measured on GPUs alone: it trains
networks with a fifth of their weights, with few and with many evaluations. Rounds take turns
between the cases.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from rich.console import Console

from benchmarks.timing import alternating, machine, table
from lth.engine.engine import find_device
from lth.engine.step_cost import dense_task, random_data, random_part
from lth.experiment.config import composed
from lth.experiment.recipe import Recipe, recipe
from lth.training import loop
from lth.training.data import Batch, Data
from lth.training.loop import Progress
from lth.training.networks import Task, Trainable, build_network, on_stream
from lth.training.precision import set_precision
from lth.training.seeds import generator

CASES = {"lenet": "float32", "conv2": "bfloat16", "conv4": "bfloat16", "resnet18": "bfloat16"}
"""Preset -> precision."""
SEVERAL, ROUNDS, STEPS = 6, 5, 100
"""Networks side by side, rounds, and steps in a round."""
DENSITY, FIRST, ITERATIONS, OFTEN = 0.2, 100, 500, 100
"""Settings of the loop: density of the networks, iterations before the measurement, all
iterations, and iterations between frequent evaluations."""


def main() -> None:
    console, device = Console(), find_device("auto")
    console.print(machine(), torch.cuda.get_device_name() if device.type == "cuda" else device)
    header = ("", "eager, ms", "as a graph, ms", f"{SEVERAL} side by side, ms")
    rows = [measured(preset, device) for preset in CASES]
    console.print(table("a step, median (range)", header, rows))
    if device.type == "cpu":
        return
    often = (f"in the loop, evaluated every {every}, ms" for every in (ITERATIONS, OFTEN))
    columns = ("", "side by side, ms", *often)
    title = f"an iteration of {SEVERAL} networks with {DENSITY:.0%} of their weights"
    console.print(table(title, columns, [in_loop("conv2", device)]))


def measured(preset: str, device: torch.device) -> tuple[str, ...]:
    """Return a row of the table."""
    given = composed_recipe(preset)
    set_precision(given.training.precision)
    data = random_data(given, device)
    batch = Batch(data.train, torch.arange(len(data.train), device=device))

    def networks(count: int, *, only_eager: bool = False) -> list[Trainable]:
        tasks = [dense_task(given, data, device) for _ in range(count)]
        return [build_network(task, only_eager=only_eager) for task in tasks]

    cases = {
        "eager": networks(1, only_eager=True),
        "graph": networks(1),
        "several": networks(SEVERAL),
    }
    times = alternating({n: partial(seconds, of, batch) for n, of in cases.items()}, ROUNDS)
    return (f"{preset}, {CASES[preset]}", *(of.in_ms() for of in times.values()))


def composed_recipe(preset: str, *overrides: str) -> Recipe:
    """Return the recipe of a preset in its precision."""
    return recipe(composed(f"preset={preset}", f"training.precision={CASES[preset]}", *overrides))


def in_loop(preset: str, device: torch.device) -> tuple[str, ...]:
    """Return the row of the second table."""
    given, sizes = composed_recipe(preset), (5_000, 5_000, 10_000)
    set_precision(given.training.precision)
    parts = [random_part(given, size, device, seed) for seed, size in enumerate(sizes)]
    data = Data(parts[0], parts[1], parts[2], [], [], {})
    batch = Batch(data.train, torch.arange(given.training.batch_size, device=device))

    def tasks(every: int) -> list[Task]:
        budget = f"training.iterations={ITERATIONS}", f"training.evaluate_every={every}"
        of = composed_recipe(preset, *budget)
        return [masked(dense_task(of, data, device), seed) for seed in range(SEVERAL)]

    cases: dict[str, Callable[[], float]] = {
        "steps": partial(seconds, [build_network(task) for task in tasks(OFTEN)], batch),
        "few": lambda: loop_seconds(tasks(ITERATIONS), device),
        "many": lambda: loop_seconds(tasks(OFTEN), device),
    }
    times = alternating(cases, ROUNDS)
    return (f"{preset}, {CASES[preset]}", *(of.in_ms() for of in times.values()))


def masked(task: Task, seed: int) -> Task:
    """Return a task under a random mask."""
    random = generator(seed, "mask")
    mask = {n: torch.rand(kept.shape, generator=random) < DENSITY for n, kept in task.mask.items()}
    return replace(task, mask=mask)


def loop_seconds(tasks: Sequence[Task], device: torch.device) -> float:
    """Return the time of an iteration of the training loop."""
    started = 0.0

    def mark(running: Sequence[Progress]) -> None:
        nonlocal started
        if running[0].iteration == FIRST:
            loop.synchronize(device)
            started = time.perf_counter()

    loop.train(tasks, on_step=mark)
    return (time.perf_counter() - started) / (ITERATIONS - FIRST)


def seconds(networks: Sequence[Trainable], batch: Batch) -> float:
    """Return the time of a step of all networks."""
    steps = STEPS if batch.labels.is_cuda else 1
    loop.synchronize(batch.labels.device)
    started = time.perf_counter()
    for _ in range(steps):
        for network in networks:
            with on_stream(network):
                network.step(batch)
    loop.synchronize(batch.labels.device)
    return (time.perf_counter() - started) / steps


if __name__ == "__main__":
    main()
