"""Training under a mask, against hand-written loops and physically smaller networks."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth.experiment.recipe import Recipe
from lth.experiment.results import Evaluation, early_stop
from lth.experiment.settings import Schedule
from lth.experiment.targets import Target
from lth.models import LeNet, state
from lth.training import eager, sparse
from lth.training.data import BatchOrder, Examples, Part
from lth.training.eager import evaluate
from lth.training.loop import Progress
from tests.trainings import (
    DATA,
    OPTIMIZERS,
    STEPS,
    assert_equal,
    full_mask,
    model,
    random_mask,
    recipe,
    task_of,
    trained,
)

COSINE = Schedule("cosine", (), 0.1, 4)


def half_mask() -> dict[str, Tensor]:
    return random_mask(model(), 0.5)


def run(mask: dict[str, Tensor] | None = None, optimizer: str = "adam", **options: Any) -> Progress:  # noqa: ANN401
    """Train `model()`; `options` are those of a task and of `trained`."""
    given = options.pop("recipe", None) or recipe(optimizer)
    own = {name: options.pop(name) for name in ("until", "on_step") if name in options}
    return trained(task_of(given, mask=mask, **options), **own)


def reference(optimizer: str, network: nn.Module) -> nn.Module:
    """Train by the plainest loop: no mask, no evaluation."""
    steps = Target(*OPTIMIZERS[optimizer], None)(network.parameters())
    order = BatchOrder(3, 45, 10, torch.device("cpu"))
    for iteration in range(STEPS):
        batch = order.batch(iteration)
        loss = cross_entropy(network(DATA.train.stored.inputs[batch]), DATA.train.labels[batch])
        steps.zero_grad()
        loss.backward()
        steps.step()
    return network


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_dense_training_is_plain_training_bit_for_bit(optimizer: str) -> None:
    ours, plain = run(optimizer=optimizer).network.state(), state(reference(optimizer, model()))
    assert_equal(ours, plain)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_weights_are_zero_after_every_step_and_survivors_move(optimizer: str) -> None:
    mask = half_mask()

    def pruned_are_zero(progress: Progress) -> None:
        for name, kept in mask.items():
            assert not progress.network.state()[name][~kept].any()

    start, end = state(model()), run(mask, optimizer, on_step=pruned_are_zero).network.state()
    for name, kept in mask.items():
        assert not end[name][~kept].any()
        fed = start[name].ne(end[name])[kept].float().mean()
        assert fed > 0.7  # those behind a ReLU that never opens have no gradient
    first = mask["1.weight"] & (start["1.weight"] < 0)
    assert (start["1.weight"] != end["1.weight"])[first].any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_survivors_train_as_in_a_physically_smaller_network(optimizer: str) -> None:
    """Hidden units without any weight are the same as no hidden units."""
    units = torch.tensor([0, 2, 3, 6])
    alive = torch.zeros(8, dtype=torch.bool).index_fill(0, units, True)
    big = model()
    mask = full_mask(big)
    mask["1.weight"][~alive] = False
    mask["3.weight"][:, ~alive] = False
    small = LeNet((1, 2, 3), 4, widths=(4, 5))
    values = state(big)
    values["1.weight"], values["1.bias"] = values["1.weight"][alive], values["1.bias"][alive]
    values["3.weight"] = values["3.weight"][:, alive]
    small.load_state_dict(values)
    ours, other = run(mask, optimizer).network.state(), state(reference(optimizer, small))
    torch.testing.assert_close(ours["1.weight"][alive], other["1.weight"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours["3.weight"][:, alive], other["3.weight"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours["5.weight"], other["5.weight"], atol=1e-5, rtol=1e-4)


def test_each_training_has_a_fresh_optimizer() -> None:
    one_step = recipe(iterations=1)
    first = run(recipe=one_step).network.state()
    run()
    again = run(recipe=one_step).network.state()
    assert_equal(first, again)


def test_starting_weights_are_not_edited() -> None:
    weights = state(model())
    before = {name: value.clone() for name, value in weights.items()}
    trained(task_of(recipe(), weights=weights))
    assert_equal(before, weights)


def test_the_full_budget_runs_whatever_the_curve() -> None:
    progress = run(recipe=recipe("momentum", iterations=60))
    assert progress.iteration == 60
    assert early_stop(progress.curve).iteration < 60
    assert [e.iteration for e in progress.curve] == [0, 7, 14, 21, 28, 35, 42, 49, 56, 60]


def test_train_loss_is_the_mean_since_the_last_evaluation() -> None:
    losses: list[float] = []
    network = model()
    order = BatchOrder(3, 45, 10, torch.device("cpu"))
    steps = torch.optim.SGD(network.parameters(), lr=0.1)
    for iteration in range(4):
        batch = order.batch(iteration)
        loss = cross_entropy(network(DATA.train.stored.inputs[batch]), DATA.train.labels[batch])
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    curve = run(recipe=recipe("sgd", iterations=4, evaluate_every=3)).curve
    assert curve[1].train_loss == pytest.approx(sum(losses[:3]) / 3)
    assert curve[2].train_loss == pytest.approx(losses[3])


def test_the_state_at_the_early_stop_is_kept() -> None:
    given = recipe("momentum", iterations=60)
    progress = run(recipe=given)
    stop = early_stop(progress.curve).iteration
    until_there = run(recipe=given, until=stop)
    assert_equal(progress.early, until_there.network.state())


def curve(*val_and_test: tuple[float, float]) -> list[Evaluation]:
    return [
        Evaluation(i, 0.1, 0.0, val, 0.5, 0.0, test) for i, (val, test) in enumerate(val_and_test)
    ]


def test_validation_loss_chooses_and_test_accuracy_is_read() -> None:
    assert early_stop(curve((0.9, 0.1), (0.2, 0.7), (0.3, 0.99), (0.2, 0.8))).iteration == 1
    nan = float("nan")
    assert early_stop(curve((nan, 0.9), (0.5, 0.1), (nan, 0.8))).iteration == 1


class Lookup(nn.Module):
    """Predicts the label that its input holds, and nothing useful in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0))
        self.dropout = nn.Dropout(0.9)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = nn.functional.one_hot(inputs.flatten().long(), 10) * self.scale
        return self.dropout(outputs)  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [103, 500, 501, 1])
