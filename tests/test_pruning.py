"""Criteria: scores against hand-computed ones."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import pruning
from lth.errors import LotteryError
from lth.pruning import ScoringInputs
from lth.training.data import Examples, Part
from lth.training.masks import Mask
from lth.training.seeds import generator
from lth.training.selection import Scores, keep


def unavailable() -> Any:  # noqa: ANN401 - stands for any input
    raise AssertionError("this criterion needs no model and no data")


def scoring(
    weights: dict[str, Tensor], initial: dict[str, Tensor], level: int = 1
) -> ScoringInputs:
    """Return the inputs of a criterion that needs no model and no data."""
    full = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    return ScoringInputs(
        weights, initial, full, generator(0, "prune", level), unavailable, unavailable
    )


def numbers(final: list[float], initial: list[float] | None = None) -> ScoringInputs:
    start = {"w": torch.tensor(initial or final)}
    return scoring({"w": torch.tensor(final)}, start)


def test_the_smallest_magnitudes_are_pruned() -> None:
    scores = pruning.magnitude(numbers([0.5, -0.1, 0.3, -0.9, 0.2]))
    left = keep(scores, {"w": torch.ones(5, dtype=torch.bool)}, {("w",): 3})
    assert left["w"].tolist() == [True, False, True, True, False]


ENDED = [0.5, -0.1, 0.3, -0.9]
STARTED = [-0.2, -0.4, 0.1, -0.6]


@pytest.mark.parametrize(("criterion", "scores"), [
    (pruning.magnitude, [0.5, 0.1, 0.3, 0.9]),
    (pruning.small_final, [-0.5, -0.1, -0.3, -0.9]),
    (pruning.large_init, [0.2, 0.4, 0.1, 0.6]),
    (pruning.small_init, [-0.2, -0.4, -0.1, -0.6]),
    (pruning.magnitude_increase, [0.3, -0.3, 0.2, 0.3]),
    (pruning.movement, [0.7, 0.3, 0.2, 0.3]),
    (lambda e: pruning.large_init_large_final(e, alpha=1), [0.2, 0.1, 0.1, 0.6]),
    (lambda e: pruning.large_init_large_final(e, alpha=3), [0.2, 0.3, 0.1, 0.6]),
    (pruning.large_final_same_sign, [0.0, 0.1, 0.3, 0.9]),
])  # fmt: skip
def test_criteria_of_zhou_et_al_by_hand(
    criterion: Callable[[ScoringInputs], Scores], scores: list[float]
) -> None:
    assert criterion(numbers(ENDED, STARTED))["w"].tolist() == pytest.approx(scores)


def network() -> nn.Sequential:
    """Return a network of two inputs, three hidden units and two classes, without biases."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)
    )
    with torch.no_grad():
        first = torch.tensor([[0.5, -0.3], [0.8, 0.4], [-0.6, 0.9]])
        second = torch.tensor([[0.7, -0.2, 0.4], [-0.5, 0.3, 0.6]])
        model.get_parameter("1.weight").copy_(first)
        model.get_parameter("3.weight").copy_(second)
    return model


INPUTS = torch.tensor([[1.0, 0.5], [-0.4, 1.2], [0.3, -0.7], [0.9, 0.1]]).view(4, 1, 1, 2)
LABELS = torch.tensor([0, 1, 0, 1])


def of_network(mask: Mask | None = None) -> ScoringInputs:
    """Return the inputs for that network; weights that `mask` prunes are 0."""
    full = {name: torch.ones_like(w, dtype=torch.bool) for name, w in parameters().items()}
    kept = mask or full
    weights = {name: w * kept[name] for name, w in parameters().items()}

    def model() -> nn.Module:
        built = network()
        built.load_state_dict(weights)
        return built

    random = generator(0, "prune", 1)
    part = Part(Examples(INPUTS, LABELS), Tensor.clone)
    return ScoringInputs(weights, weights, kept, random, model, lambda: part)


def parameters() -> dict[str, Tensor]:
    return {name: w.detach() for name, w in network().named_parameters()}


