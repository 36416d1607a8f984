"""Small trainings on random numbers, below the engine: recipes, data, networks, masks and tasks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lth.experiment.nodes import Dense, Fresh, Training
from lth.experiment.recipe import Recipe
from lth.experiment.settings import Budget, Dataset, Optimizer, Schedule
from lth.experiment.targets import Target
from lth.models import LeNet, fresh, prunable, state
from lth.training.checkpoint import Checkpoint
from lth.training.data import Data, Examples, Part
from lth.training.loop import Progress, train
from lth.training.masks import Mask
from lth.training.networks import Task
from lth.training.seeds import generator

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {"lr": 0.1}),
    "sgd decay": ("sgd", {"lr": 0.1, "weight_decay": 0.1}),
    "momentum": ("sgd", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": ("sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("adam", {"lr": 0.01, "weight_decay": 0.1, "fused": True}),
    "adamw": ("adamw", {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop": ("rmsprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "adadelta": ("adadelta", {"lr": 1.0, "weight_decay": 0.1}),
}
STEPS = 20
SHAPE = (1, 2, 3)


def recipe(optimizer: str = "adam", *, iterations: int = STEPS, evaluate_every: int = 7) -> Recipe:
    """Return a recipe whose model and loader are not used: 46 examples, 45 of them to train on."""
    dataset = Dataset(
        loader=Target("none", {}, None), root="", shape=SHAPE, classes=4, validation=1, test=0,
        split="random", preprocessing="raw", examples=46, flip=False, crop=0,
    )  # fmt: skip
    budget = Budget(
        iterations=iterations, batch_size=10, evaluate_every=evaluate_every,
        evaluate_test="improvement", precision="float32",
    )  # fmt: skip
    steps = Optimizer(*OPTIMIZERS[optimizer], None, Schedule("constant", (), 0.1, 0))
    return Recipe(Target("none", {}, None), dataset, steps, budget, 0)


def random_part(name: str, size: int, shape: tuple[int, int, int] = SHAPE) -> Part:
    """Return examples of four classes drawn from a stream of their own."""
    random = generator(0, name)
    inputs = torch.randn(size, *shape, generator=random)
    return Part(Examples(inputs, torch.randint(4, (size,), generator=random)), Tensor.clone)


def random_data(train: int, validation: int, test: int, shape: tuple[int, int, int]) -> Data:
    parts = {"train": train, "val": validation, "test": test}
    first, second, third = (random_part(name, size, shape) for name, size in parts.items())
    return Data(first, second, third, [0.0], [1.0], {})


DATA = random_data(45, 25, 35, SHAPE)


def model() -> LeNet:
    """Return a network of 6 x 8 + 8 x 5 + 5 x 4 = 108 weights, the same at each call."""
    return fresh(lambda: LeNet(SHAPE, 4, widths=(8, 5)), generator(0, "init"))  # type: ignore[return-value]


def random_mask(network: nn.Module, density: float) -> Mask:
    """Keep each weight with a probability; `density` > 1 keeps all."""
    random = generator(0, "mask")
    return {
        name: torch.rand(network.get_parameter(name).shape, generator=random) < density
        for name in prunable(network)
    }


def full_mask(network: nn.Module) -> Mask:
    return random_mask(network, 1.1)


def task_of(
    given: Recipe,
    *,
    network: nn.Module | None = None,
    weights: Mapping[str, Tensor] | None = None,
    mask: Mask | None = None,
    data: Data = DATA,
    seed: int = 3,
    start: int = 0,
    pruned: str = "zero",
    on_snapshot: Mapping[int, Callable[[dict[str, Tensor]], None]] | None = None,
    checkpoint: bytes | None = None,
) -> Task:
    """Return a training with everything that it needs: of `model()` from its own weights without
    pruning, unless arguments say otherwise."""
    network = model() if network is None else network
    initial = Fresh(given.network, seed)
    training = Training(given, seed, initial, Dense(), start=start, pruned=pruned)
    return Task(
        training,
        network,
        state(network) if weights is None else weights,
        full_mask(network) if mask is None else mask,
        data,
        on_snapshot or {},
        Checkpoint.from_bytes(checkpoint) if checkpoint else None,
    )


def trained(
    task: Task,
    *,
    until: int | None = None,
    only_eager: bool = False,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Train one network by itself."""
    (progress,) = train(
        [task], until=until, only_eager=only_eager, on_step=lambda running: on_step(*running)
    )
    return progress


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Mixing(torch.optim.SGD):
    """Moves every entry of a tensor by the mean of its gradient, as optimisers do that mix entries
    (Muon, Shampoo); and adds noise."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401, ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * (parameter.grad + parameter.grad.mean())
                parameter += 1e-3 * torch.randn_like(parameter)


def mixing_recipe() -> Recipe:
    constant = Schedule("constant", (), 0.1, 0)
    optimizer = Optimizer("tests.trainings.Mixing", {"lr": 0.1}, None, constant)
    return dataclasses.replace(recipe(), optimizer=optimizer)


class Counting(torch.optim.SGD):
    """Keeps Python values in its state and in its groups, and rates of its own for biases."""

    def __init__(self, parameters: Any, lr: float, keeps: str = "numbers") -> None:  # noqa: ANN401
        named = list(parameters)
        weights, biases = named[::2], named[1::2]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "lr": 10 * lr}]
        super().__init__(groups, lr=lr)
        for group in self.param_groups:
            group["steps"], group["kept"] = 0, {1, 2} if keeps == "a set" else (1, 2.5)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401, ARG002
        for group in self.param_groups:
            group["steps"] += 1
            for parameter in group["params"]:
                own = self.state[parameter]
                own["seen"] = own.get("seen", 0) + 1
                own["history"] = (*own.get("history", ())[-2:], float(parameter.grad.mean()))
                scale = 1 / (own["seen"] + group["steps"]) + sum(own["history"])
                parameter -= group["lr"] * scale * parameter.grad


def counting_recipe(**options: object) -> Recipe:
    """A cosine schedule from 0.1, for `Counting`."""
    cosine = Schedule("cosine", (), 0.1, 0)
    optimizer = Optimizer("tests.trainings.Counting", {"lr": 0.1, **options}, None, cosine)
    return dataclasses.replace(recipe(), optimizer=optimizer)