def test_a_perfect_model_scores_one_on_any_number_of_examples(size: int) -> None:
    labels = torch.arange(size) % 10
    network = Lookup().train()
    loss, accuracy = evaluate(
        network, Part(Examples(labels.view(-1, 1, 1, 1), labels), Tensor.float)
    )
    assert accuracy == 1.0
    assert loss < 1e-6
    assert network.training


def test_loss_and_accuracy_weigh_every_example_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    with torch.no_grad():
        outputs = network(DATA.test.stored.inputs)
    expected = float(cross_entropy(outputs, DATA.test.labels))
    right = int((outputs.argmax(1) == DATA.test.labels).sum())
    monkeypatch.setattr(eager, "EVALUATION_BATCH", 10)
    loss, accuracy = evaluate(network, DATA.test)
    assert loss == pytest.approx(expected)
    assert accuracy == right / 35


def test_validation_and_test_are_not_swapped() -> None:
    point = run(recipe=recipe(iterations=1)).curve[0]
    assert (point.val_loss, point.val_accuracy) == evaluate(model(), DATA.validation)
    assert (point.test_loss, point.test_accuracy) == evaluate(model(), DATA.test)


def test_the_test_set_is_evaluated_where_it_is_reported_and_changes_nothing() -> None:
    given = recipe("adam", iterations=220, evaluate_every=2)
    every = dataclasses.replace(
        given, training=dataclasses.replace(given.training, evaluate_test="every")
    )
    some, all_of_them = run(recipe=given).curve, run(recipe=every).curve
    assert len(some) == len(all_of_them) == 111
    lowest = math.inf
    for one, other in zip(some, all_of_them, strict=True):
        assert not math.isnan(other.test_accuracy)
        if one.val_loss < lowest or one.iteration % 4 == 0 or one.iteration == 220:
            assert repr(one) == repr(other)
        else:
            unseen = other._replace(test_loss=math.nan, test_accuracy=math.nan)
            assert repr(one) == repr(unseen)
        lowest = min(lowest, one.val_loss)
    assert repr(early_stop(some)) == repr(early_stop(all_of_them))
    assert any(math.isnan(point.test_accuracy) for point in some)


class Stop(Exception):
    pass


def stop_at(iteration: int, saved: list[bytes]) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.iteration == iteration:
            saved.append(progress.checkpoint().to_bytes())
            raise Stop

    return on_step


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "rmsprop", "adadelta"])
@pytest.mark.parametrize("iteration", [0, 1, 6, 7, 13, 19])
def test_a_resumed_training_ends_with_the_same_bytes(
    optimizer: str, iteration: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "LONGEST", 1)  # so that it can stop anywhere
    mask = half_mask()
    whole = run(mask, optimizer)
    saved: list[bytes] = []
    with pytest.raises(Stop):
        run(mask, optimizer, on_step=stop_at(iteration, saved))
    resumed = run(mask, optimizer, checkpoint=saved[0])
    assert str(resumed.curve) == str(whole.curve)
    assert_equal(resumed.network.state(), whole.network.state())
    assert_equal(resumed.early, whole.early)


