"""Rules about the steps of a training: its first ones are repeated by autograd.

Final weights and their loss do not show that each step was a step of the described network: a fast
path could train another one, for example one whose frozen layers move.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lth.audit.training_rules import Case, tolerance
from lth.experiment.results import Evaluation
from lth.training.loop import train
from lth.training.networks import Task
from lth.training.seeds import generator

COMPARED = ("train_loss", "val_loss", "val_accuracy")
NUDGE = 1e-6
"""Relative change of the starting weights, of the size of a few roundings."""
CHAOS = 10
"""A repetition may differ by this multiple of the effect of such a change."""


def first_steps_are_those_of_autograd(case: Case) -> Iterator[str]:
    """The steps before the second evaluation, repeated by autograd, give the same evaluation.

    Implementations differ in the order of sums. On digits, sparse steps and autograd differed in
    losses by at most 6e-7 after 25 steps and 1e-4 after 100, and in no accuracy (Adam, SGD,
    momentum). A network with batch norm at a high rate amplifies rounding by 1e6 in 25 steps, so
    the allowed difference is the effect of rounding on this training, where that is larger.
    """
    training = case.training
    if case.data is None or len(case.curve) < 2 or training.evaluated_from > training.start:
        return
    if not (case.can_make(training.weights) and case.can_make(training.mask)):
        return
    recorded, ours = case.curve[1], _second_evaluation(case, case.start)
    if not (found := _differences(case, recorded, ours)):
        return
    nudged = _second_evaluation(case, _nudged(case.start))
    for name, difference in found.items():
        if difference > CHAOS * abs(getattr(nudged, name) - getattr(ours, name)):
            theirs, own = getattr(recorded, name), getattr(ours, name)
            where = f"{name} at iteration {recorded.iteration}"
            yield f"{where} is recorded as {theirs:.6g}, steps by autograd give {own:.6g}"


def _second_evaluation(case: Case, start: dict[str, Tensor]) -> Evaluation:
    """Train from `start` by autograd, to the second evaluation."""
    assert case.data is not None
    model = case.build.model(case.training)
    counts = case.build.counts(case.training)
    task = Task(case.training, model, start, case.first_mask, case.data, counts=counts)
    (progress,) = train([task], until=case.curve[1].iteration, only_eager=True)
    return progress.curve[1]


def _differences(case: Case, one: Evaluation, other: Evaluation) -> dict[str, float]:
    """Return the differences that are larger than the tolerance. An accuracy may also differ by
    two examples."""
    assert case.data is not None
    found = {}
    for name in COMPARED:
        a, b = getattr(one, name), getattr(other, name)
        spare = 2 / len(case.data.validation) if name == "val_accuracy" else 0
        near = tolerance(case)
        if not math.isclose(a, b, rel_tol=near, abs_tol=spare + near / 10):
            found[name] = abs(a - b)
    return found


def _nudged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    random = generator(0, "nudge")
    return {
        name: value * (1 + NUDGE * torch.randn(value.shape, generator=random))
        if value.is_floating_point()
        else value
        for name, value in state.items()
    }


STEP_RULES = (first_steps_are_those_of_autograd,)
