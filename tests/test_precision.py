"""Products in bfloat16, and the layout of convolutional networks."""

import dataclasses
from typing import Any

import pytest
import torch

from lth.experiment.settings import Precision
from lth.models import Conv, channels_last, fresh, state
from lth.training.data import Data
from lth.training.loop import Progress
from lth.training.seeds import generator
from tests.trainings import assert_equal, random_data, recipe, task_of, trained

SHAPE = (3, 8, 8)
DATA: Data = random_data(45, 25, 35, SHAPE)


def network() -> Any:  # noqa: ANN401
    return fresh(lambda: Conv(SHAPE, 4, channels=(4,), widths=(8,)), generator(0, "init"))


def task(precision: Precision, optimizer: str = "adam", **more: Any) -> Any:  # noqa: ANN401
    given = recipe(optimizer)
    budget = dataclasses.replace(given.training, precision=precision)
    given = dataclasses.replace(given, training=budget)
    return task_of(given, network=channels_last(network()), data=DATA, **more)


def test_bfloat16_rounds_products_and_nothing_else() -> None:
    exact, rounded = (trained(task(p)) for p in ("float32", "bfloat16"))
    assert {tensor.dtype for tensor in rounded.network.state().values()} == {torch.float32}
    moments = rounded.network.optimizer.state_dict()["state"][0]
    assert moments["exp_avg"].dtype == torch.float32
    losses = [[point.val_loss for point in done.curve] for done in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_training_ends_with_the_same_bytes(precision: Precision, optimizer: str) -> None:
    saved: dict[int, bytes] = {}

    def save(progress: Progress) -> None:
        saved[progress.iteration] = progress.checkpoint().to_bytes()

    whole = trained(task(precision, optimizer), on_step=save)
    resumed = trained(task(precision, optimizer, checkpoint=saved[11]))
    assert_equal(resumed.network.state(), whole.network.state())
    assert repr(resumed.curve) == repr(whole.curve)


def test_the_layout_changes_no_value() -> None:
    model = network()
    before = state(model)
    channels_last(model)
    convolution = model[0].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert_equal(state(model), before)
    assert all(tensor.is_contiguous() for tensor in state(model).values())
