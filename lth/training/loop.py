"""The training loop: one network, or several at once, from given weights to the end of a budget."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lth.errors import LotteryError
from lth.experiment.recipe import Recipe
from lth.experiment.results import Evaluation, early_stop
from lth.experiment.schedule import factor
from lth.experiment.settings import Budget
from lth.training import masks, seeds, sparse
from lth.training.checkpoint import Checkpoint, with_part
from lth.training.data import Batch, BatchOrder, Data, Part, augment
from lth.training.moving import Moving
from lth.training.networks import Task, Trainable, build_network
from lth.training.precision import set_precision
from lth.training.sparse import Sparse

log = logging.getLogger(__name__)


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
        groups = network.optimizer.param_groups
        self.rates: list[float] = [group.get("initial_lr", group["lr"]) for group in groups]
        """Learning rates of the optimiser's parameter groups before the schedule."""
        self.rate = self.rates[0]
        """Learning rate of the first group now."""
        self._stream = getattr(network, "stream", None)

    def on_stream(self) -> AbstractContextManager[None]:
        """Return a context in which all work on the network is started: on its own stream of a GPU,
        where that of several networks overlaps."""
        stream: AbstractContextManager[None] = torch.cuda.stream(self._stream)
        return stream

    def parts(self) -> list[dict[str, Any]]:
        """Return the origin of the iterations so far, as in provenance.json."""
        own = {"from": self._since, "to": self.iteration, **self.origin}
        return with_part(self._earlier, own)

    def checkpoint(self) -> Checkpoint:
        """Return everything from which the training continues to the same end."""
        _synchronize(self.loss_sum.device)
        return Checkpoint(
            iteration=self.iteration,
            seconds=self.seconds,
            curve=self.curve,
            loss_sum=self.loss_sum,
            layout=self.network.layout(),
            model=self.network.saved(),
            early=self.early,
            optimizer=self.network.optimizer.state_dict(),
            parts=self.parts(),
        )

    def restore(self, saved: Checkpoint) -> bool:
        """Continue from a checkpoint. Return False, and change nothing, if its weights have another
        layout: it was made on another device, or by another backend."""
        if saved.layout != self.network.layout():
            return False
        self.network.restore(saved.model)
        self.early, self.curve = saved.early, saved.curve
        self.iteration, self.seconds = saved.iteration, saved.seconds
        self._since, self._earlier = saved.iteration, saved.parts
        self.loss_sum.copy_(saved.loss_sum)
        optimizer = self.network.optimizer
        own = optimizer.state_dict()
        state = {**own, **saved.optimizer}
        if self._stream:  # its learning rates are tensors on the GPU, and those of a file are not
            state["param_groups"] = own["param_groups"]
        optimizer.load_state_dict(state)
        return True

    def is_due(self, budget: Budget, *, first: int, last: int) -> bool:
        """Return whether the network has to be evaluated before its next step. `first`: the first
        iteration that is evaluated."""
        evaluated = bool(self.curve) and self.curve[-1].iteration == self.iteration
        regular = self.iteration % budget.evaluate_every == 0
        after = self.iteration >= first
        return after and not evaluated and (regular or self.iteration in (first, last))

    def evaluate(self, data: Data, *, test: bool) -> None:
        """Add a point to the curve. At the early stop so far, keep the state and evaluate on the
        test set; elsewhere evaluate on it only if `test`."""
        since = self.iteration - self.curve[-1].iteration if self.curve else 0
        train_loss = float(self.loss_sum) / since if since else math.nan
        self.loss_sum.zero_()
        validated = self.network.evaluate(data.validation)
        point = Evaluation(self.iteration, self.rate, train_loss, *validated, math.nan, math.nan)
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
    may differ. Several networks are trained by autograd on a CPU, and side by side on a GPU.

    `on_step` is called before every step, or before as many sparse steps as are taken at once, and
    may raise to stop. `until`: iteration at which to end earlier, for a snapshot. The early stop is
    recorded, never acted on. Raises LotteryError at an evaluation whose loss is not finite.
    """
    set_precision(tasks[0].training.recipe.training.precision)
    start, recipe = tasks[0].training.start, tasks[0].training.recipe
    device = tasks[0].data.train.labels.device
    only_eager = only_eager or (len(tasks) > 1 and device.type == "cpu")
    running = [
        Progress(build_network(task, only_eager=only_eager), device, start, task.origin)
        for task in tasks
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
    _synchronize(device)
    _loop(tasks, running, end, on_step)
    _synchronize(device)
    return running


def _synchronize(device: torch.device) -> None:
    """Wait for all streams of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _loop(
    tasks: Sequence[Task],
    running: Sequence[Progress],
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

    def batch(member: int, iteration: int) -> Batch:
        task = tasks[member]
        return _batch(task.data.train, orders[member], recipe, task.data_seed, iteration)

    iteration = running[0].iteration
    while True:
        for progress, task in zip(running, tasks, strict=True):
            with progress.on_stream():
                _set_learning_rates(progress, recipe, iteration)
                _before_step(progress, task, end)
        if iteration == end:
            return
        on_step(running)
        network = running[0].network
        if isinstance(network, Moving) and iteration in tasks[0].training.updates:
            network.move(iteration, batch(0, iteration))
            _set_learning_rates(running[0], recipe, iteration)
        now = network.now if isinstance(network, Moving) else network
        if isinstance(now, Sparse):
            span = range(iteration, _next_stop(tasks[0], iteration, end))
            _take_several(running[0], now, recipe, [batch(0, i) for i in span], span)
        else:
            for member, (progress, task) in enumerate(zip(running, tasks, strict=True)):
                with progress.on_stream():
                    generator.manual_seed(seeds.stream_seed(task.data_seed, "dropout", iteration))
                    progress.loss_sum += progress.network.step(batch(member, iteration))
                progress.iteration += 1
        iteration = running[0].iteration


def _next_stop(task: Task, iteration: int, end: int) -> int:
    """Return the last iteration up to which steps can be taken at once: the next one at which the
    network is evaluated, its mask moves or its state is kept, or `sparse.LONGEST` steps from
    here."""
    training = task.training
    every, first = training.recipe.training.evaluate_every, training.evaluated_from
    stops: list[int] = [
        iteration - iteration % every + every,
        *task.on_snapshot,
        *training.updates,
        first,
    ]
    return min(end, iteration + sparse.LONGEST, *(at for at in stops if at > iteration))


def _take_several(
    progress: Progress,
    network: Sparse,
    recipe: Recipe,
    batches: Sequence[Batch],
    iterations: Sequence[int],
) -> None:
    """Take the steps of some iterations of one sparse network, in one call."""
    budget, schedule = recipe.training.iterations, recipe.optimizer.schedule
    rates = [progress.rates[0] * factor(schedule, i, budget) for i in iterations]
    total = network.steps(batches, rates, float(progress.loss_sum))
    progress.loss_sum.fill_(total)
    progress.iteration += len(batches)


def _set_learning_rates(progress: Progress, recipe: Recipe, iteration: int) -> None:
    """Scale the rate of each parameter group; an optimiser may give them different ones."""
    scale = factor(recipe.optimizer.schedule, iteration, recipe.training.iterations)
    progress.rate = progress.rates[0] * scale
    for group, rate in zip(progress.network.optimizer.param_groups, progress.rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * scale)
        else:
            group["lr"] = rate * scale


def _before_step(progress: Progress, task: Task, end: int) -> None:
    """Take the snapshot and the evaluation that are due at this iteration."""
    iteration, budget = progress.iteration, task.training.recipe.training
    if iteration in task.on_snapshot:
        task.on_snapshot[iteration](progress.network.state())
    if progress.is_due(budget, first=task.training.evaluated_from, last=end):
        regular = iteration // budget.evaluate_every % budget.test_every == 0
        progress.evaluate(task.data, test=regular or iteration == end)
        _check_losses(progress.curve[-1], task)


def _check_losses(point: Evaluation, task: Task) -> None:
    """Raise LotteryError if a loss is not finite: further steps would not repair the weights. Only
    evaluations are checked, because reading the loss of every step would stall a GPU."""
    training = task.training
    for name, loss in not_finite(point, first=point.iteration == training.evaluated_from).items():
        raise LotteryError(
            f"{training}, {100 * masks.density(task.mask):.3g} % of the weights: the {name} loss "
            f"is {loss} at iteration {point.iteration}. Losses must be finite. Lower optimizer.lr "
            f"(now {training.recipe.optimizer.options['lr']:g}), set optimizer.schedule.warmup, or "
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
