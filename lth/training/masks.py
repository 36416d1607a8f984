"""Masks as data: name of a prunable tensor -> bool tensor, True = kept."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Mask = dict[str, Tensor]


def apply(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """A copy of `state` whose pruned entries are 0.0 (and not -0.0, which a product can leave)."""
    return {
        name: value.masked_fill(~mask[name], 0.0) if name in mask else value.clone()
        for name, value in state.items()
    }


def pack(mask: Mask) -> dict[str, Tensor]:
    """Eight entries a byte, row-major, zero-padded: uint8 tensors of ceil(entries / 8)."""
    return {name: torch.from_numpy(np.packbits(kept.numpy())) for name, kept in mask.items()}


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Mask:
    """The inverse of `pack`; the shapes are those of the network's tensors."""
    return {
        name: torch.from_numpy(
            np.unpackbits(packed[name].numpy(), count=shape.numel()).astype(bool)
        ).reshape(shape)
        for name, shape in shapes.items()
    }


def shuffled(mask: Mask, generator: torch.Generator) -> Mask:
    """As many survivors in each tensor, at places drawn from `generator`."""
    return {
        name: kept.flatten()[torch.randperm(kept.numel(), generator=generator)].reshape(kept.shape)
        for name, kept in mask.items()
    }
