"""The training loop: one network, or several at once, from given weights to the end of a budget."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lth.errors import LotteryError
from lth.experiment.nodes import Training
from lth.experiment.results import Evaluation, early_stop
from lth.experiment.schedule import factor
from lth.experiment.settings import Budget
from lth.training import masks, seeds, sparse
from lth.training.augmentation import Augmentation
from lth.training.checkpoint import Checkpoint, with_part
from lth.training.data import Batch, BatchOrder, Data
from lth.training.moving import Moving
from lth.training.networks import Task, Trainable, build_network, on_stream
from lth.training.precision import set_precision
from lth.training.sparse import Sparse

log = logging.getLogger(__name__)


class Diverged(LotteryError):
    """A loss of `training` is not finite."""

    def __init__(self, message: str, training: Training) -> None:
        super().__init__(message, training)  # with all arguments, it can be pickled
        self.training = training

    def __str__(self) -> str:
        return str(self.args[0])


OF_DEVICE = ("lr", "capturable")
"""Options of an optimiser that a checkpoint does not replace: on a GPU, they may be others."""


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
        self.rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
        """Learning rates of the optimiser's parameter groups before the schedule."""
        self._scaled: tuple[torch.optim.Optimizer, float] | None = None
        """The optimiser whose rates were scaled last, and the factor."""

    def parts(self) -> list[dict[str, Any]]:
        """Return the origin of the iterations so far, as in provenance.json."""
        own = {"from": self._since, "to": self.iteration, **self.origin}
        return with_part(self._earlier, own)

    def checkpoint(self) -> Checkpoint:
        """Return everything from which the training continues to the same end."""
        synchronize(self.loss_sum.device)
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

    def fits(self, saved: Checkpoint) -> bool:
        """Return whether a checkpoint has the layout of the network. It has another one if it was
        made on another device, or by another backend."""
        return saved.layout == self.network.layout()

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint that fits."""
        self.network.restore(saved.model)
        self.early, self.curve = saved.early, saved.curve
        self.iteration, self.seconds = saved.iteration, saved.seconds
        self._since, self._earlier = saved.iteration, saved.parts
        self.loss_sum.copy_(saved.loss_sum)
        optimizer = self.network.optimizer
        own = optimizer.state_dict()
        optimizer.load_state_dict({**own, **saved.optimizer})
        for group, before in zip(optimizer.param_groups, own["param_groups"], strict=True):
            group.update({name: before[name] for name in OF_DEVICE if name in before})

    def is_due(self, budget: Budget, *, first: int, last: int) -> bool:
        """Return whether the network has to be evaluated before its next step. `first`: the first
        iteration that is evaluated."""
        evaluated = bool(self.curve) and self.curve[-1].iteration == self.iteration
        regular = self.iteration % budget.evaluate_every == 0
        after = self.iteration >= first
        return after and not evaluated and (regular or self.iteration in (first, last))

    def set_rates(self, scale: float) -> None:
        """Scale the rate of each parameter group; an optimiser may give them different ones."""
        optimizer = self.network.optimizer
        changed, self._scaled = self._scaled != (optimizer, scale), (optimizer, scale)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            if not isinstance(group["lr"], Tensor):
                group["lr"] = rate * scale
            elif changed:  # filling a tensor is a kernel on a GPU
                group["lr"].fill_(rate * scale)

    def evaluate(self, data: Data, rate: float, *, test: bool) -> None:
        """Add a point, with the learning rate, to the curve. At the early stop so far, keep the
        state and evaluate on the test set; elsewhere evaluate on it only if `test`."""
        since = self.iteration - self.curve[-1].iteration if self.curve else 0
        train_loss = float(self.loss_sum) / since if since else math.nan
        self.loss_sum.zero_()
        validated = self.network.evaluate(data.validation)
        point = Evaluation(self.iteration, rate, train_loss, *validated, math.nan, math.nan)
        improved = early_stop([*self.curve, point]) is point
        if improved:
            self.early = self.network.copied()
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
    """Train networks with one recipe, at the same iteration, to the end of the budget, side by
    side. Their splits may differ. Each ends with the bytes that it has alone.

    `on_step` is called before every step, or before as many steps as are taken at once because a
    network is sparse, and may raise to stop. `until`: iteration at which to end earlier, for a
    snapshot. The early stop is recorded, never acted on. Raises Diverged at an evaluation whose
    loss is not finite.
    """
    recipe, device = tasks[0].training.recipe, tasks[0].data.train.labels.device
    set_precision(recipe.training.precision)
    running = [
        Progress(
            build_network(task, only_eager=only_eager), device, task.training.start, task.origin
        )
        for task in tasks
    ]
    _restore(running, tasks)
    end = recipe.training.iterations if until is None else until
    synchronize(device)
    try:
        _loop([*map(_Member, running, tasks)], end, on_step)
    finally:  # streams of a GPU do not wait for memory to be given back
        synchronize(device)
    return running


def _restore(running: Sequence[Progress], tasks: Sequence[Task]) -> None:
    """Let all networks continue from their checkpoints, or none: they train at one iteration."""
    saved = [(p, t, t.checkpoint) for p, t in zip(running, tasks, strict=True) if t.checkpoint]
    unusable = [task for progress, task, checkpoint in saved if not progress.fits(checkpoint)]
    for task in unusable:
        log.warning(
            "the checkpoint of %s was made on another device or by another backend and cannot be "
            "used: the training starts from its beginning",
            task.training,
        )
    if not unusable:
        for progress, _, checkpoint in saved:
            progress.restore(checkpoint)
    assert len({progress.iteration for progress in running}) == 1


def synchronize(device: torch.device) -> None:
    """Wait for all streams of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Member:
    """A network in training, with its batches."""

    def __init__(self, progress: Progress, task: Task) -> None:
        self.progress, self._task = progress, task
        self._recipe = task.training.recipe
        part, budget = task.data.train, self._recipe.training
        device = part.labels.device
        self._order = BatchOrder(
            task.data_seed, len(part), budget.batch_size, device, budget.last_batch
        )
        self._generator = seeds.global_generator(device)

    def before_step(self, iteration: int, end: int) -> None:
        """Take the snapshot and the evaluation that are due at an iteration."""
        progress, task, budget = self.progress, self._task, self._recipe.training
        due = progress.is_due(budget, first=task.training.evaluated_from, last=end)
        if not due and iteration not in task.on_snapshot:
            return
        with on_stream(progress.network):
            if iteration in task.on_snapshot:
                task.on_snapshot[iteration](progress.network.state())
            if due:
                regular = iteration // budget.evaluate_every % budget.test_every == 0
                rate = progress.rates[0] * self._factor(iteration)
                progress.evaluate(task.data, rate, test=regular or iteration == end)
                _check_losses(progress.curve[-1], task)

    def move(self, iteration: int) -> None:
        """Move the mask, if it moves before the step of an iteration."""
        network = self.progress.network
        if isinstance(network, Moving) and iteration in self._task.training.updates:
            network.move(iteration, self._batch(iteration))

    def next_stop(self, iteration: int, end: int) -> int:
        """Return the last iteration up to which steps can be taken at once: the next one at which
        the network is evaluated, its mask moves or its state is kept, or `sparse.LONGEST` steps
        from here."""
        training = self._task.training
        every, first = self._recipe.training.evaluate_every, training.evaluated_from
        stops = [iteration - iteration % every + every, first]
        stops += [*self._task.on_snapshot, *training.updates]
        return min(end, iteration + sparse.LONGEST, *(at for at in stops if at > iteration))

    @property
    def sparse(self) -> Sparse | None:
        """The network, if its steps are sparse now."""
        network = self.progress.network
        now = network.now if isinstance(network, Moving) else network
        return now if isinstance(now, Sparse) else None

    def take(self, iterations: range) -> None:
        """Take the steps of some iterations.

        torch's global generator, from which modules such as dropout draw, is seeded anew for every
        step, so that its draws depend only on the seed and the iteration.
        """
        progress, seed = self.progress, self._task.data_seed
        if self.sparse:
            batches = [self._batch(iteration) for iteration in iterations]
            rates = [progress.rates[0] * self._factor(iteration) for iteration in iterations]
            total = self.sparse.steps(batches, rates, float(progress.loss_sum))
            progress.loss_sum.fill_(total)
            progress.iteration += len(batches)
            return
        with on_stream(progress.network):
            for iteration in iterations:
                progress.set_rates(self._factor(iteration))
                self._generator.manual_seed(seeds.stream_seed(seed, "dropout", iteration))
                progress.loss_sum += progress.network.step(self._batch(iteration))
                progress.iteration += 1

    def _factor(self, iteration: int) -> float:
        """Return the factor of the learning rates."""
        return factor(self._recipe.optimizer.schedule, iteration, self._recipe.training.iterations)

    def _batch(self, iteration: int) -> Batch:
        """Return the batch of an iteration, augmented according to the recipe."""
        part, dataset = self._task.data.train, self._recipe.dataset
        indices = self._order.batch(iteration)
        if not (dataset.flip or dataset.crop):
            return Batch(part, indices)
        random = seeds.generator(self._task.data_seed, "augment", iteration)
        drawn = Augmentation.draw(len(indices), flip=dataset.flip, crop=dataset.crop, random=random)
        return Batch(part, indices, drawn)


def _loop(
    members: Sequence[_Member], end: int, on_step: Callable[[Sequence[Progress]], None]
) -> None:
    """Take steps until iteration `end`."""
    running = [member.progress for member in members]
    while True:
        iteration = running[0].iteration
        for member in members:
            member.before_step(iteration, end)
        if iteration == end:
            return
        on_step(running)
        for member in members:
            member.move(iteration)
        stop = iteration + 1
        if any(member.sparse for member in members):
            stop = min(member.next_stop(iteration, end) for member in members)
        for member in members:
            member.take(range(iteration, stop))


def _check_losses(point: Evaluation, task: Task) -> None:
    """Raise Diverged if a loss is not finite: further steps would not repair the weights. Only
    evaluations are checked, because reading the loss of every step would stall a GPU."""
    training = task.training
    for name, loss in not_finite(point, first=point.iteration == training.evaluated_from).items():
        raise Diverged(
            f"{training}, {100 * masks.density(task.mask):.3g} % of the weights: the {name} loss "
            f"is {loss} at iteration {point.iteration}. Losses must be finite. Lower optimizer.lr "
            f"(now {training.recipe.optimizer.options['lr']:g}), set optimizer.schedule.warmup, or "
            "choose another dataset.preprocessing.",
            training,
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
