"""The network of a training, in the fastest layout: what it must offer, and how it is chosen."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lth.experiment.nodes import Training
from lth.training import captured, seeds, sparse
from lth.training.captured import Captured
from lth.training.checkpoint import Checkpoint
from lth.training.data import Batch, Data, Part
from lth.training.eager import Eager
from lth.training.hybrid import with_fast_head
from lth.training.masks import Mask
from lth.training.moving import Moving
from lth.training.scored import Scored
from lth.training.selection import Pool
from lth.training.sparse import Sparse


class Trainable(Protocol):
    """The weights of one network and its optimiser, in any layout."""

    backend: str
    """Name of the implementation, as in provenance.json."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser; another one after the mask has moved."""

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser; return the loss before it."""

    def evaluate(self, part: Part) -> tuple[float, float]:
        """Return mean cross-entropy in nats and accuracy in [0, 1] over all examples."""

    def state(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of all parameters and buffers."""

    def copied(self) -> dict[str, Tensor]:
        """Return a copy of all parameters and buffers, which may stay on a GPU."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace all parameters and buffers."""

    def saved(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: the state, and what else decides the next steps."""

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `saved` has returned."""

    def layout(self) -> list[int]:
        """Return how many weights of this network each tensor of the optimiser holds. Checkpoints
        of networks with equal layouts fit each other."""


@dataclass(frozen=True)
class Task:
    """A training, and the objects that it needs.

    Args:
        training: its recipe, seed, first iteration, data order, value of pruned weights, and how
            its mask moves.
        model: on the device; its weights are replaced.
        weights, mask: on the CPU.
        counts: survivors of each pool at the end of a training whose mask moves to a target.
        on_snapshot: iteration at which the state is needed -> function to call with it.
        checkpoint: where an interrupted attempt stopped.
        origin: what provenance.json says of this process.
    """

    training: Training
    model: nn.Module
    weights: Mapping[str, Tensor]
    mask: Mask
    data: Data
    on_snapshot: Mapping[int, Callable[[dict[str, Tensor]], None]] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[Pool, int] = field(default_factory=dict)

    @property
    def data_seed(self) -> int:
        """Seed of batches, augmentation and dropout; copies of a network have their own."""
        seed, order = self.training.seed, self.training.data_order
        return seeds.stream_seed(seed, "copy", order) if order else seed


def on_stream(network: Trainable) -> AbstractContextManager[object]:
    """Return a context that starts work on the network's own stream, so that networks overlap on a
    GPU."""
    return torch.cuda.stream(network.stream) if isinstance(network, Captured) else nullcontext()


def build_network(task: Task, *, only_eager: bool = False) -> Eager | Sparse | Moving | Scored:
    """Return the network of a task at its starting weights, in the fastest implementation that can
    train it (autograd if `only_eager`)."""
    update, weights, mask = task.training.update, task.weights, task.mask
    if update is None:
        return _under(task, weights, mask, only_eager=only_eager)
    if update.learns_scores:
        return Scored(task.training, task.counts, task.model, weights, mask)
    fast = not only_eager and sparse.suits(task.model, task.training.recipe.optimizer)
    build = partial(_under, task, only_eager=only_eager)
    return Moving(task.training, task.counts, task.model, build, weights, mask, can_be_sparse=fast)


def _under(
    task: Task, weights: Mapping[str, Tensor], mask: Mask, *, only_eager: bool
) -> Eager | Sparse:
    """Return a network with these weights, under a mask that stays."""
    model, training = task.model, task.training
    optimizer, pruned = training.recipe.optimizer, training.pruned
    if not only_eager and sparse.fits(model, mask, optimizer, pruned=pruned):
        return Sparse(model, weights, mask, optimizer)
    names = mask.keys()
    settled = not (only_eager or training.update)
    if settled:  # the moments of a fast head cannot be moved, nor can what a graph refers to
        model, mask = with_fast_head(model, mask, optimizer, pruned=pruned)
    precision = training.recipe.training.precision
    if settled and captured.fits(model, optimizer):
        return Captured(model, weights, mask, optimizer, pruned=pruned, precision=precision)
    alone = Eager(model, weights, mask, optimizer, pruned=pruned, precision=precision)
    alone.backend = "eager" if mask.keys() == names else "hybrid"
    return alone
