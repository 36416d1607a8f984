"""The paper's networks, and which of their weights can be pruned.

A model is any `nn.Module` class called as `Model(shape, classes, **options)`, with `shape` that of
one input, (channels, height, width). It initialises itself from torch's global generator, which
`fresh` seeds and gives back untouched: so any module works as it is.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

LayerType = Literal["conv", "linear", "output", "shortcut"]


class LeNet(nn.Sequential):
    """Fully connected layers of the given widths, ReLU between them (paper, figure 2)."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        widths: Sequence[int],
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        size = torch.Size(shape).numel()
        super().__init__(nn.Flatten(), *fully_connected(size, widths, classes, dropout))
        self.apply(partial(glorot, scale=init_scale))


class Conv(nn.Sequential):
    """Pairs of 3x3 convolutions, each pair followed by a 2x2 pool, then fully connected layers:
    Conv-2, Conv-4 and Conv-6 have one, two and three pairs (paper, figure 2)."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        channels: Sequence[int],
        widths: Sequence[int],
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        depth, height, width = shape
        layers: list[nn.Module] = []
        for inside, outside in pairwise((depth, *channels)):
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        pools = 2 ** len(channels)
        size = channels[-1] * (height // pools) * (width // pools)
        head = fully_connected(size, widths, classes, dropout)
        super().__init__(*layers, nn.Flatten(), *head)
        self.apply(partial(glorot, scale=init_scale))


class LeNet5(nn.Sequential):
    """LeCun et al. 1998 with ReLU and max pooling: 5x5 convolutions of 6 (padded) and 16 channels,
    then 120 and 84 units."""

    def __init__(self, shape: Sequence[int], classes: int, dropout: float = 0.0) -> None:
        depth, height, width = shape
        size = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        super().__init__(
            *(nn.Conv2d(depth, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), *fully_connected(size, (120, 84), classes, dropout)),
        )
        self.apply(glorot)


class VGG(nn.Sequential):
    """3x3 convolutions with batch norm in stages of `channels[stage]`, `convolutions[stage]` times,
    a 2x2 pool between stages, the mean over what area is left, one linear layer (paper, figure 2).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        channels: Sequence[int],
        convolutions: Sequence[int],
    ) -> None:
        depth = shape[0]
        layers: list[nn.Module] = []
        for width, count in zip(channels, convolutions, strict=True):
            for _ in range(count):
                layers += [conv3x3(depth, width), nn.BatchNorm2d(width), nn.ReLU()]
                depth = width
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers[:-1], Mean(), nn.Linear(depth, classes))
        self.apply(glorot)


class ResNet(nn.Sequential):
    """He et al. 2016 for CIFAR, of `depth` 6 n + 2 layers (20, 32, 56): three stages of n blocks,
    16, 32 and 64 channels wide. The paper's ResNet-18 is that of depth 20."""

    def __init__(self, shape: Sequence[int], classes: int, depth: int) -> None:
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth={depth}: 6 n + 2 layers are wanted: 8, 14, 20, 32, 44, 56")
        stages = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        layers = [
            block
            for inside, outside, stride in stages
            for block in (
                Block(inside, outside, stride),
                *(Block(outside, outside, 1) for _ in range(blocks - 1)),
            )
        ]
        stem = (conv3x3(shape[0], 16), nn.BatchNorm2d(16), nn.ReLU())
        super().__init__(*stem, *layers, Mean(), nn.Linear(64, classes))
        self.apply(glorot)


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and the input added to them: as it is, or through a 1x1
    projection where the size changes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inside, outside, stride), nn.BatchNorm2d(outside)
        self.conv2, self.norm2 = conv3x3(outside, outside), nn.BatchNorm2d(outside)
        same = inside == outside and stride == 1
        projected = (Projection(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = nn.Identity() if same else nn.Sequential(*projected)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Projection(nn.Conv2d):
    """A convolution that is of the type `shortcut`."""


class Mean(nn.Module):
    """The mean over height and width: (n, channels, height, width) to (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def conv3x3(inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
    """Without a bias: batch norm follows."""
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)


def fully_connected(
    size: int, widths: Sequence[int], classes: int, dropout: float
) -> list[nn.Module]:
    """Linear layers from `size` over `widths` to `classes`; ReLU and dropout between them."""
    if size < 1:
        raise ValueError("pooling leaves nothing of inputs of this size")
    layers: list[nn.Module] = []
    for inside, outside in pairwise((size, *widths)):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return [*layers, nn.Linear((size, *widths)[-1], classes)]


def glorot(module: nn.Module, scale: float = 1.0) -> None:
    """Gaussian Glorot weights, standard deviation `scale` x sqrt(2 / (fan in + fan out)), and zero
    biases (figure 2)."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=scale)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fresh(build: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """The model on the CPU, with initial weights drawn from `generator` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        return build()


def prunable(model: nn.Module) -> dict[str, LayerType]:
    """The type of each prunable tensor: weights of convolutions and linear layers, never biases or
    normalisation. The output layer is the last linear one in order of definition; a `Projection` is
    a shortcut."""
    kinds: dict[type, LayerType] = {nn.Conv2d: "conv", nn.Linear: "linear", Projection: "shortcut"}
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
