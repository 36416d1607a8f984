"""Faster modules for the fully connected head of a convolutional network, on a CPU.

Convolutions stay dense. A linear layer of low density is replaced by one that has its survivors
alone: they are all that the optimiser sees, and its time falls with density. The results are those
of the replaced modules up to the order of sums.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer
from lth.training.masks import Mask
from lth.training.plain import is_known, is_plain

DENSEST = 0.5
"""Highest density, in (0, 1], of a sparse layer; above it dense products are faster."""
SMALLEST = 20_000
"""Smallest number of weights, pruned ones included, of a layer that is worth replacing."""


def with_fast_head(
    model: nn.Module, mask: Mask, optimizer: Optimizer, *, pruned: str
) -> tuple[nn.Module, Mask]:
    """Replace modules of a network by faster ones, where all is known that it computes. Return it,
    and the masks of its tensors that remain dense. Its states are as before."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    if not (on_cpu and is_plain(model) and is_known(model)):
        return model, mask
    kept = dict(mask)
    for parent, name, module, path in _children(model):
        if type(module) is nn.Flatten and _is_whole(module):
            setattr(parent, name, Flatten())
        weight = f"{path}.weight"
        can_be_sparse = pruned == "zero" and optimizer.name in ELEMENTWISE
        if can_be_sparse and type(module) is nn.Linear and _pays(kept[weight]):
            setattr(parent, name, SparseLinear(module, kept.pop(weight)))
    return model, kept


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Return (parent, name, module, path) of all modules but the network itself."""
    named = list(model.named_modules())
    return (
        (parent, name, module, f"{path}.{name}" if path else name)
        for path, parent in named
        for name, module in list(parent.named_children())
    )


def _is_whole(module: nn.Flatten) -> bool:
    return (module.start_dim, module.end_dim) == (1, -1)


def _pays(kept: Tensor) -> bool:
    return kept.numel() >= SMALLEST and int(kept.sum()) <= DENSEST * kept.numel()


class Flatten(nn.Module):
    """nn.Flatten, fast for inputs with channels last and for their gradients. torch copies element
    by element there, which took a tenth of a step of Conv-2."""

    def forward(self, inputs: Tensor) -> Tensor:
        is_last = inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
        flat: Tensor = _Flatten.apply(inputs) if is_last else inputs.flatten(1)
        return flat


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:  # noqa: ANN401
        ctx.shape = inputs.shape
        return _transposed(inputs.permute(0, 2, 3, 1).flatten(1, 2)).flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        count, channels, height, width = ctx.shape
        last = _transposed(gradient.reshape(count, channels, height * width))
        return last.view(count, height, width, channels).permute(0, 3, 1, 2)


def _transposed(matrices: Tensor) -> Tensor:
    """Return the transposes (n, columns, rows) of matrices (n, rows, columns). Copied one by one,
    because torch's fast copy is for a single matrix."""
    count, rows, columns = matrices.shape
    copies = matrices.new_empty(count, columns, rows)
    for copy, matrix in zip(copies, matrices, strict=True):
        copy.copy_(matrix.t())
    return copies


class SparseLinear(nn.Module):
    """A linear layer whose `weight` is the vector of its survivors, ordered by input. Its state is
    that of the dense layer, with pruned weights 0."""

    def __init__(self, dense: nn.Linear, kept: Tensor) -> None:
        super().__init__()
        inputs, outputs = kept.t().nonzero(as_tuple=True)
        self._places = outputs * kept.shape[1] + inputs
        self._shape = kept.shape
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(0).cumsum(0)])
        self.structure = starts.int().numpy(), outputs.int().numpy()
        self.weight = nn.Parameter(dense.weight.detach().flatten()[self._places])
        self.bias = dense.bias

    def forward(self, inputs: Tensor) -> Tensor:
        products: Tensor = _SparseProduct.apply(inputs.float(), self.weight, self.structure,
                                                self._shape[0])  # fmt: skip
        return products if self.bias is None else products + self.bias

    def _save_to_state_dict(
        self, destination: dict[str, Tensor], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        dense = torch.zeros(self._shape.numel())
        dense[self._places] = self.weight.detach()
        destination[f"{prefix}weight"] = dense.view(self._shape)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        *others: Any,  # noqa: ANN401
    ) -> None:
        name = f"{prefix}weight"
        survivors = state_dict[name].flatten()[self._places]
        super()._load_from_state_dict({**state_dict, name: survivors}, prefix, *others)


class _SparseProduct(torch.autograd.Function):
    """Inputs (n, inputs) times sparse weights: (n, outputs)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        inputs: Tensor,
        weight: Tensor,
        structure: tuple[Any, Any],
        outputs: int,
    ) -> Tensor:
        from lth.training import kernels  # imported late: numba takes a second

        lanes, count, (starts, rows) = kernels.LANES, len(inputs), structure
        tiles, values = _to_tiles(inputs, lanes), weight.detach().numpy()
        sums = np.zeros((len(tiles), outputs, lanes), np.float32)
        kernels.linear(starts, rows, values, tiles, sums)
        ctx.kept = tiles, values, structure
        return _from_tiles(sums, count)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        from lth.training import kernels

        tiles, values, (starts, rows) = ctx.kept
        above = _to_tiles(gradient, kernels.LANES)
        of_values, of_inputs = np.zeros_like(values), np.empty_like(tiles)
        kernels.linear_backward(starts, rows, values, tiles, above, of_values, of_inputs)
        return _from_tiles(of_inputs, len(gradient)), torch.from_numpy(of_values), None, None


def _to_tiles(rows: Tensor, lanes: int) -> "np.ndarray":
    """Return rows (n, size) as (ceil(n / lanes), size, lanes), padded with zeros."""
    count, size = rows.shape
    padded = rows.new_zeros(-(-count // lanes) * lanes, size)
    padded[:count] = rows
    return _transposed(padded.view(-1, lanes, size)).numpy()


def _from_tiles(tiles: "np.ndarray", count: int) -> Tensor:
    """Return the first `count` rows (count, size) of tiles (n, size, lanes)."""
    return _transposed(torch.from_numpy(tiles)).flatten(0, 1)[:count]
