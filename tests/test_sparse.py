"""Sparse steps against autograd on the dense network: equal up to rounding."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lth.experiment.recipe import Recipe
from lth.experiment.settings import Schedule
from lth.models import LeNet, fresh, state
from lth.training import eager, kernels, sparse
from lth.training.augmentation import Augmentation
from lth.training.data import Batch, Data, Examples, Part
from lth.training.eager import Eager
from lth.training.loop import Progress
from lth.training.masks import Mask
from lth.training.networks import Task
from lth.training.seeds import generator
from lth.training.sparse import Sparse
from tests.trainings import (
    OPTIMIZERS,
    assert_equal,
    random_mask,
    recipe,
    task_of,
    trained,
)

SIZES = ((5,), (20, 7), (16, 12, 9))
SHAPE = (2, 3, 4)


def part_of(size: int, name: str, stored: torch.dtype = torch.uint8) -> Part:
    random = generator(0, name)
    inputs = torch.randint(256, (size, *SHAPE), generator=random).to(stored)
    labels = torch.randint(4, (size,), generator=random)
    return Part(Examples(inputs, labels), lambda x: x.float().div_(64).sub_(2))


def data_of(stored: torch.dtype) -> Data:
    train, validation, test = (
        part_of(size, name, stored)
        for name, size in (("train", 75), ("validation", 43), ("test", 66))
    )
    return Data(train, validation, test, [0.0], [1.0], {})


DATA, AS_NUMBERS = data_of(torch.uint8), data_of(torch.int32)
BATCH = Batch(DATA.train, torch.arange(10))


def model(widths: tuple[int, ...] = (20, 7)) -> LeNet:
    return fresh(lambda: LeNet(SHAPE, 4, widths), generator(0, "init"))  # type: ignore[return-value]


def mask(network: nn.Module, density: float = 0.3) -> Mask:
    return random_mask(network, density)


def sparse_task(given: Recipe, checkpoint: bytes | None = None, data: Data = DATA) -> Task:
    network = model()
    return task_of(given, network=network, mask=mask(network), data=data, checkpoint=checkpoint)


def both(network: nn.Module, under: Mask, given: Recipe) -> tuple[Eager, Sparse]:
    weights = state(network)
    return (
        Eager(network, weights, under, given.optimizer, pruned="zero"),
        Sparse(network, weights, under, given.optimizer),
    )


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-4) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("widths", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 70])
def test_loss_gradients_and_scores_are_those_of_autograd(
    widths: tuple[int, ...], batch_size: int
) -> None:
    network = model(widths)
    dense, ours = both(network, mask(network), recipe("sgd"))
    torch.testing.assert_close(ours.evaluate(DATA.test), dense.evaluate(DATA.test))
    batch = Batch(DATA.train, torch.arange(batch_size))
    torch.testing.assert_close(ours.step(batch).float(), dense.step(batch))
    assert_close(ours.state(), dense.state())  # one step of plain SGD: the gradients
    torch.testing.assert_close(ours.evaluate(DATA.test), dense.evaluate(DATA.test))


def test_a_table_of_bytes_gives_the_same_inputs_as_preprocessing() -> None:
    random = generator(0, "bytes")
    stored = torch.randint(256, (75, 2, 3, 4), generator=random)
    labels, scale = DATA.train.labels, torch.tensor([3.0, 40.0]).view(1, 2, 1, 1)
    as_bytes, as_numbers = (
        Part(Examples(inputs, labels), lambda x: x.float().div_(255).mul_(scale))
        for inputs in (stored.byte(), stored)
    )
    mirrored = Augmentation(0, torch.tensor([[0] * 4, [0] * 4, [1] * 4]))
    for augment in (None, mirrored):
        losses = [
            both(model(), mask(model()), recipe("sgd"))[1].step(
                Batch(part, torch.tensor([7, 0, 74, 7]), augment)
            )
            for part in (as_bytes, as_numbers)
        ]
        assert losses[0] == losses[1]
    assert torch.equal(as_bytes.table[1], torch.arange(256) / 255 * 40)


@pytest.mark.parametrize("data", [DATA, AS_NUMBERS], ids=["bytes", "numbers"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_hundred_steps_end_where_those_of_the_dense_network_do(
    optimizer: str, data: Data
) -> None:
    given = recipe(optimizer, iterations=200)
    ours = trained(sparse_task(given, data=data))
    assert isinstance(ours.network, Sparse)
    dense = trained(sparse_task(given, data=data), only_eager=True)
    assert isinstance(dense.network, Eager)
    assert_close(ours.network.state(), dense.network.state(), rtol=2e-2)
    for one, other in zip(ours.curve, dense.curve, strict=True):
        assert one == pytest.approx(other, rel=2e-2, nan_ok=True)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_smaller_last_batches_are_steps_of_their_own(optimizer: str) -> None:
    given = recipe(optimizer, iterations=40, evaluate_every=40)
    budget = dataclasses.replace(given.training, last_batch="keep")  # 4 batches of 10, one of 5
    given = dataclasses.replace(given, training=budget)
    ours, dense = (trained(sparse_task(given), only_eager=alone) for alone in (False, True))
    assert_close(ours.network.state(), dense.network.state(), rtol=2e-2)
    losses = [progress.curve[-1].train_loss for progress in (ours, dense)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_examples_without_a_table_are_scaled_one_by_one() -> None:
    part = dataclasses.replace(DATA.train, by_value=False)
    data = dataclasses.replace(DATA, train=part, validation=part)
    ours, table = (trained(sparse_task(recipe("sgd"), data=of)) for of in (data, DATA))
    assert not part.has_table
    assert DATA.train.has_table
    assert_close(ours.network.state(), table.network.state(), rtol=2e-2)


def test_rates_change_between_steps_of_one_call() -> None:
    given = recipe("adam", iterations=20, evaluate_every=20)
    schedule = Schedule("multistep", (3, 9), 0.1, 5)
    given = dataclasses.replace(
        given, optimizer=dataclasses.replace(given.optimizer, schedule=schedule)
    )
    ours, dense = (trained(sparse_task(given), only_eager=alone) for alone in (False, True))
    assert_close(ours.network.state(), dense.network.state())
    assert ours.curve[-1].learning_rate == dense.curve[-1].learning_rate


def test_neurons_and_layers_without_weights() -> None:
    network = model()
    under = mask(network)
    under["1.weight"][3] = False
    under["5.weight"][:] = False
    dense, ours = both(network, under, recipe("adam"))
    for _ in range(5):
        torch.testing.assert_close(ours.step(BATCH).float(), dense.step(BATCH))
    assert_close(ours.state(), dense.state())


def test_pruned_weights_are_zero_and_loaded_weights_are_returned() -> None:
    network = model()
    under = mask(network)
    _, ours = both(network, under, recipe("adam"))
    ours.step(BATCH)
    assert all(not ours.state()[name][~kept].any() for name, kept in under.items())
    random = {name: torch.randn_like(value) for name, value in state(network).items()}
    ours.load(random)
    expected = {n: v * under[n] if n in under else v for n, v in random.items()}
    assert_equal(ours.state(), {name: value + 0.0 for name, value in expected.items()})


def test_the_loss_of_a_network_that_diverges_is_nan() -> None:
    network = model()
    _, ours = both(network, mask(network), recipe("sgd"))
    ours.load({n: torch.full_like(v, torch.inf) for n, v in state(network).items()})
    assert ours.step(BATCH).isnan()


@pytest.mark.parametrize("optimizer", ["adam", "nesterov", "rmsprop"])
def test_a_training_resumed_between_the_steps_of_one_call_ends_with_the_same_bytes(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: dict[int, bytes] = {}

    def save(progress: Progress) -> None:
        saved[progress.iteration] = progress.checkpoint().to_bytes()

    given = recipe(optimizer)
    whole = trained(sparse_task(given), on_step=save)
    assert list(saved) == [0, 7, 14]
    monkeypatch.setattr(sparse, "LONGEST", 4)
    divided = trained(sparse_task(given), on_step=save)
    assert {4, 11, 18} < saved.keys()
    resumed = trained(sparse_task(given, saved[11]))
    for other in (divided, resumed):
        assert_equal(other.network.state(), whole.network.state())
        assert repr(other.curve) == repr(whole.curve)


def test_a_snapshot_ends_a_call() -> None:
    network, taken = model(), list[dict[str, Tensor]]()
    task = task_of(
        recipe(), network=network, mask=mask(network), data=DATA, on_snapshot={5: taken.append}
    )
    trained(task)
    until = trained(sparse_task(recipe()), until=5)
    assert_equal(taken[0], until.network.state())


def test_compiled_code_may_not_reorder_sums() -> None:
    """Else fresh code and code from numba's cache differ in the last bits of a result."""
    assert not kernels.steps.targetoptions.get("fastmath")


