"""Training steps on a GPU as CUDA graphs, for one network or several at once.

A step of a small network is about a hundred kernels. A GPU computes them in less time than Python
needs to start them one by one, so the step is recorded once, as a graph that starts with one call.
Each network has its own graph and its own stream: the steps of several networks overlap on the GPU.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer, Precision
from lth.training.data import Batch
from lth.training.eager import Eager
from lth.training.masks import Mask
from lth.training.plain import is_plain

FIRST_STEPS = 3
"""Steps on batches of one size that are taken without a graph: libraries and the optimiser allocate
memory in them."""
MODULES = {
    nn.Sequential, nn.Flatten, nn.Linear, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d,
    nn.BatchNorm2d, nn.Dropout, nn.Identity,
}  # fmt: skip
"""Modules of torch that never read from the GPU; those of `lth.models` do not either."""


def fits(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether steps are recorded: on a GPU, if they can be."""
    return next(model.parameters()).is_cuda and can_be_recorded(model, optimizer)


def can_be_recorded(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether no part of a step reads from the GPU: the network consists of MODULES alone,
    and the optimiser is a fused one of torch."""
    fused = optimizer.name in ELEMENTWISE and optimizer.options.get("fused")
    return bool(fused) and is_plain(model) and all(map(_stays_on_gpu, model.modules()))


def _stays_on_gpu(module: nn.Module) -> bool:
    kind = type(module)
    cumulative = kind is nn.BatchNorm2d and module.momentum is None  # reads its number of batches
    return not cumulative and (kind in MODULES or kind.__module__ == "lth.models")


@functools.cache
def _stream_of_dropout() -> torch.cuda.Stream:
    """Return the stream of all networks with dropout. In some versions of torch, the graphs of a
    device read the seed from one tensor, so that these steps must not overlap."""
    return torch.cuda.Stream()


class Recorded(NamedTuple):
    """A step on batches of one size: replaying `graph` takes it with the batch that `place` holds
    then, and leaves the loss before it in `loss`. The graph gathers the inputs of the batch."""

    graph: torch.cuda.CUDAGraph
    place: Batch
    loss: Tensor

    def replay(self, batch: Batch) -> Tensor:
        """Take the step with another batch of the same part, augmented in the same way."""
        ours, given = self.place.augment, batch.augment
        assert batch.part is self.place.part
        assert (given is None) == (ours is None)
        self.place.indices.copy_(batch.indices)
        if ours and given:
            ours.drawn.copy_(given.drawn, non_blocking=True)
        self.graph.replay()
        return self.loss


class Captured(Eager):
    """A network that takes the steps of `Eager` as CUDA graphs, one for each size of batches. All
    work on it must be started on its `stream`.

    The learning rates become tensors of the GPU, which the graphs read at every step; the
    optimiser's groups keep the given ones as `initial_lr`, as torch's schedulers do.
    """

    backend = "captured"

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        mask: Mask,
        optimizer: Optimizer,
        *,
        pruned: str,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(model, weights, mask, optimizer, pruned=pruned, precision=precision)
        draws = any(isinstance(module, nn.Dropout) for module in model.modules())
        self.stream = _stream_of_dropout() if draws else torch.cuda.Stream()
        self._taken: Counter[int] = Counter()
        self._recorded: dict[int, Recorded] = {}
        device = next(model.parameters()).device
        for group in self.optimizer.param_groups:
            group["initial_lr"] = float(group["lr"])
            group["lr"] = torch.tensor(group["initial_lr"], device=device)
            if "capturable" in group:
                group["capturable"] = True

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser; return the loss before it. The next step overwrites
        it."""
        size = len(batch.indices)
        if self._taken[size] < FIRST_STEPS:
            self._taken[size] += 1
            return super().step(batch)
        if size not in self._recorded:
            self._recorded[size] = self._record(batch)
        return self._recorded[size].replay(batch)

    def _record(self, batch: Batch) -> Recorded:
        """Record a step, without taking it."""
        place, graph = own_copy(batch), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            loss = super().step(place)
        return Recorded(graph, place, loss)


def own_copy(batch: Batch) -> Batch:
    """Return a batch whose indices and draws are tensors of its own on the device."""
    indices, augment = batch.indices.clone(), batch.augment
    if augment:
        drawn = augment.drawn.to(indices.device, copy=True)
        augment = replace(augment, drawn=drawn)
    return replace(batch, indices=indices, augment=augment)
