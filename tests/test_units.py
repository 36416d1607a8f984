"""Pruning whole neurons and filters, and the smaller network that is left."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lth import models
from lth.engine.build import build_model
from lth.engine.checks import check, counted
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Fresh
from lth.experiment.recipe import recipe
from lth.training import masks, units
from lth.training.selection import survivors
from lth.training.units import Link
from tests.conftest import Composer, engine_on

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "lenet": lambda: models.LeNet((1, 8, 8), 10, (30, 20)),
    "conv": lambda: models.Conv((3, 8, 8), 10, (8, 16), (30, 20)),
    "lenet5": lambda: models.LeNet5((1, 28, 28), 10),
    "vgg": lambda: models.VGG((3, 32, 32), 10, (8, 16), (1, 2)),
    "norms": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.BatchNorm1d(8 * 6 * 6),
        nn.ReLU(),
        nn.Linear(8 * 6 * 6, 30),
        nn.BatchNorm1d(30),
        nn.PReLU(),
        nn.Linear(30, 10),
    ),
}
"""Name -> a chain of layers."""
SHAPES = {"lenet": (1, 8, 8), "conv": (3, 8, 8), "lenet5": (1, 28, 28), "vgg": (3, 32, 32),
          "norms": (3, 8, 8)}  # fmt: skip


def masked(model: nn.Sequential, rate: float) -> masks.Mask:
    """Return the mask of a network without `rate` percent of the units behind each layer but the
    last, by the L1 norm of their incoming weights."""
    scores = {name: model.get_parameter(name).detach().abs() for name in models.prunable(model)}
    whole = {name: torch.ones_like(value, dtype=torch.bool) for name, value in scores.items()}
    return units.prune(scores, whole, dict.fromkeys(scores, rate), 1)


def test_the_links_of_a_flattened_convolution_are_blocks_of_its_area() -> None:
    model = NETWORKS["conv"]()
    shapes = {name: model.get_parameter(name).shape for name in models.prunable(model)}
    assert units.links(shapes)[3:5] == [
        Link("7.weight", "11.weight", 16, 4), Link("11.weight", "13.weight", 30, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_units_with_the_smallest_norms_go_with_all_their_weights(name: str) -> None:
    model = NETWORKS[name]()
    mask = masked(model, 40)
    for link in units.links({n: kept.shape for n, kept in mask.items()}):
        norms = model.get_parameter(link.into).detach().flatten(1).abs().sum(1)
        left = survivors(link.units, 40)
        kept = set(norms.argsort(descending=True)[:left].tolist())
        assert set(units.alive(mask, link).nonzero().flatten().tolist()) == kept
        rows = mask[link.into].flatten(1).any(1).nonzero().flatten().tolist()
        assert set(rows) == kept


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_has_the_same_outputs(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for tensor in (*model.parameters(), *model.buffers()):  # biases and statistics that are not 0
        if tensor.is_floating_point():
            tensor.data += 0.1 * torch.rand(tensor.shape)
    mask = masked(model, 40)
    small = units.smaller(model, mask).eval()
    models.load(model, masks.apply(models.state(model), mask))
    inputs = torch.rand(4, *SHAPES[name])
    assert torch.allclose(small(inputs), model.eval()(inputs), rtol=1e-4, atol=1e-4)
    sizes = [sum(p.numel() for p in of.parameters()) for of in (small, model)]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_module_whose_weights_cannot_be_cut_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    with pytest.raises(LotteryError, match=r"LayerNorm cannot be made smaller.*Ticket\.model"):
        units.smaller(model, masked(model, 40))


def test_scores_of_pruned_weights_are_ignored() -> None:
    mask = {"a": torch.tensor([[True, False], [True, True], [True, True]]),
            "b": torch.ones(1, 3, dtype=torch.bool)}  # fmt: skip
    scores = {"a": torch.tensor([[3.0, torch.nan], [1.0, 1.0], [0.5, 0.5]]), "b": torch.ones(1, 3)}
    left = units.prune(scores, mask, {"a": 34, "b": 0}, 1)
    assert units.alive(left, units.Link("a", "b", 3, 1)).tolist() == [True, True, False]


@pytest.mark.parametrize("granularity", ["filter", "neuron", "unit"])
@pytest.mark.parametrize("mode", ["iterative", "one_shot"])
def test_the_counts_of_levels_are_those_of_their_masks(
    composed: Composer, tmp_path: Path, granularity: str, mode: str
) -> None:
    spec = composed(
        "model=conv2", "dataset=digits", "pruning=units", f"pruning.granularity={granularity}",
        f"pruning.mode={mode}", "pruning.at=init", "pruning.levels=3", "pruning.rate=30",
    )  # fmt: skip
    build = engine_on(tmp_path / "store").maker.build
    found = [
        sum(int(kept.sum()) for kept in build.mask(t.mask, t.recipe.network).values())
        for _, t in lottery.levels(spec)
    ]
    assert counted(spec).levels == found
    assert found[-1] < found[0]


def test_a_network_with_shortcuts_is_refused(composed: Composer) -> None:
    spec = composed("model=resnet20", "dataset=cifar10", "pruning=units")
    with pytest.raises(LotteryError, match="one module after the other"):
        check(spec)
    assert not units.is_chain(build_model(Fresh(recipe(spec).network, 0)))