def gradients(first: Tensor, second: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the gradients of the mean cross-entropy by the chain rule, in float64."""
    x = INPUTS.double().view(4, 2)
    hidden = (x @ first.T).clamp(min=0)
    chances = (hidden @ second.T / temperature).softmax(1)
    error = (chances - torch.eye(2, dtype=torch.float64)[LABELS]) / 4 / temperature
    back = (error @ second) * (x @ first.T > 0)
    return back.T @ x, error.T @ hidden


def weights_of_network(mask: Mask | None = None) -> tuple[Tensor, Tensor]:
    first, second = (w.double() for w in of_network(mask).weights.values())
    return first, second


PARTIAL = {
    "1.weight": torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.bool),
    "3.weight": torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=torch.bool),
}
"""A mask of that network."""


def test_snip_is_weight_times_gradient() -> None:
    first, second = weights_of_network()
    scores = pruning.snip(of_network(), per_class=2)
    for score, weight, gradient in zip(
        scores.values(), (first, second), gradients(first, second), strict=True
    ):
        assert torch.allclose(score.double(), (weight * gradient).abs(), atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("mask", [None, PARTIAL], ids=["dense", "pruned"])
def test_grasp_is_weight_times_hessian_times_gradient_of_survivors(
    temperature: float, mask: Mask | None
) -> None:
    """H g is computed by central differences of the gradient along g, with pruned entries 0."""
    first, second = weights_of_network(mask)
    alive = [kept.double() for kept in of_network(mask).mask.values()]
    g1, g2 = (
        g * kept for g, kept in zip(gradients(first, second, temperature), alive, strict=True)
    )
    step = 1e-6
    ahead = gradients(first + step * g1, second + step * g2, temperature)
    behind = gradients(first - step * g1, second - step * g2, temperature)
    scores = pruning.grasp(of_network(mask), per_class=2, temperature=temperature)
    for score, weight, plus, minus in zip(
        scores.values(), (first, second), ahead, behind, strict=True
    ):
        expected = weight * (plus - minus) / (2 * step)
        assert torch.allclose(score.double(), expected, rtol=1e-4, atol=1e-7)


def test_impossible_options_of_criteria_are_refused() -> None:
    with pytest.raises(LotteryError, match=r"per_class must be >= 1, got 0"):
        pruning.snip(of_network(), per_class=0)
    with pytest.raises(LotteryError, match=r"temperature must be > 0, got 0"):
        pruning.grasp(of_network(), per_class=2, temperature=0)


def test_synflow_is_the_sum_over_paths_through_a_weight() -> None:
    """Without biases, it is the sum of the products of magnitudes along each path."""
    first, second = (w.abs() for w in weights_of_network())
    scores = pruning.synflow(of_network())
    assert torch.allclose(scores["1.weight"], first * second.sum(0).unsqueeze(1))
    assert torch.allclose(scores["3.weight"], second * first.sum(1))


def test_samples_hold_as_many_of_each_class_and_depend_on_the_generator() -> None:
    labels = torch.arange(100) % 5
    part = Part(Examples(torch.arange(100.0).view(-1, 1, 1, 1), labels), Tensor.clone)
    made = ScoringInputs({}, {}, {}, generator(0, "prune", 1), network, lambda: part)
    first, second = pruning._sample(made, 3), pruning._sample(made, 3)
    assert first.labels.bincount().tolist() == [3] * 5
    assert torch.equal(first.inputs.flatten().long() % 5, first.labels)
    assert not torch.equal(first.inputs, second.inputs)


def test_gradient_criteria_leave_the_weights_alone() -> None:
    made = of_network()
    shared = made.model()
    same = dataclasses.replace(made, model=lambda: shared)
    before = cross_entropy(shared(INPUTS), LABELS)
    pruning.snip(same, per_class=2)
    pruning.grasp(same, per_class=2, temperature=1.0)
    assert torch.equal(cross_entropy(shared(INPUTS), LABELS), before)


def test_random_keeps_uniformly() -> None:
    size, rounds = 40, 400
    hits = torch.zeros(size)
    for level in range(rounds):
        made = scoring({"w": torch.zeros(size)}, {}, level)
        hits += keep(pruning.random(made), {"w": torch.ones(size, dtype=torch.bool)}, {("w",): 20})[
            "w"
        ]
    five_sigma = 5 * math.sqrt(rounds * 0.25)
    assert ((hits - rounds / 2).abs() < five_sigma).all()
