"""One training, or several at once: the optimiser's full run from given weights under a mask."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import nan
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from lth.experiment.results import Evaluation, early_stop
from lth.experiment.schedule import factor
from lth.experiment.settings import Budget, Recipe
from lth.training import seeds, sparse
from lth.training.data import Batch, BatchOrder, Data, Part, augment
from lth.training.eager import Eager
from lth.training.masks import Mask
from lth.training.sparse import Sparse


class Trainable(Protocol):
    """The weights of one network and its optimiser, wherever they lie."""

    optimizer: torch.optim.Optimizer

    def evaluate(self, part: Part) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in [0, 1] over all examples."""

    def state(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of all parameters and buffers."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The inverse."""

    def layout(self) -> list[int]:
        """How many weights each of the optimiser's tensors holds of this network."""


def backend(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mask,
    recipe: Recipe,
    *,
    pruned: str,
    only_eager: bool = False,
) -> Eager | Sparse:
    """The fastest that can train `model` alone, from `weights` under `mask`."""
    optimizer = recipe.optimizer
    if not only_eager and sparse.fits(model, mask, optimizer, pruned=pruned):
        return Sparse(model, weights, mask, optimizer, batch_size=recipe.training.batch_size)
    return Eager(model, weights, mask, optimizer, pruned=pruned)


class Progress:
    """The whole state of a training in progress: from these bytes it goes on to the same end."""

    def __init__(self, network: Trainable, device: torch.device, iteration: int) -> None:
        self.network = network
        self.iteration = iteration
        self.seconds = 0.0
        self.curve: list[Evaluation] = []
        self.early: dict[str, Tensor] = {}
        """The state at the early stop so far."""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        """Of the batches since the last evaluation."""

    def to_bytes(self) -> bytes:
        groups = {
            "model": self.network.state(),
            "early": self.early,
            "own": {
                "iteration": torch.tensor(self.iteration),
                "seconds": torch.tensor(self.seconds, dtype=torch.float64),
                "curve": torch.tensor(self.curve, dtype=torch.float64),
                "loss_sum": self.loss_sum,
                "layout": torch.tensor(self.network.layout()),
            },
        } | {
            f"optimizer {index}": {k: v for k, v in state.items() if isinstance(v, Tensor)}
            for index, state in self.network.optimizer.state_dict()["state"].items()
        }
        return save({f"{group}/{k}": v for group, part in groups.items() for k, v in part.items()})

    def restore(self, content: bytes) -> None:
        """Go on from what `to_bytes` gave, unless weights were put together otherwise there (on
        another device, or by another version): then from the start."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in load(content).items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = value
        if groups["own"]["layout"].tolist() != self.network.layout():
            return
        self.network.load(groups["model"])
        self.early = groups["early"]
        own = groups["own"]
        self.iteration, self.seconds = int(own["iteration"]), float(own["seconds"])
        self.curve = [Evaluation(int(i), *rest) for i, *rest in own["curve"].tolist()]
        self.loss_sum.copy_(own["loss_sum"])
        optimizer = self.network.optimizer
        indices = range(len(self.network.layout()))
        state = {i: groups[f"optimizer {i}"] for i in indices if f"optimizer {i}" in groups}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def is_due(self, budget: Budget, *, first: int, last: int) -> bool:
        """Whether the network is to be evaluated before its next step."""
        evaluated = bool(self.curve) and self.curve[-1].iteration == self.iteration
        regular = self.iteration % budget.evaluate_every == 0
        return not evaluated and (regular or self.iteration in (first, last))

    def evaluate(self, data: Data, *, test: bool) -> None:
        """Add a point to the curve, and keep the state if it is the early stop so far; then, or if
        `test`, it has the losses and accuracies on the test set as well."""
        since = self.iteration - self.curve[-1].iteration if self.curve else 0
        rate = float(self.network.optimizer.param_groups[0]["lr"])
        train_loss = float(self.loss_sum) / since if since else float("nan")
        self.loss_sum.zero_()
        validated = self.network.evaluate(data.validation)
        point = Evaluation(self.iteration, rate, train_loss, *validated, nan, nan)
        improved = early_stop([*self.curve, point]) is point
        if improved:
            self.early = self.network.state()
        if improved or test:
            loss, accuracy = self.network.evaluate(data.test)
            point = point._replace(test_loss=loss, test_accuracy=accuracy)
        self.curve.append(point)


def position_of(checkpoint: bytes) -> tuple[int, list[int]]:
    """The iteration that `Progress.to_bytes` was called before, and how the weights lay there.
    Trainings can go on together where these are the same."""
    saved = load(checkpoint)
    return int(saved["own/iteration"]), saved["own/layout"].tolist()


@dataclass(frozen=True)
class Task:
    """What is asked of one training. `snapshots`: before which iterations `on_snapshot` is to get
    the state; `checkpoint`: what `Progress.to_bytes` gave when it was stopped."""

    seed: int
    snapshots: Collection[int] = ()
    on_snapshot: Callable[[int, dict[str, Tensor]], None] = lambda _, __: None
    checkpoint: bytes | None = None


def train(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mask,
    data: Data,
    recipe: Recipe,
    task: Task,
    *,
    start: int = 0,
    pruned: str = "zero",
    until: int | None = None,
    only_eager: bool = False,
    tick: Callable[[Sequence[Progress]], None] = lambda _: None,
) -> Progress:
    """Train `model` from `weights` under `mask`, from iteration `start` to the end of the budget.

    Pruned weights are 0.0 throughout: they start so, and their gradients are zeroed by the mask
    (never by value), so that no optimiser moves them. With `pruned="frozen"` they keep the values
    of `weights` instead, put back after every step, as weight decay would move them.
    """
    set_precision(recipe)
    alone = backend(model, weights, mask, recipe, pruned=pruned, only_eager=only_eager)

    def step(batches: Sequence[Batch]) -> Sequence[Tensor]:
        return [alone.step(batch) for batch in batches]

    (progress,) = loop([alone], [task], step, data, recipe, start=start, until=until, tick=tick)
    return progress


def set_precision(recipe: Recipe) -> None:
    """Of matrix products and convolutions, from now on in this process."""
    torch.set_float32_matmul_precision(recipe.training.precision)
    torch.backends.cudnn.allow_tf32 = recipe.training.precision != "highest"


def loop(
    networks: Sequence[Trainable],
    tasks: Sequence[Task],
    step: Callable[[Sequence[Batch]], Iterable[Tensor]],
    data: Data,
    recipe: Recipe,
    *,
    start: int,
    until: int | None = None,
    tick: Callable[[Sequence[Progress]], None],
) -> list[Progress]:
    """Train networks with one recipe and one optimiser, at the same iteration, each with its
    task. `step` takes a batch for each, and gives their losses.

    torch's global generator, from which dropout and the like draw, is seeded anew for every step: a
    step depends on its number alone. `tick` is called before every step and may raise to stop.
    `until` ends it sooner, for the sake of a snapshot; nothing else does: the early stop is
    recorded, never acted on.
    """
    budget, device = recipe.training, data.train.labels.device
    end = budget.iterations if until is None else until
    lr = recipe.optimizer.options["lr"]
    running = [Progress(network, device, start) for network in networks]
    for progress, task in zip(running, tasks, strict=True):
        if task.checkpoint is not None:
            progress.restore(task.checkpoint)
    total, size = len(data.train), budget.batch_size
    assert len({progress.iteration for progress in running}) == 1
    orders = [BatchOrder(task.seed, total, size, device) for task in tasks]
    drawn_from = seeds.global_generator(device)
    for iteration in count(running[0].iteration):
        for group in networks[0].optimizer.param_groups:
            group["lr"] = lr * factor(recipe.optimizer.schedule, iteration, budget.iterations)
        for progress, task in zip(running, tasks, strict=True):
            if iteration in task.snapshots:
                task.on_snapshot(iteration, progress.network.state())
            if progress.is_due(budget, first=start, last=end):
                regular = iteration // budget.evaluate_every % budget.test_every == 0
                progress.evaluate(data, test=regular or iteration == end)
        if iteration == end:
            return running
        tick(running)
        drawn_from.manual_seed(seeds.stream_seed(tasks[0].seed, "dropout", iteration))
        losses = step([
            _batch(data.train, order, recipe, task.seed, iteration)
            for order, task in zip(orders, tasks, strict=True)
        ])  # fmt: skip
        for progress, loss in zip(running, losses, strict=True):
            progress.loss_sum += loss
            progress.iteration = iteration + 1
    raise AssertionError("a training ends at the end of its budget")


def _batch(train: Part, order: BatchOrder, recipe: Recipe, seed: int, iteration: int) -> Batch:
    """That of an iteration, augmented as the recipe says."""
    flip, crop = recipe.dataset.flip, recipe.dataset.crop
    if not (flip or crop):
        return Batch(train, order.batch(iteration))
    random = seeds.generator(seed, "augment", iteration)
    augmented = partial(augment, flip=flip, crop=crop, random=random)
    return Batch(train, order.batch(iteration), augmented)
