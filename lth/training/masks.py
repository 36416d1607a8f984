"""Masks: name of a prunable tensor -> bool tensor of its shape, True = kept."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Mask = dict[str, Tensor]


def apply(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """Return a copy of `state` with pruned entries 0.0 (never -0.0, which a product can give)."""
    return {
        name: value.masked_fill(~mask[name], 0.0) if name in mask else value.clone()
        for name, value in state.items()
    }


def density(mask: Mask) -> float:
    """Return the fraction of entries that survive, in [0, 1]."""
    sizes = sum(kept.numel() for kept in mask.values())
    return sum(int(kept.sum()) for kept in mask.values()) / sizes


def distance(one: Mask, other: Mask) -> float:
    """Return the fraction of entries in which two masks differ: their normalised Hamming distance
    (You et al. 2020)."""
    differ = sum(int((kept != other[name]).sum()) for name, kept in one.items())
    return differ / sum(kept.numel() for kept in one.values())


def pack(mask: Mask) -> dict[str, Tensor]:
    """Pack eight entries into a byte, row-major: uint8 tensors of shape (ceil(entries / 8),)."""
    return {name: torch.from_numpy(np.packbits(kept.numpy())) for name, kept in mask.items()}


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Mask:
    """Invert `pack`. `shapes`: name -> shape of each prunable tensor of the network."""
    return {
        name: torch.from_numpy(
            np.unpackbits(packed[name].numpy(), count=shape.numel()).astype(bool)
        ).reshape(shape)
        for name, shape in shapes.items()
    }


def shuffled(mask: Mask, generator: torch.Generator) -> Mask:
    """Return the entries of each tensor in an order drawn from `generator`."""
    return {
        name: kept.flatten()[torch.randperm(kept.numel(), generator=generator)].reshape(kept.shape)
        for name, kept in mask.items()
    }
