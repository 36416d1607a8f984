"""Frozen weights and layers; optimisers that mix entries, keep Python values, or have groups."""

import math

import pytest
import torch

from lth.models import state
from lth.training.checkpoint import Unrepresentable
from lth.training.eager import evaluate
from lth.training.loop import Progress
from tests.test_training import Stop, half_mask, run, stop_at
from tests.trainings import (
    DATA,
    OPTIMIZERS,
    STEPS,
    assert_equal,
    counting_recipe,
    mixing_recipe,
    model,
    random_mask,
    recipe,
    task_of,
    trained,
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_weights_stay_at_their_start_and_survivors_move(optimizer: str) -> None:
    mask, start = half_mask(), state(model())
    end = run(mask, optimizer, pruned="frozen").network.state()
    for name, kept in mask.items():
        assert torch.equal(end[name][~kept], start[name][~kept])
        assert start[name][~kept].all()
        assert (end[name] != start[name])[kept].float().mean() > 0.5


@pytest.mark.parametrize("pruned", ["zero", "frozen"])
def test_an_optimiser_that_mixes_entries_does_not_move_pruned_weights(pruned: str) -> None:
    network = model()
    mask, start = random_mask(network, 0.5), state(network)

    def unmoved(progress: Progress) -> None:
        for name, kept in mask.items():
            value = progress.network.state()[name][~kept]
            assert torch.equal(value, start[name][~kept] if pruned == "frozen" else 0 * value)

    task = task_of(mixing_recipe(), mask=mask, pruned=pruned)
    end = trained(task, on_step=unmoved)
    unmoved(end)
    network.load_state_dict(end.network.state())
    assert evaluate(network, DATA.validation) == end.curve[-1][3:5]


def test_a_frozen_layer_does_not_move_at_any_density() -> None:
    network = model()
    network[1].requires_grad_(False)
    start = state(network)
    task = task_of(recipe(), network=network, mask=random_mask(network, 0.2))
    end = trained(task).network.state()
    assert torch.equal(end["1.bias"], start["1.bias"])
    assert not torch.equal(end["3.bias"], start["3.bias"])


@pytest.mark.parametrize("iteration", [1, 9, 19])
def test_python_values_in_an_optimisers_state_are_resumed(iteration: int) -> None:
    whole = trained(task_of(counting_recipe()))
    saved: list[bytes] = []
    with pytest.raises(Stop):
        trained(task_of(counting_recipe()), on_step=stop_at(iteration, saved))
    resumed = trained(task_of(counting_recipe(), checkpoint=saved[0]))
    assert str(resumed.curve) == str(whole.curve)
    assert_equal(resumed.network.state(), whole.network.state())


def test_a_state_that_cannot_be_saved_exactly_is_refused() -> None:
    with pytest.raises(Unrepresentable, match="set"):
        trained(task_of(counting_recipe(keeps="a set")), on_step=stop_at(3, []))


def test_the_schedule_scales_the_rate_of_each_parameter_group() -> None:
    seen: list[list[float]] = []

    def note(
        progress: Progress,
    ) -> None:  # called before a step, after that of the iteration before
        seen.append([group["lr"] for group in progress.network.optimizer.param_groups])

    trained(task_of(counting_recipe()), on_step=note)
    factors = [(1 + math.cos(math.pi * i / STEPS)) / 2 for i in range(STEPS - 1)]
    assert seen[1:] == [[pytest.approx(0.1 * f), pytest.approx(f)] for f in factors]
