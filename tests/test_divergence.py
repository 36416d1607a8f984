"""A loss that is not finite stops a training, whatever trains it."""

import dataclasses
import pickle
import re
from math import inf, isnan, nan
from typing import Any

import pytest

from lth.experiment.recipe import Recipe
from lth.experiment.results import Evaluation
from lth.models import state
from lth.training.eager import Eager
from lth.training.loop import Diverged, Progress, not_finite, train
from lth.training.sparse import Sparse
from tests.trainings import model, random_mask, recipe, task_of, trained


def hot() -> Recipe:
    """Return a recipe whose rate leads to infinite weights within a few steps, 20 in all."""
    given = recipe("sgd", evaluate_every=7)
    optimizer = dataclasses.replace(given.optimizer, options={"lr": 1e20})
    return dataclasses.replace(given, optimizer=optimizer)


@pytest.mark.parametrize(("density", "kind"), [(1.1, Eager), (0.3, Sparse)])
def test_a_training_that_diverges_is_stopped_where_it_is_evaluated(
    density: float, kind: type
) -> None:
    last: list[Progress] = []
    task = task_of(hot(), mask=random_mask(model(), density))
    message = (
        rf"{re.escape(str(task.training))}, [\d.]+ % of the weights: the training loss is \w+ at "
        r"iteration 7"
        r".*optimizer\.lr.*1e\+20"
    )
    with pytest.raises(Diverged, match=message):
        trained(task, on_step=last.append)
    assert isinstance(last[-1].network, kind)
    assert last[-1].iteration == 7


def test_the_member_of_a_pack_that_diverges_is_named() -> None:
    tasks = [task_of(recipe("sgd"), network=model(), seed=seed) for seed in (1, 2)]
    huge: dict[str, Any] = {name: value * 1e30 for name, value in state(model()).items()}
    tasks[1] = dataclasses.replace(tasks[1], weights=huge)
    named = rf"{re.escape(str(tasks[1].training))}.* validation loss is (nan|inf) at iteration 0"
    with pytest.raises(Diverged, match=named) as raised:
        train(tasks)
    sent = pickle.loads(pickle.dumps(raised.value))
    assert str(sent) == str(raised.value)
    assert sent.training == tasks[1].training


@pytest.mark.parametrize(("losses", "accuracy", "first", "expected"), [
    ((0.5, 0.5, 0.5), 0.5, False, set()),
    ((nan, 0.5, nan), nan, True, set()),
    ((nan, 0.5, nan), nan, False, {"training"}),
    ((0.5, inf, nan), nan, False, {"validation"}),
    ((0.5, 0.5, nan), 0.5, False, {"test"}),
    ((inf, nan, inf), 0.5, True, {"training", "validation", "test"}),
])  # fmt: skip
def test_a_loss_counts_where_it_is_measured(
    losses: tuple[float, float, float], accuracy: float, first: bool, expected: set[str]
) -> None:
    training, validation, test = losses
    point = Evaluation(7, 0.1, training, validation, 0.5, test, accuracy)
    assert not_finite(point, first=first).keys() == expected


def test_the_first_evaluation_needs_no_training_loss() -> None:
    curve = trained(task_of(recipe("sgd"), start=3)).curve
    assert isnan(curve[0].train_loss)
    assert [point.iteration for point in curve] == [3, 7, 14, 20]
