"""The paper's networks, and which of their weights can be pruned.

A model is any `nn.Module` class that is called as `Model(shape, classes, **options)`, `shape` being
the (channels, height, width) of one input. It draws its initial weights from torch's global
generator, which `fresh` seeds and restores, so that any module works unchanged.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

TRUNCATED = 0.87962566103423978
"""Standard deviation of the standard normal distribution between -2 and 2."""
LayerType = Literal["conv", "linear", "output", "shortcut"]


class LeNet(nn.Sequential):
    """Fully connected layers of the given widths, with ReLU between them (paper, figure 2)."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        widths: Sequence[int],
        dropout: float = 0.0,
        init_scale: float = 1.0,
        truncated: bool = False,
    ) -> None:
        size = torch.Size(shape).numel()
        super().__init__(nn.Flatten(), *fully_connected(size, widths, classes, dropout))
        self.apply(partial(glorot, scale=init_scale, truncated=truncated))


class Conv(nn.Sequential):
    """Pairs of 3x3 convolutions, each followed by a 2x2 pool, then fully connected layers: Conv-2,
    Conv-4 and Conv-6 have one, two and three pairs (paper, figure 2)."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        channels: Sequence[int],
        widths: Sequence[int],
        dropout: float = 0.0,
        init_scale: float = 1.0,
        truncated: bool = False,
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
        self.apply(partial(glorot, scale=init_scale, truncated=truncated))


class LeNet5(nn.Sequential):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: 5x5 convolutions with 6 (padded) and
    16 channels, then fully connected layers of 120 and 84 units."""

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
    """VGG for CIFAR (paper, figure 2): stages of `convolutions[stage]` 3x3 convolutions with batch
    norm and `channels[stage]` channels, a 2x2 pool between stages, average pooling, one linear
    layer."""

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
    """ResNet for CIFAR (He et al. 2016) of `depth` = 6 n + 2 layers: three stages of n blocks with
    16, 32 and 64 channels. The paper's ResNet-18 has depth 20. Raises ValueError for other depths.
    """

    def __init__(self, shape: Sequence[int], classes: int, depth: int) -> None:
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, 32, 44, 56, ...), got {depth}")
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
    """Two 3x3 convolutions with batch norm, to whose output the input is added: unchanged, or
    through a 1x1 projection if the size changes."""

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
    """A convolution of the layer type `shortcut`."""


class Mean(nn.Module):
    """Average pooling over height and width: (n, channels, height, width) to (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def conv3x3(inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias, to be followed by batch norm."""
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)


def fully_connected(
    size: int, widths: Sequence[int], classes: int, dropout: float
) -> list[nn.Module]:
    """Return linear layers from `size` inputs over `widths` to `classes`, with ReLU and dropout
    (probability `dropout`; 0: none) between them. Raises ValueError if `size` < 1."""
    if size < 1:
        raise ValueError("inputs are too small: pooling leaves no area")
    layers: list[nn.Module] = []
    for inside, outside in pairwise((size, *widths)):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return [*layers, nn.Linear((size, *widths)[-1], classes)]


def glorot(module: nn.Module, scale: float = 1.0, *, truncated: bool = False) -> None:
    """Draw Gaussian Glorot weights, of standard deviation `scale` x sqrt(2 / (fan in + fan out)),
    and set biases to zero (paper, figure 2).

    `truncated`: draw from a normal distribution that is cut at two of its standard deviations, and
    wider by 1 / TRUNCATED, so that the weights have the same deviation. TensorFlow's
    `glorot_normal_initializer` does so, which the code uses that Google published of the paper.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        if truncated:
            units, inputs = module.weight.shape[:2]
            fans = (units + inputs) * module.weight[0, 0].numel()
            std = scale * (2 / fans) ** 0.5 / TRUNCATED
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        else:
            nn.init.xavier_normal_(module.weight, gain=scale)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fresh(build: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """Return a new model on the CPU, with initial weights drawn from the seed of `generator`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        return build()


def prunable(model: nn.Module) -> dict[str, LayerType]:
    """Return the layer type of each prunable tensor by name. The weights of convolutions and linear
    layers are prunable; biases and normalisation are not. The output layer is the last linear layer
    in order of definition; a `Projection` is a shortcut. A shared tensor has its first name."""
    other_names = aliases(model)
    kinds: dict[type, LayerType] = {nn.Conv2d: "conv", nn.Linear: "linear", Projection: "shortcut"}
    found: dict[str, LayerType] = {
        f"{name}.weight": kind
        for name, module in model.named_modules()
        for base, kind in kinds.items()
        if isinstance(module, base) and f"{name}.weight" not in other_names
    }
    linear = [name for name, kind in found.items() if kind == "linear"]
    return found | dict.fromkeys(linear[-1:], "output")


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy, on the CPU, of all parameters and buffers by name; each tensor once."""
    return {name: value.cpu() for name, value in copied(model).items()}


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy, on the model's device, of all parameters and buffers by name; each tensor
    once."""
    own, other_names = model.state_dict(), aliases(model)
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in own.items()
        if name not in other_names
    }


def channels_last(model: nn.Module) -> nn.Module:
    """Put the weights of convolutions into the fastest layout in memory; return the model."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Replace all parameters and buffers. Raises RuntimeError if names or shapes differ.

    A shared tensor is set under each of its names: torch copies all of them, and the last one wins.
    """
    shared = {name: state[of] for name, of in aliases(model).items() if of in state}
    model.load_state_dict({**state, **shared})


def aliases(model: nn.Module) -> dict[str, str]:
    """Return the other names of each shared parameter or buffer -> its first name."""
    first: dict[int, str] = {}
    own = model.state_dict(keep_vars=True)
    firsts = {name: first.setdefault(id(tensor), name) for name, tensor in own.items()}
    return {name: of for name, of in firsts.items() if name != of}
