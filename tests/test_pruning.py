"""Scores against hand-computed ones, and selection against integer arithmetic."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import pruning
from lth.errors import LotteryError
from lth.pruning import Evidence
from lth.training.data import Examples, Part
from lth.training.masks import Mask, pack, shuffled, unpack
from lth.training.seeds import generator
from lth.training.selection import Scores, between, counts, keep, pools, removed, survivors


def none() -> nn.Module:
    raise AssertionError("this criterion needs no model and no data")


def judged(weights: dict[str, Tensor], initial: dict[str, Tensor], level: int = 1) -> Evidence:
    """For a criterion that looks at numbers alone."""
    full = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    return Evidence(weights, initial, full, generator(0, "prune", level), none, none)  # type: ignore[arg-type]


def evidence(final: list[float], initial: list[float] | None = None) -> Evidence:
    start = {"w": torch.tensor(initial or final)}
    return judged({"w": torch.tensor(final)}, start)


def kept(*flags: int) -> Mask:
    return {"w": torch.tensor(flags, dtype=torch.bool)}


def select(scores: Scores, mask: Mask, rate: float) -> list[bool]:
    """What is left of one tensor after a level at `rate`."""
    left = survivors(int(mask["w"].sum()), rate)
    return [bool(flag) for flag in keep(scores, mask, {("w",): left})["w"]]


def test_the_smallest_magnitudes_go() -> None:
    scores = pruning.magnitude(evidence([0.5, -0.1, 0.3, -0.9, 0.2]))
    assert select(scores, kept(1, 1, 1, 1, 1), 40) == [True, False, True, True, False]


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
    criterion: Callable[[Evidence], Scores], scores: list[float]
) -> None:
    assert criterion(evidence(ENDED, STARTED))["w"].tolist() == pytest.approx(scores)


def network() -> nn.Sequential:
    """Two inputs, three hidden units, two classes, no biases."""
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


def of_network(mask: Mask | None = None) -> Evidence:
    """That network, with what `mask` prunes at 0."""
    full = {name: torch.ones_like(w, dtype=torch.bool) for name, w in parameters().items()}
    kept = mask or full
    weights = {name: w * kept[name] for name, w in parameters().items()}

    def model() -> nn.Module:
        built = network()
        built.load_state_dict(weights)
        return built

    random = generator(0, "prune", 1)
    part = Part(Examples(INPUTS, LABELS), Tensor.clone)
    return Evidence(weights, weights, kept, random, model, lambda: part)


def parameters() -> dict[str, Tensor]:
    return {name: w.detach() for name, w in network().named_parameters()}


def gradients(first: Tensor, second: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Of the mean cross-entropy by the chain rule, in float64, with no autograd."""
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
"""Some of its weights pruned."""


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
    """H g by central differences of the gradient along g, pruned entries of which do not move."""
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
    with pytest.raises(LotteryError, match="per_class=0: 1 or more"):
        pruning.snip(of_network(), per_class=0)
    with pytest.raises(LotteryError, match="temperature=0: more than 0"):
        pruning.grasp(of_network(), per_class=2, temperature=0)


def test_synflow_is_the_sum_over_paths_through_a_weight() -> None:
    """In a network without biases: of the products of magnitudes along each path."""
    first, second = (w.abs() for w in weights_of_network())
    scores = pruning.synflow(of_network())
    assert torch.allclose(scores["1.weight"], first * second.sum(0).unsqueeze(1))
    assert torch.allclose(scores["3.weight"], second * first.sum(1))


def test_samples_hold_as_many_of_each_class_and_depend_on_the_generator() -> None:
    labels = torch.arange(100) % 5
    part = Part(Examples(torch.arange(100.0).view(-1, 1, 1, 1), labels), Tensor.clone)
    made = Evidence({}, {}, {}, generator(0, "prune", 1), network, lambda: part)
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


def test_the_rate_is_of_survivors_and_pruned_weights_stay_pruned() -> None:
    scores = pruning.magnitude(evidence([0.9, 0.0, 0.8, 0.1, 0.7, 0.6]))
    left = select(scores, kept(0, 1, 0, 1, 1, 1), 50)
    assert left == [False, False, False, False, True, True]


def test_twenty_percent_of_eleven_equal_weights_is_two_by_index() -> None:
    left = select(pruning.magnitude(evidence([0.5] * 11)), kept(*[1] * 11), 20)
    assert left == [False] * 2 + [True] * 9


def test_a_live_zero_is_alive_until_it_is_pruned() -> None:
    left = select(pruning.magnitude(evidence([0.0, 0.0, 0.0, 1.0])), kept(0, 1, 1, 1), 33)
    assert left == [False, False, True, True]


@pytest.mark.parametrize(("count", "rate", "gone"), [
    (0, 20, 0), (1, 20, 0), (2, 20, 0), (3, 20, 1), (5, 20, 1), (235_200, 20, 47_040),
    (1000, 10, 100), (5, 10, 0), (15, 10, 2), (1, 60, 1), (3, 99.9, 3), (1000, 0.1, 1),
])  # fmt: skip
def test_the_number_removed_is_the_nearest_ties_to_even(count: int, rate: float, gone: int) -> None:
    assert removed(count, rate) == gone


