"""The training loop: one network, or several at once, from given weights to the end of a budget."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lth.errors import LotteryError
from lth.experiment.nodes import Training
from lth.experiment.recipe import Recipe
from lth.experiment.results import Evaluation, early_stop
from lth.experiment.schedule import factor
from lth.experiment.settings import Budget
from lth.training import seeds, sparse
from lth.training.checkpoint import Checkpoint, with_part
from lth.training.data import Batch, BatchOrder, Data, Part, augment
from lth.training.eager import Eager
from lth.training.hybrid import with_fast_head
from lth.training.masks import Mask
from lth.training.packed import Pack
from lth.training.precision import set_precision
from lth.training.sparse import Sparse

log = logging.getLogger(__name__)

Step = Callable[[Sequence[Batch]], Iterable[Tensor]]
"""Take one step of every network, each with its own batch; return their losses before it."""


class Trainable(Protocol):
    """The weights of one network and its optimiser, in any layout."""

    optimizer: torch.optim.Optimizer
    backend: str
    """Name of the implementation, as in provenance.json."""

    def evaluate(self, part: Part) -> tuple[float, float]:
        """Return mean cross-entropy in nats and accuracy in [0, 1] over all examples."""

    def state(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of all parameters and buffers."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace all parameters and buffers."""

    def layout(self) -> list[int]:
        """Return how many weights of this network each tensor of the optimiser holds."""


@dataclass(frozen=True)
class Task:
    """A training, and the objects that it needs.

    Args:
        training: its recipe, seed, first iteration, data order, and value of pruned weights.
        model: on the device; its weights are replaced.
        weights, mask: on the CPU.
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

    @property
    def data_seed(self) -> int:
        """Seed of batches, augmentation and dropout; copies of a network have their own."""
        seed, order = self.training.seed, self.training.data_order
        return seeds.stream_seed(seed, "copy", order) if order else seed


class Progress:
    """The state of a training in progress."""

    def __init__(
        self,
        network: Trainable,
        device: torch.device,
        iteration: int,
        origin: Mapping[str, Any],
    ) -> None:
        self.network = network
        self.iteration = self._since = iteration
        self._earlier: list[dict[str, Any]] = []
        """Parts of the training that earlier processes have made."""
        self.origin = {**origin, "backend": network.backend}
        self.seconds = 0.0
        self.curve: list[Evaluation] = []
        self.early: dict[str, Tensor] = {}
        """State of the network at the early stop so far."""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        """Sum of the losses of the batches since the last evaluation."""
        self.rates = [group["lr"] for group in network.optimizer.param_groups]
        """Learning rates of the optimiser's parameter groups before the schedule."""

    def parts(self) -> list[dict[str, Any]]:
        """Return the origin of the iterations so far, as in provenance.json."""
        own = {"from": self._since, "to": self.iteration, **self.origin}
        return with_part(self._earlier, own)

    def checkpoint(self) -> Checkpoint:
        """Return everything from which the training continues to the same end."""
        return Checkpoint(
            iteration=self.iteration,
            seconds=self.seconds,
            curve=self.curve,
            loss_sum=self.loss_sum,
            layout=self.network.layout(),
            model=self.network.state(),
            early=self.early,
            optimizer=self.network.optimizer.state_dict(),
            parts=self.parts(),
        )

    def restore(self, saved: Checkpoint) -> bool:
        """Continue from a checkpoint. Return False, and change nothing, if its weights have another
        layout: it was made on another device, or by another backend."""
        if saved.layout != self.network.layout():
            return False
        self.network.load(saved.model)
        self.early, self.curve = saved.early, saved.curve
        self.iteration, self.seconds = saved.iteration, saved.seconds
        self._since, self._earlier = saved.iteration, saved.parts
        self.loss_sum.copy_(saved.loss_sum)
        optimizer = self.network.optimizer
        optimizer.load_state_dict({**optimizer.state_dict(), **saved.optimizer})
        return True

    def is_due(self, budget: Budget, *, first: int, last: int) -> bool:
        """Return whether the network has to be evaluated before its next step."""
        evaluated = bool(self.curve) and self.curve[-1].iteration == self.iteration
        regular = self.iteration % budget.evaluate_every == 0
        return not evaluated and (regular or self.iteration in (first, last))

    def evaluate(self, data: Data, *, test: bool) -> None:
        """Add a point to the curve. At the early stop so far, keep the state and evaluate on the
        test set; elsewhere evaluate on it only if `test`."""
        since = self.iteration - self.curve[-1].iteration if self.curve else 0
        rate = float(self.network.optimizer.param_groups[0]["lr"])
        train_loss = float(self.loss_sum) / since if since else math.nan
        self.loss_sum.zero_()
        validated = self.network.evaluate(data.validation)
        point = Evaluation(self.iteration, rate, train_loss, *validated, math.nan, math.nan)
        improved = early_stop([*self.curve, point]) is point
        if improved:
            self.early = self.network.state()
        if improved or test:
            loss, accuracy = self.network.evaluate(data.test)
            point = point._replace(test_loss=loss, test_accuracy=accuracy)
        self.curve.append(point)


