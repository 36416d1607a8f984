"""Training steps on a GPU as CUDA graphs, several networks at once.

A step of a small network is about a hundred kernels. A GPU computes them in less time than Python
needs to start them one by one, so the step is recorded once, as a graph that starts with one call.
Each network has its own graph and its own stream: the steps of several networks overlap on the GPU.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer, Precision
from lth.training.data import Batch
from lth.training.eager import Eager
from lth.training.masks import Mask
from lth.training.plain import is_known, is_plain

FIRST_STEPS = 3
"""Steps that are taken without a graph: libraries and the optimiser allocate memory in them."""


def fits(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether a step can be recorded: the network is on a GPU and consists of known modules,
    and the optimiser is a fused one of torch, whose steps are computed there as a whole."""
    device = next(model.parameters()).device
    if device.type != "cuda" or optimizer.name not in ELEMENTWISE:
        return False
    return bool(optimizer.options.get("fused")) and is_plain(model) and is_known(model)


@functools.cache
def _stream_of_dropout() -> torch.cuda.Stream:
    """Return the stream of all networks that draw random numbers: the graphs of a device share the
    place of the seed, so that these steps must not overlap."""
    return torch.cuda.Stream()


class Captured(Eager):
    """A network that takes the steps of `Eager` as a CUDA graph. All work on it must be started on
    its `stream`. Batches of another size than the recorded one's are not recorded.

    The learning rates become tensors of the GPU, which the graph reads at every step; the
    optimiser's groups keep the given ones as `initial_lr`, as torch's schedulers do.
    """

    backend = "captured"
    _graph: torch.cuda.CUDAGraph | None = None
    _taken = 0

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
        device = next(model.parameters()).device
        draws = any(isinstance(m, _DropoutNd | nn.RReLU) for m in model.modules())
        self.stream = _stream_of_dropout() if draws else torch.cuda.Stream()
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
            group["lr"] = torch.tensor(group["lr"], device=device)
            if "capturable" in group:
                group["capturable"] = True

    def step(self, batch: Batch) -> Tensor:
        inputs, labels = batch.examples()
        if self._taken < FIRST_STEPS:
            self._taken += 1
            return self._step(inputs, labels)
        graph = self._graph or self._recorded(inputs, labels)
        if len(labels) != len(self._labels):
            return self._step(inputs, labels)
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        graph.replay()
        return self._loss

    def _recorded(self, inputs: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph:
        """Record a step on such a batch, without taking it."""
        self._inputs, self._labels = inputs.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self.stream):
            self._loss = self._step(self._inputs, self._labels)
        return self._graph
