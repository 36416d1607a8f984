"""Steps and evaluations of fully connected networks, with surviving weights only, on a CPU.

Surviving weights and biases lie in one vector, the only parameter of the optimiser. The results are
those of `lth.training.eager` up to the order of sums; the time falls with density.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from lth import models
from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer
from lth.training.data import Batch, Part
from lth.training.masks import Mask
from lth.training.plain import is_plain

if TYPE_CHECKING:
    from lth.training import kernels

DENSEST = 0.7
"""Highest density, in (0, 1], at which this backend is used; above it dense products are faster."""
LONGEST = 100
"""Most steps that are taken at once, in at most a tenth of a second."""
NOTHING = np.zeros(0, np.float32)
"""The moments of an optimiser that has none."""


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

    backend = "sparse"

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        mask: Mask,
        optimizer: Optimizer,
    ) -> None:
        from lth.training import kernels  # imported late: numba takes a second

        self._kernels = kernels
        self._model = model
        linear = {n: layer for n, layer in model.named_children() if isinstance(layer, nn.Linear)}
        masks = [mask[f"{name}.weight"] for name in linear]
        self._places = [of_tensor.flatten().nonzero().squeeze(1) for of_tensor in masks]
        self._parts = [len(places) for places in self._places] + [len(kept) for kept in masks]
        self._vector = nn.Parameter(torch.zeros(sum(self._parts)))
        self._vector.grad = torch.zeros_like(self._vector)
        self.load(weights)
        self.optimizer: torch.optim.Optimizer = optimizer([self._vector])
        split = sum(self._parts[: len(masks)])
        self._arrays = vector, gradient = self._vector.detach().numpy(), self._vector.grad.numpy()
        indices, first, hidden = _structure(masks)
        starts, columns, used = indices
        self._network = kernels.Network(
            starts, columns, used, first, hidden, vector[:split], vector[split:]
        )
        self._work = kernels.workspace(masks[0].shape[1], gradient[:split], gradient[split:])

    def steps(self, batches: Sequence[Batch], rates: Sequence[float], loss_sum: float) -> float:
        """Take a step for each batch, at a learning rate of its own. Return `loss_sum` with their
        losses added, one by one: any division of a training into calls gives the same bytes."""
        taken = 0
        while taken < len(batches):
            update = self._update() if _as_stored(batches[taken]) else None
            if update is None:
                self.optimizer.param_groups[0]["lr"] = rates[taken]
                loss_sum += float(self.step(batches[taken]))
                taken += 1
                continue
            sizes = groupby(len(batch.indices) for batch in batches[taken:])
            _, alike = next(sizes)
            here = slice(taken, taken + len([*alike]))
            loss_sum = self._compiled_steps(update, batches[here], rates[here], loss_sum)
            taken = here.stop
        return loss_sum

    def _compiled_steps(
        self,
        update: "kernels.Update",
        batches: Sequence[Batch],
        rates: Sequence[float],
        loss_sum: float,
    ) -> float:
        state = self.optimizer.state[self._vector]
        before = int(state["step"]) if update.is_adam else 0
        if update.is_adam:
            state["step"] += len(batches)
        return self._kernels.steps(
            self._network, self._work, self._stored(batches[0].part),
            torch.stack([batch.indices for batch in batches]).numpy(), update, np.array(rates),
            before, loss_sum,
        )  # fmt: skip

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser; return the loss before it, a float64 scalar in nats."""
        loss, count = 0.0, len(batch.indices)
        self._vector.grad.zero_()  # type: ignore[union-attr]
        for lanes in self._blocks(batch):
            loss += self._kernels.add_gradients(self._network, self._work, lanes, count)
        self.optimizer.step()
        return torch.tensor(loss, dtype=torch.float64)

    def _update(self) -> "kernels.Update | None":
        """Return the compiled step of the optimiser. Return None if torch has to take the step: the
        first one, which makes the state, and every one of optimisers that are not compiled."""
        (group,), state = self.optimizer.param_groups, self.optimizer.state.get(self._vector, {})
        if group.get("maximize") or group.get("amsgrad"):
            return None
        kind, momentum = type(self.optimizer), state.get("momentum_buffer")
        weights, gradients = self._arrays
        if kind in (Adam, AdamW) and "exp_avg" in state:
            decoupled = bool(group.get("decoupled_weight_decay", kind is AdamW))
            first, second = map(float, group["betas"])
            options = (first, second, float(group["eps"]), float(group["weight_decay"]), decoupled)
            moments = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
            return self._kernels.Update(True, weights, gradients, *moments, options)
        if kind is SGD and (momentum is not None or not group["momentum"]):
            kept, damped = float(group["momentum"]), float(group["dampening"])
            decay = float(group["weight_decay"])
            average = NOTHING if momentum is None else momentum.numpy()
            return self._kernels.Update(
                False, weights, gradients, average, NOTHING,
                (kept, damped, decay, 0.0, bool(group["nesterov"])),
            )  # fmt: skip
        return None

    def _blocks(self, batch: Batch) -> Iterator[int]:
        """Fill inputs and labels with some examples after others; yield how many they are."""
        size = self._kernels.LANES
        if _as_stored(batch):
            data = self._stored(batch.part)
            for chosen in batch.indices.split(size):
                self._kernels.gather(self._network, self._work, data, chosen.numpy())
                yield len(chosen)
            return
        for inputs, labels in zip(*(t.split(size) for t in batch.examples()), strict=True):
            self._work.inputs[:, : len(labels)] = inputs.flatten(1).t().numpy()
            self._work.labels[: len(labels)] = labels.numpy()
            yield len(labels)

    def _stored(self, part: Part) -> "kernels.Stored":
        return self._kernels.Stored(part.rows.numpy(), part.labels.numpy(), part.table.numpy())

    def evaluate(self, part: Part) -> tuple[float, float]:
        """Return mean cross-entropy in nats and accuracy in [0, 1] over all examples."""
        if part.has_table:
            loss, right = self._kernels.evaluate(self._network, self._work, self._stored(part))
            return loss / len(part), right / len(part)
        loss, right = 0.0, 0
        for block in part.blocks(self._kernels.LANES):
            for lanes in self._blocks(block):
                of_block = self._kernels.loss_and_correct_of(self._network, self._work, lanes)
                loss, right = loss + of_block[0], right + of_block[1]
        return loss / len(part), right / len(part)

    def state(self) -> dict[str, Tensor]:
        """Return all parameters by name; pruned weights are 0.0."""
        state = models.state(self._model)
        self._scatter(self._vector.detach(), state)
        return state

    def _scatter(self, vector: Tensor, state: Mapping[str, Tensor]) -> None:
        """Write a vector into tensors of the whole network; pruned entries become 0.0."""
        for tensor, places, values in self._slots(state, vector):
            tensor.view(-1).zero_()[places] = values

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set the parameters from a state; values of pruned weights are ignored."""
        self._gather(state, self._vector.detach())

    copied, saved, restore = state, state, load

    def _gather(self, state: Mapping[str, Tensor], vector: Tensor) -> None:
        """Write the survivors' entries of tensors of the whole network into a vector."""
        for tensor, places, values in self._slots(state, vector):
            values.copy_(tensor.flatten()[places])

    def moments(self) -> dict[str, dict[str, Any]]:
        """Return the optimiser's state of each parameter of the whole network, by name."""
        found: dict[str, dict[str, Any]] = {name: {} for name in models.state(self._model)}
        for key, value in self.optimizer.state.get(self._vector, {}).items():
            whole = dict.fromkeys(found, value)
            if _is_moment(value):
                whole = models.state(self._model)
                self._scatter(value, whole)
            for name in found:
                found[name][key] = whole[name]
        return found

    def load_moments(self, moments: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the optimiser's state by that of the parameters of the whole network."""
        state = self.optimizer.state[self._vector]
        for key, value in next(iter(moments.values()), {}).items():
            state[key] = value
            if _is_moment(value):
                state[key] = torch.zeros_like(self._vector, requires_grad=False)
                self._gather({name: of[key] for name, of in moments.items()}, state[key])

    def layout(self) -> list[int]:
        """Return the number of entries of each parameter of the optimiser."""
        return [self._vector.numel()]

    def _slots(
        self, state: Mapping[str, Tensor], vector: Tensor
    ) -> list[tuple[Tensor, Tensor | slice, Tensor]]:
        """Return, for each weight and bias: its tensor in `state`, the indices of the surviving
        entries in that (flattened), and the view of the vector that holds them."""
        parts = vector.split(self._parts)
        names = [n for n, layer in self._model.named_children() if isinstance(layer, nn.Linear)]
        tensors = [state[f"{n}.{kind}"] for kind in ("weight", "bias") for n in names]
        places: list[Tensor | slice] = [*self._places, *([slice(None)] * len(names))]
        return list(zip(tensors, places, parts, strict=True))


def _is_moment(value: object) -> bool:
    """Return whether an entry of an optimiser's state has a number for each weight."""
    return isinstance(value, Tensor) and value.dim() > 0


def _as_stored(batch: Batch) -> bool:
    """Return whether the examples of a batch are bytes that are looked up in a table."""
    return batch.part.has_table and batch.augment is None


def _structure(masks: list[Tensor]) -> tuple[list[Any], int, int]:
    """Return `starts`, `columns` and `used`, `first`, and `hidden` of a network of the kernels, for
    the masks of its layers."""
    kept = [of_tensor.sum(1) for of_tensor in masks]
    counts = torch.cat([torch.zeros(1, dtype=torch.int64), *kept])
    sizes = [len(of_tensor) for of_tensor in masks]
    offsets = [0, 0, *(int(n) for n in np.cumsum(sizes[:-2]))]
    columns = [mask.nonzero()[:, 1] + offset for mask, offset in zip(masks, offsets, strict=False)]
    used = masks[0].any(0).nonzero().squeeze(1)
    indices = [tensor.int().numpy() for tensor in (counts.cumsum(0), torch.cat(columns), used)]
    return indices, sizes[0], sum(sizes[:-1])
