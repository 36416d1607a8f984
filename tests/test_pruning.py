import csv
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lth.masks import pack, unpack
from lth.pruning import Evidence, ladder, magnitude, random, removed, select
from lth.streams import generator


def evidence(*weights: float) -> Evidence:
    tensors = {"w": torch.tensor(weights)}
    return Evidence(tensors, tensors, generator(0, "prune", 1))


def kept(*flags: int) -> dict[str, Tensor]:
    return {"w": torch.tensor(flags, dtype=torch.bool)}


def test_the_smallest_magnitudes_go() -> None:
    scores = magnitude(evidence(0.5, -0.1, 0.3, -0.9, 0.2))
    mask = select(scores, kept(1, 1, 1, 1, 1), {"w": 40})
    assert mask["w"].tolist() == [True, False, True, True, False]


def test_the_rate_is_of_survivors_and_pruned_weights_stay_pruned() -> None:
    scores = magnitude(evidence(0.9, 0.0, 0.8, 0.1, 0.7, 0.6))
    mask = select(scores, kept(0, 1, 0, 1, 1, 1), {"w": 50})
    assert mask["w"].tolist() == [False, False, False, False, True, True]


def test_twenty_percent_of_eleven_equal_weights_is_two_by_index() -> None:
    mask = select(magnitude(evidence(*[0.5] * 11)), kept(*[1] * 11), {"w": 20})
    assert mask["w"].tolist() == [False] * 2 + [True] * 9


def test_a_live_zero_is_alive_until_it_is_pruned() -> None:
    mask = select(magnitude(evidence(0.0, 0.0, 0.0, 1.0)), kept(0, 1, 1, 1), {"w": 33})
    assert mask["w"].tolist() == [False, False, True, True]


@pytest.mark.parametrize(("survivors", "rate", "count"), [
    (0, 20, 0), (1, 20, 0), (2, 20, 0), (3, 20, 1), (5, 20, 1), (235_200, 20, 47_040),
    (1000, 10, 100), (5, 10, 0), (15, 10, 2), (1, 60, 1), (3, 99.9, 3), (1000, 0.1, 1),
])  # fmt: skip
def test_the_number_removed_is_the_nearest_ties_to_even(
    survivors: int, rate: float, count: int
) -> None:
    assert removed(survivors, rate) == count


@pytest.mark.parametrize("values", ["random", "constant", "doubled"])
def test_exact_counts_and_nested_masks_for_25_levels(values: str) -> None:
    weights = torch.randn(997, generator=generator(0, "test"))
    if values == "constant":
        weights = torch.full((997,), 0.5)
    if values == "doubled":
        weights = weights[torch.arange(997) // 2]
    mask, survivors = {"w": torch.ones(997, dtype=torch.bool)}, 997
    for _ in range(25):
        after = select({"w": weights.abs()}, mask, {"w": 20})
        fifth, rest = divmod(survivors, 5)
        survivors -= fifth + (rest >= 3)
        assert int(after["w"].sum()) == survivors
        assert not (after["w"] & ~mask["w"]).any()
        mask = after


def test_nothing_and_everything() -> None:
    scores = {"w": torch.arange(3.0)}
    assert select(scores, kept(1, 1, 1), {"w": 1})["w"].all()
    assert not select(scores, kept(1, 1, 1), {"w": 99})["w"].any()
    assert not select(scores, kept(0, 0, 0), {"w": 50})["w"].any()


def test_random_keeps_uniformly() -> None:
    size, rounds = 40, 400
    hits = torch.zeros(size)
    for level in range(rounds):
        noise = random(Evidence({"w": torch.zeros(size)}, {}, generator(0, "prune", level)))
        hits += select(noise, {"w": torch.ones(size, dtype=torch.bool)}, {"w": 50})["w"]
    five_sigma = 5 * math.sqrt(rounds * 0.25)
    assert ((hits - rounds / 2).abs() < five_sigma).all()


def test_rates_apply_to_each_tensor_on_its_own() -> None:
    rungs = ladder({"a": 100, "b": 50}, {"a": 20.0, "b": 10.0}, 2)
    assert rungs == [{"a": 100, "b": 50}, {"a": 80, "b": 45}, {"a": 64, "b": 41}]


LENET = {"first": (235_200, 20.0), "second": (30_000, 20.0), "output": (1_000, 10.0)}
PRINTED = {3: 51.3, 4: 41.1, 7: 21.1, 8: 16.9, 9: 13.5, 12: 7.0, 15: 3.6, 16: 2.9, 18: 1.9, 20: 1.2}
"""Densities in percent that the paper prints for LeNet, by level."""
LADDERS = Path(__file__).parent / "density_ladders.csv"


def test_lenets_densities_are_those_of_the_paper() -> None:
    """The table holds the ladder before rounding to whole weights, of which 266,200 make 100 %."""
    sizes = {name: size for name, (size, _) in LENET.items()}
    rungs = ladder(sizes, {name: rate for name, (_, rate) in LENET.items()}, 30)
    densities = [100 * sum(rung.values()) / 266_200 for rung in rungs]
    table = csv.DictReader(LADDERS.read_text().splitlines())
    for density, row in zip(densities, table, strict=True):
        assert abs(density - float(row["lenet300100"])) < 0.0015
    assert {level: round(densities[level], 1) for level in PRINTED} == PRINTED


def test_packed_masks_come_back() -> None:
    mask = {"w": torch.rand(3, 7, generator=generator(0, "test")) < 0.5}
    assert torch.equal(unpack(pack(mask), {"w": mask["w"].shape})["w"], mask["w"])
    assert pack(mask)["w"].numel() == 3
