"""The networks of the paper: sizes, prunable tensors, initial weights."""

import math

import pytest
import torch

from lth.models import Conv, LeNet, fresh, prunable, state
from lth.training.seeds import generator


def lenet() -> LeNet:
    return LeNet((1, 28, 28), 10, (300, 100), dropout=0, init_scale=1)


def test_lenet_has_the_weights_of_the_paper() -> None:
    model = lenet()
    sizes = [model.get_parameter(name).numel() for name in prunable(model)]
    assert sizes == [235_200, 30_000, 1_000]
    assert sum(sizes) == 266_200


def test_weights_are_prunable_by_type_and_nothing_else_is() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(),
        torch.nn.Linear(8, 4), torch.nn.Linear(4, 3),
    )  # fmt: skip
    assert prunable(model) == {"0.weight": "conv", "3.weight": "linear", "4.weight": "output"}


def test_initial_weights_are_gaussian_glorot_and_biases_zero() -> None:
    first = fresh(lenet, generator(0, "init")).get_parameter("1.weight")
    glorot = math.sqrt(2 / (784 + 300))
    assert abs(float(first.detach().std()) / glorot - 1) < 0.01
    assert float((first.abs() < glorot).float().mean()) - 0.6827 < 0.01
    assert not fresh(lenet, generator(0, "init")).get_parameter("1.bias").any()


def test_truncated_weights_have_the_same_deviation_and_no_tails() -> None:
    def build() -> LeNet:
        return LeNet((1, 28, 28), 10, widths=(300, 100), truncated=True)

    deviation = 0.8796  # of a standard normal distribution cut at two deviations
    first = fresh(build, generator(0, "init")).get_parameter("1.weight").detach()
    glorot = math.sqrt(2 / (784 + 300))
    assert float(first.std()) == pytest.approx(glorot, rel=0.01)
    assert float(first.abs().max()) <= 2 * glorot / deviation
    conv = Conv((3, 8, 8), 10, channels=(4,), widths=(9,), truncated=True).get_parameter("2.weight")
    assert float(conv.detach().abs().max()) <= 2 * math.sqrt(2 / (36 + 36)) / deviation


def test_initial_weights_come_from_their_stream_alone() -> None:
    torch.manual_seed(1)
    one = state(fresh(lenet, generator(0, "init")))
    after = torch.rand(1)
    torch.manual_seed(2)
    other = state(fresh(lenet, generator(0, "init")))
    torch.manual_seed(1)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.rand(1), after)
    reinit = state(fresh(lenet, generator(0, "reinit/1/0")))
    assert not torch.equal(one["1.weight"], reinit["1.weight"])


def test_state_is_a_copy() -> None:
    model = lenet()
    before = state(model)
    with torch.no_grad():
        model.get_parameter("1.weight").zero_()
    assert before["1.weight"].any()