def train(
    tasks: Sequence[Task],
    *,
    until: int | None = None,
    only_eager: bool = False,
    on_step: Callable[[Sequence[Progress]], None] = lambda _: None,
) -> list[Progress]:
    """Train networks with one recipe, at the same iteration, to the end of the budget. Their splits
    may differ.

    `on_step` is called before every step, or before as many sparse steps as are taken at once, and
    may raise to stop. `until`: iteration at which to end earlier, for a snapshot. The early stop is
    recorded, never acted on. Raises LotteryError at an evaluation whose loss is not finite.
    """
    set_precision(tasks[0].training.recipe.training.precision)
    networks, step = build_networks(tasks, only_eager=only_eager)
    start, recipe = tasks[0].training.start, tasks[0].training.recipe
    device = tasks[0].data.train.labels.device
    running = [
        Progress(network, device, start, task.origin)
        for network, task in zip(networks, tasks, strict=True)
    ]
    for progress, task in zip(running, tasks, strict=True):
        if task.checkpoint is not None and not progress.restore(task.checkpoint):
            log.warning(
                "the checkpoint of %s was made on another device or by another backend and cannot "
                "be used: the training starts from its beginning",
                task.training,
            )
    assert len({progress.iteration for progress in running}) == 1
    end = recipe.training.iterations if until is None else until
    _loop(tasks, running, step, end, on_step)
    return running


def build_networks(
    tasks: Sequence[Task], *, only_eager: bool = False
) -> tuple[Sequence[Trainable], Step]:
    """Return the networks of some tasks, at their starting weights, and a function that takes one
    step of all of them. One network is trained by the fastest implementation that can (autograd if
    `only_eager`), several are trained as a pack."""
    first, *others = tasks
    recipe, pruned = first.training.recipe, first.training.pruned
    optimizer, precision = recipe.optimizer, recipe.training.precision
    if others:
        weights, under = [task.weights for task in tasks], [task.mask for task in tasks]
        pack = Pack(
            first.model, weights, under, optimizer, pruned=pruned, precision=precision,
            data=[task.data for task in tasks],
        )  # fmt: skip
        return pack.members, pack.step
    alone: Eager | Sparse
    model, mask = first.model, first.mask
    if not only_eager and sparse.fits(model, mask, optimizer, pruned=pruned):
        alone = Sparse(model, first.weights, mask, optimizer)
    else:
        if not only_eager:
            model, mask = with_fast_head(model, mask, optimizer, pruned=pruned)
        alone = Eager(model, first.weights, mask, optimizer, pruned=pruned, precision=precision)
        alone.backend = "eager" if mask.keys() == first.mask.keys() else "hybrid"
    return [alone], lambda batches: [alone.step(batch) for batch in batches]


def _loop(
    tasks: Sequence[Task],
    running: Sequence[Progress],
    step: Step,
    end: int,
    on_step: Callable[[Sequence[Progress]], None],
) -> None:
    """Take steps until iteration `end`.

    torch's global generator, from which modules such as dropout draw, is seeded anew for every
    step, so that its draws depend only on the seed and the iteration.
    """
    data, recipe = tasks[0].data, tasks[0].training.recipe
    device, examples, budget = data.train.labels.device, len(data.train), recipe.training
    orders = [
        BatchOrder(task.data_seed, examples, budget.batch_size, device, budget.last_batch)
        for task in tasks
    ]
    generator = seeds.global_generator(device)

    def batches(iteration: int) -> list[Batch]:
        return [
            _batch(task.data.train, order, recipe, task.data_seed, iteration)
            for order, task in zip(orders, tasks, strict=True)
        ]

    iteration = running[0].iteration
    while True:
        _set_learning_rates(running[0], recipe, iteration)
        for progress, task in zip(running, tasks, strict=True):
            _before_step(progress, task, end)
        if iteration == end:
            return
        on_step(running)
        if isinstance(running[0].network, Sparse):
            span = range(iteration, _next_stop(tasks[0], iteration, end))
            _take_several(running[0], recipe, [batches(i)[0] for i in span], span)
        else:
            generator.manual_seed(seeds.stream_seed(tasks[0].data_seed, "dropout", iteration))
            for progress, loss in zip(running, step(batches(iteration)), strict=True):
                progress.loss_sum += loss
                progress.iteration += 1
        iteration = running[0].iteration


