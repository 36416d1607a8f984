"""A ticket in plain torch code: no optimiser moves its pruned weights."""

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import optimizer as optimizers

from lth.experiment.settings import Optimizer, Schedule
from lth.models import fresh, state
from lth.ticket import Ticket
from lth.training.data import BatchOrder
from lth.training.networks import Task
from lth.training.seeds import generator
from tests.trainings import Mixing, assert_equal, random_mask, recipe, task_of, trained

INPUTS, LABELS = torch.rand(8, 6, generator=generator(0, "inputs")), torch.arange(8) % 4
Make = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


def network(seed: int = 0) -> nn.Sequential:
    """Return a network of matrices alone: Muon accepts no others."""
    layers = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False)
    )
    return fresh(layers, generator(seed, "init"))  # type: ignore[return-value]


def ticket(pruned: str = "zero", density: float = 0.5) -> Ticket:
    of = network()
    return Ticket(state(of), random_mask(of, density), {}, {"pruned": pruned})


def take_steps(model: nn.Module, steps: torch.optim.Optimizer, count: int = 3) -> None:
    for _ in range(count):
        steps.zero_grad()
        cross_entropy(model(INPUTS), LABELS).backward()
        steps.step()


OPTIMIZERS: dict[str, Make] = {
    "muon": lambda p: torch.optim.Muon(p, 0.1),
    "noisy": lambda p: Mixing(p, 0.1),
    "weight decay": lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("pruned", ["zero", "frozen"])
def test_no_optimiser_moves_pruned_weights(make: Make, pruned: str) -> None:
    own = ticket(pruned)
    model = own.put_into(network(seed=1))
    take_steps(model, make(model.parameters()))
    for name, kept in own.mask.items():
        value, start = model.get_parameter(name), own.start[name]
        assert torch.equal(value[~kept], start[~kept] if pruned == "frozen" else 0 * start[~kept])
        assert (value != start)[kept].any()


def test_survivors_train_as_in_the_training_loop() -> None:
    """Muon mixes entries, so survivors depend on the gradients of pruned weights."""
    muon = Optimizer("torch.optim.Muon", {"lr": 0.1}, None, Schedule("constant", (), 0.1, 0))
    given = dataclasses.replace(recipe(iterations=3), optimizer=muon)
    inside = nn.Sequential(nn.Flatten(), *network())
    mask = {f"{int(n[0]) + 1}.weight": kept for n, kept in ticket().mask.items()}
    task = task_of(given, network=inside, mask=mask, pruned="frozen")
    expected = trained(task).network.state()
    own = Ticket(dict(task.weights), mask, {}, {"pruned": "frozen"})
    model = own.put_into(nn.Sequential(nn.Flatten(), *network(seed=1)))
    train_plainly(model, task)
    assert_equal(state(model), expected)


def train_plainly(model: nn.Module, task: Task) -> None:
    order = BatchOrder(task.training.seed, len(task.data.train), 10, torch.device("cpu"))
    steps = task.training.recipe.optimizer(model.parameters())
    for iteration in range(task.training.recipe.training.iterations):
        batch = order.batch(iteration)
        inputs, labels = task.data.train.at(batch)
        steps.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        steps.step()


@pytest.mark.parametrize("density", [0.7, 1.1])
def test_a_second_ticket_replaces_the_first(density: float) -> None:
    first, second = ticket(density=0.2), ticket(density=density)
    model = second.put_into(first.put_into(network()))
    take_steps(model, torch.optim.Muon(model.parameters(), 0.1))
    regrown = second.mask["0.weight"] & ~first.mask["0.weight"]
    assert (model.get_parameter("0.weight") != second.start["0.weight"])[regrown].any()


def test_a_network_that_is_gone_leaves_nothing_behind() -> None:
    hooks = optimizers._global_optimizer_post_hooks
    gc.collect()
    before = len(hooks)
    model = ticket().put_into(network())
    assert len(hooks) > before
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert len(hooks) == before


def test_layers_taken_out_of_the_network_stay_pruned() -> None:
    own = ticket()
    layers = list(own.put_into(network()).children())
    gc.collect()
    model = nn.Sequential(*layers)
    take_steps(model, torch.optim.Muon(model.parameters(), 0.1))
    assert not model.get_parameter("0.weight")[~own.mask["0.weight"]].any()