def test_one_shot_keeps_as_many_as_level_after_level() -> None:
    assert [survivors(1000, 20, times) for times in range(5)] == [1000, 800, 640, 512, 410]


@pytest.mark.parametrize("values", ["random", "constant", "doubled"])
def test_exact_counts_and_nested_masks_for_25_levels(values: str) -> None:
    weights = torch.randn(997, generator=generator(0, "test"))
    if values == "constant":
        weights = torch.full((997,), 0.5)
    if values == "doubled":
        weights = weights[torch.arange(997) // 2]
    mask, left = {"w": torch.ones(997, dtype=torch.bool)}, 997
    for _ in range(25):
        fifth, rest = divmod(left, 5)
        left -= fifth + (rest >= 3)
        after = keep({"w": weights.abs()}, mask, {("w",): survivors(int(mask["w"].sum()), 20)})
        assert int(after["w"].sum()) == left
        assert not (after["w"] & ~mask["w"]).any()
        mask = after


@pytest.mark.parametrize("count", [0, 1, 4, 7, 11, 12])
def test_selection_agrees_with_a_stable_sort(count: int) -> None:
    values = [2.0, math.nan, -1.0, 2.0, 0.0, -0.0, math.inf, 2.0, -1.0, math.nan, 0.0, 5.0]
    order = sorted(range(12), key=lambda i: math.inf if math.isnan(values[i]) else values[i])
    mask = keep({"w": torch.tensor(values)}, kept(*[1] * 12), {("w",): 12 - count})
    assert set((~mask["w"]).nonzero().flatten().tolist()) == set(order[:count])


def test_nothing_and_everything() -> None:
    scores = {"w": torch.arange(3.0)}
    assert select(scores, kept(1, 1, 1), 1) == [True] * 3
    assert select(scores, kept(1, 1, 1), 99) == [False] * 3
    assert select(scores, kept(0, 0, 0), 50) == [False] * 3


def test_random_keeps_uniformly() -> None:
    size, rounds = 40, 400
    hits = torch.zeros(size)
    for level in range(rounds):
        made = judged({"w": torch.zeros(size)}, {}, level)
        hits += keep(pruning.random(made), kept(*[1] * size), {("w",): 20})["w"]
    five_sigma = 5 * math.sqrt(rounds * 0.25)
    assert ((hits - rounds / 2).abs() < five_sigma).all()


def test_layerwise_every_tensor_is_a_pool_and_global_those_that_are_pruned() -> None:
    rates = {"a": 20.0, "b": 20.0, "shortcut": 0.0}
    assert pools(rates, "layerwise") == {("a",): 20, ("b",): 20, ("shortcut",): 0}
    assert pools(rates, "global") == {("a", "b"): 20, ("shortcut",): 0}
    assert pools({"a": 0.0}, "global") == {("a",): 0}


def test_globally_the_smallest_of_all_go_wherever_they_are() -> None:
    weights = {
        "a": torch.tensor([[0.9, 0.1], [0.8, 0.7]]),
        "b": torch.tensor([0.2, 0.3, 0.15, 0.6]),
        "spared": torch.tensor([0.0, 0.01]),
    }
    mask = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    after = keep(weights, mask, {("a", "b"): 5, ("spared",): 2})
    assert after["a"].tolist() == [[True, False], [True, True]]
    assert after["b"].tolist() == [False, True, False, True]
    assert after["spared"].tolist() == [True, True]
    assert counts(after, {("a", "b"): 1.0, ("spared",): 0.0}) == {("a", "b"): 5, ("spared",): 2}


def test_global_ties_go_in_the_order_of_the_tensors() -> None:
    weights = {"a": torch.ones(3), "b": torch.ones(3)}
    mask = {name: torch.ones(3, dtype=torch.bool) for name in weights}
    after = keep(weights, mask, {("a", "b"): 2})
    assert (int(after["a"].sum()), after["b"].tolist()) == (0, [False, True, True])


def test_rounds_go_down_a_geometric_path_and_end_exactly() -> None:
    assert [between(1000, 10, way) for way in (0.5, 0.75, 1.0)] == [100, 32, 10]
    assert between(0, 0, 0.5) == 0
    assert between(7, 0, 0.5) == 0


def test_shuffled_masks_have_the_same_counts_elsewhere() -> None:
    mask = {"a": torch.rand(30, 20, generator=generator(0, "a")) < 0.3, "b": torch.ones(4) > 0}
    other = shuffled(mask, generator(0, "shuffle/1/0"))
    assert {n: int(m.sum()) for n, m in other.items()} == {n: int(m.sum()) for n, m in mask.items()}
    assert not torch.equal(other["a"], mask["a"])
    assert torch.equal(other["a"], shuffled(mask, generator(0, "shuffle/1/0"))["a"])


def test_packed_masks_come_back() -> None:
    mask = {"w": torch.rand(3, 7, generator=generator(0, "test")) < 0.5}
    assert torch.equal(unpack(pack(mask), {"w": mask["w"].shape})["w"], mask["w"])
    assert pack(mask)["w"].numel() == 3
