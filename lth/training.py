"""One training: the optimiser's full run from given weights under a given mask."""

from collections.abc import Callable, Collection, Mapping
from itertools import count

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import masks, models, streams
from lth.data import BatchOrder, Data, Examples, augment
from lth.masks import Mask
from lth.records import Evaluation, early_stop
from lth.schedule import factor
from lth.spec import Recipe

EVALUATION_BATCH = 500
"""Part of what a result is: other sizes sum in another order."""


class Progress:
    """The whole state of a training in progress: from these bytes it goes on to the same end."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        self.model = model
        self.optimizer = optimizer
        self.iteration = iteration
        self.seconds = 0.0
        self.curve: list[Evaluation] = []
        self.early: dict[str, Tensor] = {}
        """The state at the early stop so far."""
        device = next(model.parameters()).device
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        """Of the batches since the last evaluation."""

    def to_bytes(self) -> bytes:
        groups = {
            "model": self.model.state_dict(),
            "early": self.early,
            "own": {
                "iteration": torch.tensor(self.iteration),
                "seconds": torch.tensor(self.seconds, dtype=torch.float64),
                "curve": torch.tensor(self.curve, dtype=torch.float64),
                "loss_sum": self.loss_sum,
            },
        } | {
            f"optimizer {index}": {k: v for k, v in state.items() if isinstance(v, Tensor)}
            for index, state in self.optimizer.state_dict()["state"].items()
        }
        return save({f"{group}/{k}": v for group, part in groups.items() for k, v in part.items()})

    def restore(self, content: bytes) -> None:
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in load(content).items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = value
        self.model.load_state_dict(groups["model"])
        self.early = groups["early"]
        own = groups["own"]
        self.iteration, self.seconds = int(own["iteration"]), float(own["seconds"])
        self.curve = [Evaluation(int(i), *rest) for i, *rest in own["curve"].tolist()]
        self.loss_sum.copy_(own["loss_sum"])
        indices = range(len(self.optimizer.param_groups[0]["params"]))
        state = {i: groups[f"optimizer {i}"] for i in indices if f"optimizer {i}" in groups}
        fresh = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**fresh, "state": state})

    def evaluate(self, data: Data) -> None:
        """Add a point to the curve, and keep the state if it is the early stop so far."""
        since = self.iteration - self.curve[-1].iteration if self.curve else 0
        rate = float(self.optimizer.param_groups[0]["lr"])
        train_loss = float(self.loss_sum) / since if since else float("nan")
        self.loss_sum.zero_()
        scores = (*evaluate(self.model, data.validation), *evaluate(self.model, data.test))
        self.curve.append(Evaluation(self.iteration, rate, train_loss, *scores))
        if early_stop(self.curve) is self.curve[-1]:
            self.early = models.state(self.model)


def train(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    mask: Mask,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    start: int = 0,
    pruned: str = "zero",
    until: int | None = None,
    snapshots: Collection[int] = (),
    on_snapshot: Callable[[int, dict[str, Tensor]], None] = lambda _, __: None,
    checkpoint: bytes | None = None,
    tick: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Train `model` from `weights` under `mask`, from iteration `start` to the end of the budget.

    Pruned weights are 0.0 throughout: they start so, and their gradients are zeroed by the mask
    (never by value), so that no optimiser moves them. With `pruned="frozen"` they keep the values
    of `weights` instead, put back after every step, as weight decay would move them.

    torch's global generator, from which dropout and the like draw, is seeded anew for every step: a
    step depends on its number alone. `tick` is called before every step and may raise to stop;
    `checkpoint` is what `Progress.to_bytes` gave then. `until` ends it sooner, for the sake of a
    snapshot; nothing else does: the early stop is recorded, never acted on.
    """
    budget = recipe.training
    end = budget.iterations if until is None else until
    model.load_state_dict(weights if pruned == "frozen" else masks.apply(weights, mask))
    device = next(model.parameters()).device
    progress = Progress(model, recipe.optimizer(model.parameters()), start)
    lr = recipe.optimizer.options["lr"]
    if checkpoint is not None:
        progress.restore(checkpoint)
    order = BatchOrder(seed, len(data.train.labels), budget.batch_size, device)
    holes = [
        (parameter, mask[name].to(device, parameter.dtype))
        for name, parameter in model.named_parameters()
        if name in mask and not mask[name].all()
    ]
    frozen = [(p, ~kept.bool(), p.detach().clone()) for p, kept in holes if pruned == "frozen"]
    drawn_from = streams.global_generator(device)
    for iteration in count(progress.iteration):
        for group in progress.optimizer.param_groups:
            group["lr"] = lr * factor(recipe.optimizer.schedule, iteration, budget.iterations)
        if iteration in snapshots:
            on_snapshot(iteration, models.state(model))
        evaluated = bool(progress.curve) and progress.curve[-1].iteration == iteration
        if not evaluated and (iteration % budget.evaluate_every == 0 or iteration in (start, end)):
            progress.evaluate(data)
        if iteration == end:
            return progress
        tick(progress)
        inputs, labels = _batch(data.train, order, recipe, seed, iteration)
        drawn_from.manual_seed(streams.stream_seed(seed, "dropout", iteration))
        loss = cross_entropy(model(inputs), labels)
        progress.optimizer.zero_grad()
        loss.backward()
        for parameter, kept in holes:
            if parameter.grad is not None:
                parameter.grad.mul_(kept)
        progress.optimizer.step()
        if frozen:
            _put_back(frozen)
        progress.loss_sum += loss.detach()
        progress.iteration = iteration + 1
    raise AssertionError("a training ends at the end of its budget")


def _batch(
    train: Examples, order: BatchOrder, recipe: Recipe, seed: int, iteration: int
) -> Examples:
    """That of an iteration, augmented as the recipe says."""
    chosen = order.batch(iteration)
    inputs, labels = (part.index_select(0, chosen) for part in train)
    flip, crop = recipe.dataset.flip, recipe.dataset.crop
    if flip or crop:
        random = streams.generator(seed, "augment", iteration)
        inputs = augment(inputs, flip=flip, crop=crop, random=random)
    return Examples(inputs, labels)


@torch.no_grad()
def _put_back(frozen: list[tuple[nn.Parameter, Tensor, Tensor]]) -> None:
    """Of each (parameter, which entries, values), those entries to those values."""
    for parameter, gone, value in frozen:
        parameter.copy_(torch.where(gone, value, parameter))


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] over all examples, in evaluation mode."""
    loss = torch.zeros((), dtype=torch.float64, device=examples.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=examples.labels.device)
    model.eval()
    for inputs, labels in zip(*(part.split(EVALUATION_BATCH) for part in examples), strict=True):
        outputs = model(inputs)
        loss += cross_entropy(outputs, labels, reduction="sum")
        correct += (outputs.argmax(1) == labels).sum()
    model.train()
    return float(loss) / len(examples.labels), int(correct) / len(examples.labels)
