"""Networks with a sparse head against the same networks by autograd alone: equal up to rounding."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lth.experiment.settings import Precision
from lth.models import Conv, LeNet, channels_last, fresh, state
from lth.training import hybrid
from lth.training.data import Data
from lth.training.hybrid import Flatten, SparseLinear, with_fast_head
from lth.training.loop import Progress
from lth.training.networks import Task
from lth.training.seeds import generator
from tests.trainings import (
    OPTIMIZERS,
    assert_equal,
    mixing_recipe,
    random_data,
    random_mask,
    recipe,
    task_of,
    trained,
)

SHAPE = (3, 8, 8)
DATA: Data = random_data(75, 43, 66, SHAPE)


@pytest.fixture(autouse=True)
def _small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid, "SMALLEST", 100)


def network(dropout: float = 0.0, widths: Sequence[int] = (20, 15)) -> nn.Module:
    built = fresh(lambda: Conv(SHAPE, 4, (5,), widths, dropout), generator(0, "init"))
    return channels_last(built)


def task(
    optimizer: str = "adam",
    *,
    dropout: float = 0.0,
    precision: Precision = "float32",
    iterations: int = 40,
    checkpoint: bytes | None = None,
) -> Task:
    model = network(dropout)
    given = recipe(optimizer, iterations=iterations, evaluate_every=10)
    budget = dataclasses.replace(given.training, precision=precision)
    given, mask = dataclasses.replace(given, training=budget), random_mask(model, 0.3)
    return task_of(given, network=model, mask=mask, data=DATA, checkpoint=checkpoint)


def sparse_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, SparseLinear)]


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-4) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_autograd(optimizer: str, dropout: float) -> None:
    given = task(optimizer, dropout=dropout)
    ours = trained(given)
    assert len(sparse_layers(given.model)) == 2
    plain = trained(task(optimizer, dropout=dropout), only_eager=True)
    assert_close(ours.network.state(), plain.network.state(), rtol=2e-2)
    for one, other in zip(ours.curve, plain.curve, strict=True):
        assert one == pytest.approx(other, rel=2e-2, nan_ok=True)


@pytest.mark.parametrize("batch", [1, 64, 70])
def test_outputs_and_gradients_are_those_of_the_dense_layers(batch: int) -> None:
    dense = network()
    mask = random_mask(dense, 0.3)
    mask["6.weight"][:, :7] = False  # inputs and outputs without weights
    mask["6.weight"][2] = False
    weights = {n: v * mask[n] if n in mask else v for n, v in state(dense).items()}
    ours, left = with_fast_head(network(), mask, recipe().optimizer, pruned="zero")
    assert sparse_layers(ours) == ["6", "8"]
    assert left.keys() == mask.keys() - {"6.weight", "8.weight"}
    inputs = torch.randn(batch, *SHAPE, generator=generator(0, "inputs"))
    found = []
    for model in (dense, ours):
        model.load_state_dict(weights)
        own = inputs.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        outputs = model(own)
        outputs.square().sum().backward()
        found.append([outputs, own.grad, *(model.get_parameter(f"{i}.bias").grad for i in (6, 8))])
        found[-1].append(model.get_parameter("0.weight").grad)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for name in ("6.weight", "8.weight"):
        expected = dense.get_parameter(name).grad
        assert expected is not None
        kept = mask[name].t().nonzero(as_tuple=True)[::-1]
        torch.testing.assert_close(
            ours.get_parameter(name).grad, expected[kept], rtol=1e-4, atol=1e-5
        )


def test_the_optimiser_sees_survivors_alone_and_states_are_dense() -> None:
    dense = network()
    mask = random_mask(dense, 0.3)
    ours, _ = with_fast_head(network(), mask, recipe().optimizer, pruned="zero")
    assert ours.get_parameter("6.weight").shape == (int(mask["6.weight"].sum()),)
    random = {name: torch.randn_like(value) for name, value in state(dense).items()}
    ours.load_state_dict(random)
    sparse = {"6.weight", "8.weight"}
    expected = {
        n: v.where(mask[n], torch.zeros(())) if n in sparse else v for n, v in random.items()
    }
    assert_equal(state(ours), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_training_ends_with_the_same_bytes(precision: Precision) -> None:
    def start(checkpoint: bytes | None = None) -> Task:
        return task(dropout=0.5, precision=precision, iterations=20, checkpoint=checkpoint)

    saved: dict[int, bytes] = {}

    def save(progress: Progress) -> None:
        saved[progress.iteration] = progress.checkpoint().to_bytes()

    whole = trained(start(), on_step=save)
    resumed = trained(start(saved[11]))
    assert_equal(resumed.network.state(), whole.network.state())
    assert repr(resumed.curve) == repr(whole.curve)


def test_flatten_changes_no_value_and_no_gradient() -> None:
    inputs = torch.randn(7, 5, 3, 4, generator=generator(0, "inputs"))
    for layout in (torch.channels_last, torch.contiguous_format):
        gradients = []
        for flatten in (Flatten(), nn.Flatten()):
            own = inputs.contiguous(memory_format=layout).requires_grad_()
            flat = flatten(own)
            assert torch.equal(flat, inputs.flatten(1))
            flat.square().sum().backward()
            assert own.grad is not None
            gradients.append(own.grad)
        assert torch.equal(gradients[0], gradients[1])


class Own(nn.Module):
    """Uses the weights of a module without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.linear.weight.t()


def test_other_networks_and_optimisers_keep_dense_layers() -> None:
    for model, optimizer, pruned, density in (
        (Own(), recipe().optimizer, "zero", 0.3),
        (network(), mixing_recipe().optimizer, "zero", 0.3),
        (network(), recipe().optimizer, "frozen", 0.3),
        (network(), recipe().optimizer, "zero", 0.6),
    ):
        mask = random_mask(model, density)
        same, left = with_fast_head(model, mask, optimizer, pruned=pruned)
        assert not sparse_layers(same)
        assert left.keys() == mask.keys()


def test_a_network_with_dropout_and_no_convolution_has_sparse_layers() -> None:
    model = fresh(lambda: LeNet(SHAPE, 4, (20, 7), dropout=0.5), generator(0, "init"))
    with_fast_head(model, random_mask(model, 0.3), recipe().optimizer, pruned="zero")
    assert sparse_layers(model) == ["1", "4"]
