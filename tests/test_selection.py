"""Selection against integer arithmetic; masks."""

import math

import pytest
import torch

from lth.training.masks import Mask, pack, shuffled, unpack
from lth.training.seeds import generator
from lth.training.selection import Scores, between, counts, keep, pools, removed, survivors


def magnitudes(weights: list[float]) -> Scores:
    return {"w": torch.tensor(weights).abs()}


def kept(*flags: int) -> Mask:
    return {"w": torch.tensor(flags, dtype=torch.bool)}


def select(scores: Scores, mask: Mask, rate: float) -> list[bool]:
    """Prune one tensor once at `rate`, and return the flags of its weights."""
    left = survivors(int(mask["w"].sum()), rate)
    return [bool(flag) for flag in keep(scores, mask, {("w",): left})["w"]]


def test_the_rate_is_of_survivors_and_pruned_weights_stay_pruned() -> None:
    scores = magnitudes([0.9, 0.0, 0.8, 0.1, 0.7, 0.6])
    left = select(scores, kept(0, 1, 0, 1, 1, 1), 50)
    assert left == [False, False, False, False, True, True]


def test_twenty_percent_of_eleven_equal_weights_is_two_by_index() -> None:
    left = select(magnitudes([0.5] * 11), kept(*[1] * 11), 20)
    assert left == [False] * 2 + [True] * 9


def test_a_surviving_weight_of_value_zero_can_survive() -> None:
    left = select(magnitudes([0.0, 0.0, 0.0, 1.0]), kept(0, 1, 1, 1), 33)
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


def test_layerwise_every_tensor_is_a_pool_and_global_those_that_are_pruned() -> None:
    rates = {"a": 20.0, "b": 20.0, "shortcut": 0.0}
    assert pools(rates, "layerwise") == {("a",): 20, ("b",): 20, ("shortcut",): 0}
    assert pools(rates, "global") == {("a", "b"): 20, ("shortcut",): 0}
    assert pools({"a": 0.0}, "global") == {("a",): 0}


def test_globally_the_lowest_scores_of_all_tensors_are_pruned() -> None:
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


def test_global_ties_are_pruned_in_the_order_of_the_tensors() -> None:
    weights = {"a": torch.ones(3), "b": torch.ones(3)}
    mask = {name: torch.ones(3, dtype=torch.bool) for name in weights}
    after = keep(weights, mask, {("a", "b"): 2})
    assert (int(after["a"].sum()), after["b"].tolist()) == (0, [False, True, True])


def test_rounds_follow_a_geometric_path_and_end_exactly() -> None:
    assert [between(1000, 10, fraction) for fraction in (0.5, 0.75, 1.0)] == [100, 32, 10]
    assert between(0, 0, 0.5) == 0
    assert between(7, 0, 0.5) == 0


def test_shuffled_masks_keep_their_counts() -> None:
    mask = {"a": torch.rand(30, 20, generator=generator(0, "a")) < 0.3, "b": torch.ones(4) > 0}
    other = shuffled(mask, generator(0, "shuffle/1/0"))
    assert {n: int(m.sum()) for n, m in other.items()} == {n: int(m.sum()) for n, m in mask.items()}
    assert not torch.equal(other["a"], mask["a"])
    assert torch.equal(other["a"], shuffled(mask, generator(0, "shuffle/1/0"))["a"])


def test_packed_masks_are_unpacked_unchanged() -> None:
    mask = {"w": torch.rand(3, 7, generator=generator(0, "test")) < 0.5}
    assert torch.equal(unpack(pack(mask), {"w": mask["w"].shape})["w"], mask["w"])
    assert pack(mask)["w"].numel() == 3
