"""Masks that move while the weights train: SET, RigL and gradual magnitude pruning.

The weights lie in a network of any backend under the present mask. When the mask moves, another
network takes its place, with the same weights and moments of the optimiser: they are 0 where a
weight comes or goes. So the cost of a step falls with density, as it does under masks that stay.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import models
from lth.experiment.nodes import Training
from lth.training import masks, seeds, selection
from lth.training.data import Batch, Part
from lth.training.eager import Eager
from lth.training.masks import Mask
from lth.training.precision import autocast
from lth.training.selection import Pool, Scores
from lth.training.sparse import Sparse

Moments = dict[str, dict[str, Any]]
"""Name of a parameter -> the optimiser's state of it: tensors of its shape, and numbers."""
Build = Callable[[Mapping[str, Tensor], Mask], Eager | Sparse]
"""Return a network with these weights under this mask."""
OF_MASK = "mask of "
"""Prefix of the names of masks in a checkpoint."""


class Moving:
    """A network whose mask moves.

    Args:
        training: its update, seed, budget and precision.
        counts: survivors at the end (gradual pruning).
        model: the network that `build` trains, for gradients of all weights.
        build: returns a network with some weights under a mask. `can_be_sparse`: whether it may be
            one of `lth.training.sparse`.
    """

    def __init__(
        self,
        training: Training,
        counts: Mapping[Pool, int],
        model: nn.Module,
        build: Build,
        weights: Mapping[str, Tensor],
        mask: Mask,
        *,
        can_be_sparse: bool,
    ) -> None:
        assert training.update is not None
        self._training, self._update, self._counts = training, training.update, counts
        self._model, self._build, self._can_be_sparse = model, build, can_be_sparse
        self._dense = selection.counts(mask, counts)
        self.mask = mask
        self.now = build(weights, mask)
        self.backend = self.now.backend

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.now.optimizer

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser; return the loss before it."""
        return self.now.step(batch)

    def evaluate(self, part: Part) -> tuple[float, float]:
        return self.now.evaluate(part)

    def state(self) -> dict[str, Tensor]:
        return self.now.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set all weights, and let those survive that are not 0: enough for an evaluation."""
        self._become(state, {name: state[name] != 0 for name in self.mask}, {})

    copied = state

    def saved(self) -> dict[str, Tensor]:
        """Return the weights and the mask."""
        return self.state() | {f"{OF_MASK}{name}": kept for name, kept in self.mask.items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `saved` has returned, with an optimiser that has no moments yet."""
        state = {n: value for n, value in saved.items() if not n.startswith(OF_MASK)}
        self._become(state, {name: saved[f"{OF_MASK}{name}"] for name in self.mask}, {})

    def layout(self) -> list[int]:
        """Return the sizes of all parameters: the mask decides how the optimiser holds them."""
        return [int(self._can_be_sparse), *(p.numel() for p in self._model.parameters())]

    def move(self, iteration: int, batch: Batch) -> None:
        """Move the mask before the step of an iteration, of which this is the batch."""
        state, moments = self.state(), self.now.moments()
        if self._update.kind == "gradual":
            mask = self._shrunk(state, iteration)
        else:
            mask = self._replaced(state, self._growth(state, iteration, batch), iteration)
        for name, kept in mask.items():
            moved = kept ^ self.mask[name]
            moments[name] = {k: _cleared(v, moved) for k, v in moments.get(name, {}).items()}
        self._become(masks.apply(state, mask), mask, moments)

    def _become(self, state: Mapping[str, Tensor], mask: Mask, moments: Moments) -> None:
        self.mask = mask
        self.now = self._build(state, mask)
        self.now.load_moments(moments)

    def _shrunk(self, state: Mapping[str, Tensor], iteration: int) -> Mask:
        """Return the mask without the smallest weights. The share that is removed rises from 0 to
        that of the end with the cube of the time left (Zhu and Gupta 2017, equation 1)."""
        left = (1 - iteration / self._training.updates[-1]) ** 3
        counts = {
            pool: end + round((self._dense[pool] - end) * left)
            for pool, end in self._counts.items()
        }
        return selection.keep(_sizes(state, self.mask), self.mask, counts)

    def _replaced(self, state: Mapping[str, Tensor], growth: Scores, iteration: int) -> Mask:
        """Return a mask with as many weights in each tensor: the smallest go, and of all that do
        not survive, those with the highest `growth` come (Evci et al. 2020, algorithm 1). A weight
        may come back at once; it then keeps its value."""
        time = iteration / (self._update.until * self._training.recipe.training.iterations)
        share = self._update.fraction / 2 * (1 + math.cos(math.pi * time))
        kept = selection.counts(self.mask, [(name,) for name in self.mask])
        gone = {pool: int(share * count) for pool, count in kept.items()}
        stay = {pool: count - gone[pool] for pool, count in kept.items()}
        left = selection.keep(_sizes(state, self.mask), self.mask, stay)
        free = {name: ~of_tensor for name, of_tensor in left.items()}
        come = selection.keep(growth, free, gone)
        return {name: left[name] | come[name] for name in left}

    def _growth(self, state: Mapping[str, Tensor], iteration: int, batch: Batch) -> Scores:
        """Return which weights come first: those with the largest gradients on the batch (RigL), or
        a random order (SET)."""
        seed = self._training.seed
        if self._update.kind == "rigl":
            return self._gradients(state, batch, seeds.stream_seed(seed, "grow", iteration))
        random = seeds.generator(seed, "grow", iteration)
        return {n: torch.rand(k.shape, dtype=torch.float64, generator=random)
                for n, k in self.mask.items()}  # fmt: skip

    def _gradients(self, state: Mapping[str, Tensor], batch: Batch, seed: int) -> Scores:
        """Return the sizes of the gradients of all weights, also of those that are pruned."""
        models.load(self._model, state)
        inputs, labels = batch.examples()
        seeds.global_generator(inputs.device).manual_seed(seed)
        with autocast(self._training.recipe.training.precision, inputs.device):
            outputs = self._model(inputs)
        loss = cross_entropy(outputs.float(), labels)
        parameters = [self._model.get_parameter(name) for name in self.mask]
        gradients = torch.autograd.grad(loss, parameters)
        return {n: g.abs().cpu() for n, g in zip(self.mask, gradients, strict=True)}


def _sizes(state: Mapping[str, Tensor], mask: Mask) -> Scores:
    return {name: state[name].abs() for name in mask}


def _cleared(value: Any, moved: Tensor) -> Any:  # noqa: ANN401 - whatever an optimiser keeps
    """Return a moment with 0 where a weight comes or goes; a number as it is."""
    if isinstance(value, Tensor) and value.shape == moved.shape:
        kept = value.clone(memory_format=torch.preserve_format)  # fused optimisers need the layout
        return kept.masked_fill_(moved.to(value.device), 0.0)
    return value
