"""Units of a network: the neurons and filters between two layers of a chain.

To remove a unit is to prune the weights into it and out of it. Whatever its bias, it then has no
effect on the outputs.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lth.errors import LotteryError
from lth.training import selection
from lth.training.masks import Mask
from lth.training.selection import Scores

ONE = "units"
"""Name of the pool of all units behind a layer."""


class Link(NamedTuple):
    """Two successive layers. Each of the `units` outputs of the first are `block` successive inputs
    of the second: 1, or the area of a channel that is flattened."""

    into: str
    out_of: str
    units: int
    block: int


def links(shapes: Mapping[str, Sequence[int]]) -> list[Link]:
    """Return the links of a chain of layers, given the shapes of their weights in order. Raises
    LotteryError if the inputs of a layer are not the outputs of the one before."""
    found = []
    for (into, first), (out_of, second) in pairwise(shapes.items()):
        block, rest = divmod(second[1], first[0])
        if rest or not block:
            raise LotteryError(
                f"pruning.granularity needs layers in a chain: {into} has {first[0]} outputs, and "
                f"{out_of} has {second[1]} inputs. Use another model, or granularity=weight."
            )
        found.append(Link(into, out_of, first[0], block))
    return found


def alive(mask: Mask, link: Link) -> Tensor:
    """Return which units still have weights out of them: bool (units,)."""
    after = mask[link.out_of]
    return after.reshape(len(after), link.units, -1).any(2).any(0)


def prune(scores: Scores, mask: Mask, rates: Mapping[str, float], times: int) -> Mask:
    """Return the mask without the units whose incoming weights have the lowest sums of scores; for
    magnitudes the L1 norm (Li et al. 2017, arXiv:1608.08710). `rates`: percent of the units behind
    each layer that are removed, `times` times."""
    pruned = {name: kept.clone() for name, kept in mask.items()}
    for link in links({name: kept.shape for name, kept in mask.items()}):
        now = alive(mask, link)
        sums = scores[link.into].double().masked_fill(~mask[link.into], 0).flatten(1).sum(1)
        count = selection.survivors(int(now.sum()), rates[link.into], times)
        kept = selection.keep({ONE: sums}, {ONE: now}, {(ONE,): count})[ONE]
        pruned[link.into][~kept] = False
        pruned[link.out_of][:, ~kept.repeat_interleave(link.block)] = False
    return pruned


def weights_left(shapes: Mapping[str, Sequence[int]], units: Mapping[str, int]) -> dict[str, int]:
    """Return the weights of each layer if this many units are left behind it; behind the last, all
    of them."""
    inputs = {link.out_of: units[link.into] * link.block for link in links(shapes)}
    return {
        name: units.get(name, shape[0]) * inputs.get(name, shape[1]) * math.prod(shape[2:])
        for name, shape in shapes.items()
    }


def is_chain(model: nn.Module) -> bool:
    """Return whether a network passes its inputs through one module after the other."""
    simple = isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward
    return simple and not any(list(module.children()) for module in model.children())


def smaller(model: nn.Sequential, mask: Mask) -> nn.Sequential:
    """Return a dense network with the same outputs, without the units that have no weights out of
    them. Its pruned weights are 0. Raises LotteryError if it has a module with weights that is not
    a layer or a batch norm."""
    modules = {f"{name}.weight": module for name, module in model.named_children()}
    kept = {name: torch.arange(of.shape[1]) for name, of in mask.items()}  # inputs
    for link in links({name: of.shape for name, of in mask.items()}):
        units = alive(mask, link)
        kept[link.out_of] = units.repeat_interleave(link.block).nonzero().squeeze(1)
        kept |= {f"outputs {link.into}": units.nonzero().squeeze(1)}
    found: list[nn.Module] = []
    behind = None
    for name, module in modules.items():
        if name in mask:
            every = torch.arange(len(mask[name]))
            units = kept.get(f"outputs {name}", every)
            found.append(_sliced(module, mask[name], units, kept[name]))
            behind = units, len(every)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and behind:
            found.append(_sliced_norm(module, *behind))
        elif any(p.numel() > 1 for p in module.parameters()) and behind:
            raise LotteryError(
                f"a network with {type(module).__name__} cannot be made smaller: only linear "
                "layers, convolutions and batch norms can lose units. Use Ticket.model()."
            )
        else:
            found.append(copy.deepcopy(module))
    return nn.Sequential(*found).train(model.training)


def _sliced(module: nn.Module, mask: Tensor, outputs: Tensor, inputs: Tensor) -> nn.Module:
    """Return a layer with some of its outputs and inputs."""
    assert isinstance(module, nn.Linear | nn.Conv2d)
    part = copy.deepcopy(module)
    part.weight = nn.Parameter((module.weight.detach() * mask)[outputs][:, inputs])
    if module.bias is not None:
        part.bias = nn.Parameter(module.bias.detach()[outputs])
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = len(outputs), len(inputs)
    else:
        part.out_channels, part.in_channels = len(outputs), len(inputs)
    return part


def _sliced_norm(
    module: nn.BatchNorm1d | nn.BatchNorm2d, units: Tensor, of: int
) -> nn.BatchNorm1d | nn.BatchNorm2d:
    """Return a batch norm of the channels of some `units` of the layer before, which has `of` of
    them; behind a flattening layer, each unit has several channels."""
    channels = torch.arange(module.num_features).reshape(of, -1)[units].flatten()
    part = copy.deepcopy(module)
    part.num_features = len(channels)
    for value in (*part.parameters(), *part.buffers()):
        if value.dim():
            value.data = value.data[channels]
    return part