def with_dropout() -> nn.Module:
    return LeNet(SHAPE, 4, (20, 7), dropout=0.5)


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(8, 4))


class Residual(nn.Sequential):
    """A sequence with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = super().forward(input)
        return output * 2


@pytest.mark.parametrize("other", [with_dropout, convolutional, lambda: Residual(*model())])
def test_other_networks_use_autograd(other: Callable[[], nn.Module]) -> None:
    network = other()
    assert not sparse.fits(network, mask(network), recipe().optimizer, pruned="zero")


def test_the_sparse_backend_is_used_only_where_it_is_faster_and_equal() -> None:
    network, optimizer = model(), recipe().optimizer
    assert sparse.fits(network, mask(network), optimizer, pruned="zero")
    assert not sparse.fits(network, mask(network), optimizer, pruned="frozen")
    assert not sparse.fits(network, mask(network, 0.8), optimizer, pruned="zero")
    own = dataclasses.replace(optimizer, name="mine.Optimizer")
    assert not sparse.fits(network, mask(network), own, pruned="zero")


def test_an_evaluation_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    _, ours = both(network, mask(network), recipe("adam"))
    monkeypatch.setattr(eager, "EVALUATION_BATCH", 7)
    expected = eager.evaluate(_masked(network), DATA.test)
    torch.testing.assert_close(ours.evaluate(DATA.test), expected)


def _masked(network: nn.Module) -> nn.Module:
    copy = model()
    under = mask(network)
    copy.load_state_dict({n: v * under[n] if n in under else v for n, v in state(copy).items()})
    return copy


def frozen_layer() -> nn.Module:
    network = model()
    network[1].requires_grad_(False)
    return network


def shared_layer() -> nn.Module:
    inside, outside = nn.Linear(24, 24), nn.Linear(24, 4)
    return nn.Sequential(nn.Flatten(), inside, nn.ReLU(), inside, nn.ReLU(), outside)


def shared_weights() -> nn.Module:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)
    )
    network[3].weight = network[1].weight
    return network


def hooked_parameter() -> nn.Module:
    network = model()
    network.get_parameter("1.weight").register_hook(lambda gradient: 2 * gradient)
    return network


def hooked_module() -> nn.Module:
    network = model()
    network[1].register_full_backward_hook(lambda *_: None)
    return network


def replaced_forward() -> nn.Module:
    network = model()
    network[1].forward = lambda inputs: inputs[:, :5]
    return network


SURPRISES = [
    frozen_layer, shared_layer, shared_weights, hooked_parameter, hooked_module, replaced_forward
]  # fmt: skip


@pytest.mark.parametrize("surprise", SURPRISES)
def test_networks_that_are_more_than_their_modules_use_autograd(
    surprise: Callable[[], nn.Module],
) -> None:
    network = surprise()
    assert not sparse.fits(network, mask(network), recipe().optimizer, pruned="zero")


def test_an_example_that_is_certain_and_right_has_no_gradient() -> None:
    logits = np.zeros((4, kernels.LANES), np.float32)
    logits[1] = 200
    gradients = np.ones_like(logits)
    labels = np.ones(3, np.int64)
    assert kernels.cross_entropy(logits, labels, 60, gradients) == 0
    assert not gradients.any()  # Adam would make a full step of any residue
