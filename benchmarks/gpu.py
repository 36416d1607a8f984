"""Measure a training step on a GPU: by autograd, as a CUDA graph, and as the graphs of several
networks at once.

python -m benchmarks.gpu    takes a minute; needs no data

A step is that of the dense network on a batch of random inputs, without augmentation. Rounds take
turns between the cases. On a CPU, where there are no graphs, all cases are autograd's.
"""

import time
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from benchmarks.timing import alternating, machine, table
from lth.engine.engine import find_device
from lth.engine.step_cost import dense_task, random_data
from lth.experiment.config import composed
from lth.experiment.recipe import recipe
from lth.training.data import Batch
from lth.training.networks import Trainable, build_network, on_stream
from lth.training.precision import set_precision

CASES = {"lenet": "float32", "conv2": "bfloat16", "conv4": "bfloat16", "resnet18": "bfloat16"}
"""Preset -> precision."""
SEVERAL, ROUNDS, STEPS = 6, 5, 100
"""Networks side by side, rounds, and steps in a round."""


def main() -> None:
    console, device = Console(), find_device("auto")
    console.print(machine(), torch.cuda.get_device_name() if device.type == "cuda" else device)
    header = ("", "eager, ms", "as a graph, ms", f"{SEVERAL} side by side, ms")
    rows = [measured(preset, device) for preset in CASES]
    console.print(table("a step, median (range)", header, rows))


def measured(preset: str, device: torch.device) -> tuple[str, ...]:
    """Return a row of the table."""
    given = recipe(composed(f"preset={preset}", f"training.precision={CASES[preset]}"))
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


def seconds(networks: Sequence[Trainable], batch: Batch) -> float:
    """Return the time of a step of all networks."""
    steps = STEPS if batch.labels.is_cuda else 1
    started = time.perf_counter()
    for _ in range(steps):
        for network in networks:
            with on_stream(network):
                network.step(batch)
    if batch.labels.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


if __name__ == "__main__":
    main()