def snapshots_of(*iterations: int, **options: Any) -> dict[int, dict[str, Tensor]]:  # noqa: ANN401
    found: dict[int, dict[str, Tensor]] = {}
    run(on_snapshot={i: partial(found.__setitem__, i) for i in iterations}, **options)
    return found


def test_snapshots_are_the_state_before_their_step() -> None:
    found = snapshots_of(0, 5, STEPS)
    assert_equal(found[0], state(model()))
    assert_equal(found[5], run(until=5).network.state())
    assert_equal(found[STEPS], run().network.state())


def test_a_layer_without_weights_runs_to_the_end() -> None:
    mask = full_mask(model())
    mask["3.weight"][:] = False
    progress = run(mask)
    assert progress.iteration == STEPS
    assert all(0 < e.val_loss < 10 for e in progress.curve)


def scheduled(schedule: Schedule, optimizer: str = "momentum", **dataset: object) -> Recipe:
    given = recipe(optimizer)
    return dataclasses.replace(
        given,
        optimizer=dataclasses.replace(given.optimizer, schedule=schedule),
        dataset=dataclasses.replace(given.dataset, **dataset),  # type: ignore[arg-type]
        training=dataclasses.replace(given.training, evaluate_every=1),
    )


def test_each_step_has_the_rate_of_its_iteration() -> None:
    """SGD without momentum: a step is exactly minus rate times gradient."""
    given = scheduled(Schedule("multistep", (5, 10), 0.5, 4), "sgd")
    expected = [0.1 * min(1, i / 4) * (1 if i < 5 else 0.5 if i < 10 else 0.25) for i in range(21)]
    rates = [e.learning_rate for e in run(recipe=given).curve]
    assert rates == pytest.approx(expected)
    states = snapshots_of(*range(STEPS + 1), recipe=given)
    for iteration in (0, 1, 4, 5, 9, 10, 19):
        network = model()
        network.load_state_dict(states[iteration])
        batch = BatchOrder(3, 45, 10, torch.device("cpu")).batch(iteration)
        cross_entropy(network(DATA.train.stored.inputs[batch]), DATA.train.labels[batch]).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            after = parameter.detach() - expected[iteration] * parameter.grad
            assert torch.allclose(after, states[iteration + 1][name], atol=1e-7)


def batches_of(
    given: Recipe, weights: dict[str, Tensor], start: int
) -> tuple[list[Tensor], Progress]:
    """Return the inputs of every step of a training, and its end."""
    network, seen = model(), list[Tensor]()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            seen.append(inputs[0])

    network.register_forward_pre_hook(note)
    return seen, trained(task_of(given, network=network, weights=weights, start=start))


def test_a_start_at_k_sees_the_batch_and_the_rate_of_iteration_k() -> None:
    """And the augmentation: without an optimiser's state it ends with the same weights."""
    given = scheduled(COSINE, "sgd", flip=True, crop=1)
    middle = snapshots_of(6, recipe=given)[6]
    batches, whole = batches_of(given, state(model()), 0)
    late_batches, late = batches_of(given, middle, 6)
    assert len(late_batches) == STEPS - 6
    assert all(
        torch.equal(one, other) for one, other in zip(batches[6:], late_batches, strict=True)
    )
    rates = [e.learning_rate for e in whole.curve]
    assert [e.learning_rate for e in late.curve] == rates[6:]
    assert rates[6] == pytest.approx(0.1 * (1 + math.cos(0.3 * math.pi)) / 2)
    assert_equal(late.network.state(), whole.network.state())


def test_a_resumed_training_continues_schedule_and_augmentation() -> None:
    given = scheduled(COSINE, flip=True, crop=1)
    whole = run(recipe=given)
    saved: list[bytes] = []
    with pytest.raises(Stop):
        run(recipe=given, on_step=stop_at(9, saved))
    resumed = run(recipe=given, checkpoint=saved[0])
    assert str(resumed.curve) == str(whole.curve)
    assert_equal(resumed.network.state(), whole.network.state())
    assert str(run(recipe=scheduled(COSINE)).curve) != str(whole.curve)
