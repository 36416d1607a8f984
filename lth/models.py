"""The paper's networks, and which of their weights can be pruned.

A model is any `nn.Module` class called as `Model(shape, classes, **options)`, with `shape` that of
one input, (channels, height, width). It initialises itself from torch's global generator, which
`fresh` seeds and gives back untouched: so any module works as it is.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

LayerType = Literal["conv", "linear", "output"]


class LeNet(nn.Sequential):
    """Fully connected layers of the given widths, ReLU between them (paper, figure 2)."""

    def __init__(self, shape: Sequence[int], classes: int, widths: Sequence[int]) -> None:
        sizes = [torch.Size(shape).numel(), *widths, classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.apply(glorot)


def glorot(module: nn.Module) -> None:
    """Gaussian Glorot weights, variance 2 / (fan in + fan out), and zero biases (figure 2)."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fresh(build: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """The model on the CPU, with initial weights drawn from `generator` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        return build()


def prunable(model: nn.Module) -> dict[str, LayerType]:
    """The type of each prunable tensor: weights of convolutions and linear layers, never biases or
    normalisation. The output layer is the last linear one in order of definition."""
    kinds: dict[type, LayerType] = {nn.Conv2d: "conv", nn.Linear: "linear"}
    found: dict[str, LayerType] = {
        f"{name}.weight": kind
        for name, module in model.named_modules()
        for base, kind in kinds.items()
        if isinstance(module, base)
    }
    linear = [name for name, kind in found.items() if kind == "linear"]
    return found | dict.fromkeys(linear[-1:], "output")


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy, on the CPU, of all parameters and buffers."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