def _next_stop(task: Task, iteration: int, end: int) -> int:
    """Return the last iteration up to which steps can be taken at once: the next one at which the
    network is evaluated or its state is kept, or `sparse.LONGEST` steps from here."""
    every = task.training.recipe.training.evaluate_every
    snapshots = (at for at in task.on_snapshot if at > iteration)
    return min(end, iteration + sparse.LONGEST, iteration - iteration % every + every, *snapshots)


def _take_several(
    progress: Progress, recipe: Recipe, batches: Sequence[Batch], iterations: Sequence[int]
) -> None:
    """Take the steps of some iterations of one sparse network, in one call."""
    assert isinstance(progress.network, Sparse)
    budget, schedule = recipe.training.iterations, recipe.optimizer.schedule
    rates = [progress.rates[0] * factor(schedule, i, budget) for i in iterations]
    total = progress.network.steps(batches, rates, float(progress.loss_sum))
    progress.loss_sum.fill_(total)
    progress.iteration += len(batches)


def _set_learning_rates(progress: Progress, recipe: Recipe, iteration: int) -> None:
    """Scale the rate of each parameter group; an optimiser may give them different ones."""
    scale = factor(recipe.optimizer.schedule, iteration, recipe.training.iterations)
    for group, rate in zip(progress.network.optimizer.param_groups, progress.rates, strict=True):
        group["lr"] = rate * scale


def _before_step(progress: Progress, task: Task, end: int) -> None:
    """Take the snapshot and the evaluation that are due at this iteration."""
    iteration, budget = progress.iteration, task.training.recipe.training
    if iteration in task.on_snapshot:
        task.on_snapshot[iteration](progress.network.state())
    if progress.is_due(budget, first=task.training.start, last=end):
        regular = iteration // budget.evaluate_every % budget.test_every == 0
        progress.evaluate(task.data, test=regular or iteration == end)
        _check_losses(progress.curve[-1], task.training)


def _check_losses(point: Evaluation, training: Training) -> None:
    """Raise LotteryError if a loss is not finite: further steps would not mend the weights. Only
    evaluations are checked, because reading the loss of every step would stall a GPU."""
    for name, loss in not_finite(point, first=point.iteration == training.start).items():
        raise LotteryError(
            f"{training}, level {training.mask.level}: the {name} loss is {loss} at iteration "
            f"{point.iteration}. Losses must be finite. Lower optimizer.lr (now "
            f"{training.recipe.optimizer.options['lr']:g}), set optimizer.schedule.warmup, or "
            "choose another dataset.preprocessing."
        )


def not_finite(point: Evaluation, *, first: bool) -> dict[str, float]:
    """Return the losses that were measured and are not finite. The first evaluation has no training
    loss, and most have no test loss."""
    losses = {"training": point.train_loss, "validation": point.val_loss, "test": point.test_loss}
    unmeasured = {
        "training": first and math.isnan(point.train_loss),
        "test": math.isnan(point.test_accuracy),
    }
    return {
        name: loss
        for name, loss in losses.items()
        if not math.isfinite(loss) and not unmeasured.get(name)
    }


def _batch(train: Part, order: BatchOrder, recipe: Recipe, seed: int, iteration: int) -> Batch:
    """Return the batch of an iteration, augmented according to the recipe."""
    flip, crop = recipe.dataset.flip, recipe.dataset.crop
    if not (flip or crop):
        return Batch(train, order.batch(iteration))
    random = seeds.generator(seed, "augment", iteration)
    augmented = partial(augment, flip=flip, crop=crop, random=random)
    return Batch(train, order.batch(iteration), augmented)
