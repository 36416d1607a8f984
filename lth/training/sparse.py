"""Steps and evaluations of fully connected networks, with surviving weights only, on a CPU.

Surviving weights and biases lie in one vector, the only parameter of the optimiser. The results are
those of `lth.training.eager` up to the order of sums; the time falls with density.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lth import models
from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer
from lth.training.data import Batch, Part
from lth.training.masks import Mask
from lth.training.plain import is_plain

DENSEST = 0.35
"""Highest density, in (0, 1], at which this backend is used; above it dense products are faster."""
LANES = 16
"""Batches are padded to a multiple of this: the number of floats in the widest vector register."""
EVALUATION_BATCH = 256
"""Examples per block. It affects the last bits of a loss: other sizes sum in another order."""


def fits(model: nn.Module, mask: Mask, optimizer: Optimizer, *, pruned: str) -> bool:
    """Return whether this backend can run a training, and is the faster one."""
    kept = sum(int(of_tensor.sum()) for of_tensor in mask.values())
    return (
        kept <= DENSEST * sum(of_tensor.numel() for of_tensor in mask.values())
        and pruned == "zero"
        and suits(model, optimizer)
    )


def suits(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether this backend can train a network at low density, with pruned weights at 0."""
    return (
        optimizer.name in ELEMENTWISE
        and next(model.parameters()).device.type == "cpu"
        and _is_fully_connected(model)
    )


def _is_fully_connected(model: nn.Module) -> bool:
    """Return whether a model is Flatten, then linear layers with ReLU between them, no more."""
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        return False
    types = [type(layer) for layer in model]
    linear = types[1::2]
    expected = [nn.Flatten, *([nn.Linear, nn.ReLU] * len(linear))][: len(types)]
    biased = all(layer.bias is not None for layer in model if isinstance(layer, nn.Linear))
    return types == expected and types[-1] is nn.Linear and biased and is_plain(model)


class Sparse:
    """The surviving weights and the biases of a fully connected network, and their optimiser."""

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        mask: Mask,
        optimizer: Optimizer,
        *,
        batch_size: int,
    ) -> None:
        from lth.training import kernels  # imported late: numba takes a second

        self._kernels = kernels
        self._model = model
        linear = {n: layer for n, layer in model.named_children() if isinstance(layer, nn.Linear)}
        masks = [mask[f"{name}.weight"] for name in linear]
        kept = [of_tensor.sum(1) for of_tensor in masks]
        self._places = [of_tensor.flatten().nonzero().squeeze(1) for of_tensor in masks]
        sizes = [of_tensor.shape[0] for of_tensor in masks]
        self._parts = [len(places) for places in self._places] + sizes
        self._vector = nn.Parameter(torch.zeros(sum(self._parts)))
        self._vector.grad = torch.zeros_like(self._vector)
        self.load(weights)
        self.optimizer: torch.optim.Optimizer = optimizer([self._vector])
        self._structure = _structure(masks, kept)
        self._first, self._hidden = sizes[0], sum(sizes[:-1])
        width = LANES * -(-batch_size // LANES)
        rows = masks[0].shape[1], sum(sizes)
        self._inputs, self._outputs = _zeros(rows, width)
        self._evaluated = _zeros(rows, EVALUATION_BATCH)
        self._gradients = np.zeros_like(self._outputs)
        split = sum(self._parts[: len(masks)])
        vector, gradient = self._vector.detach().numpy(), self._vector.grad.numpy()
        self._values, self._biases = vector[:split], vector[split:]
        self._of_values, self._of_biases = gradient[:split], gradient[split:]

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser; return the loss before it, a float64 scalar in nats."""
        labels = self._forward(batch, self._inputs, self._outputs)
        loss = self._kernels.cross_entropy(
            self._outputs[self._hidden :], labels, self._gradients[self._hidden :]
        )
        self._kernels.backward(
            self._inputs, self._outputs, *self._structure, self._values, self._first, self._hidden,
            self._gradients, self._of_values, self._of_biases,
        )  # fmt: skip
        self.optimizer.step()
        return torch.tensor(loss, dtype=torch.float64)

    def _forward(self, batch: Batch, inputs: "np.ndarray", outputs: "np.ndarray") -> "np.ndarray":
        """Fill `inputs` (inputs, width) and `outputs` (neurons, width); return the labels."""
        if batch.part.stored.inputs.dtype == torch.uint8 and batch.augment is None:
            pixels = batch.part.rows.numpy()
            table, indices = batch.part.table.numpy(), batch.indices.numpy()
            self._kernels.gather(pixels, indices, table, inputs)
        else:
            examples = batch.examples().inputs
            inputs[:, : len(examples)] = examples.flatten(1).t().numpy()
        self._kernels.forward(
            inputs, *self._structure, self._values, self._biases, self._first, self._hidden,
            outputs,
        )  # fmt: skip
        return batch.labels.numpy()

    def evaluate(self, part: Part) -> tuple[float, float]:
        """Return mean cross-entropy in nats and accuracy in [0, 1] over all examples."""
        loss, right = 0.0, 0
        inputs, outputs = self._evaluated
        for block in part.blocks(EVALUATION_BATCH):
            labels = self._forward(block, inputs, outputs)
            of_block = self._kernels.scores(outputs[self._hidden :], labels)
            loss, right = loss + of_block[0], right + of_block[1]
        return loss / len(part), right / len(part)

    def state(self) -> dict[str, Tensor]:
        """Return all parameters by name; pruned weights are 0.0."""
        state = models.state(self._model)
        for tensor, places, values in self._slots(state):
            tensor.view(-1).zero_()[places] = values
        return state

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set the parameters from a state; values of pruned weights are ignored."""
        for tensor, places, values in self._slots(state):
            values.copy_(tensor.flatten()[places])

    def layout(self) -> list[int]:
        """Return the number of entries of each parameter of the optimiser."""
        return [self._vector.numel()]

    def _slots(self, state: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor | slice, Tensor]]:
        """Return, for each weight and bias: its tensor in `state`, the indices of the surviving
        entries in that (flattened), and the view of the vector that holds them."""
        parts = self._vector.detach().split(self._parts)
        names = [n for n, layer in self._model.named_children() if isinstance(layer, nn.Linear)]
        tensors = [state[f"{n}.{kind}"] for kind in ("weight", "bias") for n in names]
        places: list[Tensor | slice] = [*self._places, *([slice(None)] * len(names))]
        return list(zip(tensors, places, parts, strict=True))


def _zeros(rows: tuple[int, int], width: int) -> list["np.ndarray"]:
    return [np.zeros((count, width), np.float32) for count in rows]


def _structure(masks: list[Tensor], kept: list[Tensor]) -> tuple["np.ndarray", "np.ndarray"]:
    """Return `starts` and `columns` of `lth.training.kernels`: the first survivor of each neuron,
    and the row that each survivor reads."""
    counts = torch.cat([torch.zeros(1, dtype=torch.int64), *kept])
    offsets = [0, 0, *(int(n) for n in np.cumsum([len(mask) for mask in masks[:-2]]))]
    columns = [mask.nonzero()[:, 1] + offset for mask, offset in zip(masks, offsets, strict=False)]
    return counts.cumsum(0).int().numpy(), torch.cat(columns).int().numpy()
