"""Measure how much faster the smaller network is that is left when neurons and filters are pruned.

python -m benchmarks.smaller [MODEL ...]    takes a minute; needs no data

A forward pass of 100 random inputs in evaluation mode, on one thread: of the network with its
pruned weights at 0, and of the dense network without the pruned units. Rounds alternate. Units are
pruned by the magnitude of initial weights, because speed depends on shapes alone.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import cast

import torch
from rich.console import Console
from torch import nn

from benchmarks.timing import alternating, machine, table
from lth import models
from lth.engine.build import build_model
from lth.experiment.config import composed
from lth.experiment.nodes import Fresh
from lth.experiment.recipe import recipe
from lth.training import masks, units

PRESETS = ("lenet", "conv2", "conv6", "vgg19")
KEPT = (0.5, 0.2)
"""Fractions of the units behind each layer that are left."""
INPUTS, PASSES, ROUNDS = 100, 5, 5


def main() -> None:
    torch.set_num_threads(1)
    console = Console(width=140)
    console.print(machine())
    header = ("units left", "weights left", "whole, ms", "smaller, ms", "times faster")
    for preset in sys.argv[1:] or PRESETS:
        console.print(table(f"{preset}: a forward pass of {INPUTS}", header, rows(preset)))


def rows(preset: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each fraction of KEPT."""
    network = recipe(composed(f"preset={preset}")).network
    model = cast(nn.Sequential, build_model(Fresh(network, 0)))
    scores = {name: model.get_parameter(name).detach().abs() for name in models.prunable(model)}
    dense = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    inputs = torch.rand(INPUTS, *network.shape)
    for kept in KEPT:
        mask = units.prune(scores, dense, dict.fromkeys(scores, 100 * (1 - kept)), 1)
        small = units.smaller(model, mask).eval()
        models.load(model, masks.apply(models.state(model), mask))
        cases = {"whole": forward(model.eval(), inputs), "smaller": forward(small, inputs)}
        times = alternating(cases, ROUNDS)
        sizes = [sum(p.numel() for p in of.parameters()) for of in (small, model)]
        ratio = times["whole"].median / times["smaller"].median
        yield (
            f"{kept:.0%}", f"{sizes[0] / sizes[1]:.1%}", times["whole"].in_ms(),
            times["smaller"].in_ms(), f"{ratio:.1f}",
        )  # fmt: skip


@torch.no_grad()
def _seconds(model: nn.Module, inputs: torch.Tensor) -> float:
    started = perf_counter()
    for _ in range(PASSES):
        model(inputs)
    return (perf_counter() - started) / PASSES


def forward(model: nn.Module, inputs: torch.Tensor) -> Callable[[], float]:
    """Return a function that measures the seconds of a forward pass."""
    return partial(_seconds, model, inputs)


if __name__ == "__main__":
    main()
