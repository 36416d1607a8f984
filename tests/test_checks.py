"""Survivor counts, which are known before any training; and parts that cannot be built."""

import csv
from pathlib import Path

import pytest
import torch

from lth.engine.build import build_model
from lth.engine.checks import check, survivor_counts
from lth.errors import LotteryError
from lth.experiment.nodes import Fresh
from lth.experiment.recipe import recipe
from lth.experiment.settings import Spec
from lth.models import prunable
from tests.conftest import OWN_MODEL, Composer

LADDERS = Path(__file__).parent / "density_ladders.csv"
"""Densities of the paper's networks by level, in percent, before rounding to whole weights."""

NETWORKS = {
    "lenet": ("lenet300100", 266_200, {"linear": 265_200, "output": 1_000}),
    "conv2": ("conv2", 4_300_992, {"conv": 38_592, "linear": 4_259_840, "output": 2_560}),
    "conv4": ("conv4", 2_425_024, {"conv": 259_776, "linear": 2_162_688, "output": 2_560}),
    "conv6": ("conv6_2261184w", 2_261_184,
              {"conv": 1_144_512, "linear": 1_114_112, "output": 2_560}),
    "resnet18": ("resnet20_unpruned_shortcut_fc", 270_896,
                 {"conv": 267_696, "shortcut": 2_560, "output": 640}),
    "vgg19": ("vgg19_unpruned_fc", 20_024_000, {"conv": 20_018_880, "output": 5_120}),
}  # fmt: skip
"""Network -> its column in the table, its weights (figure 2), and those of each type."""


def build(spec: Spec) -> torch.nn.Module:
    with torch.device("meta"):  # shapes need no numbers
        network = recipe(spec).network
        return network.model(network.shape, network.classes)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_of_each_type_are_those_of_the_paper(composed: Composer, name: str) -> None:
    model = build(composed(f"preset={name}"))
    found: dict[str, int] = {}
    for tensor, kind in prunable(model).items():
        found[kind] = found.get(kind, 0) + model.get_parameter(tensor).numel()
    _, total, types = NETWORKS[name]
    assert found == types
    assert sum(found.values()) == total


@pytest.mark.parametrize("name", NETWORKS)
def test_the_density_of_every_level_is_that_of_the_table(composed: Composer, name: str) -> None:
    """Each tensor loses a whole number of weights, the table a fraction: at every level each of its
    pools is within one weight of the fraction, and errors shrink with the survivors."""
    column, total, _ = NETWORKS[name]
    spec = composed(f"preset={name}", "pruning.levels=30")
    model = build(spec)
    table = list(csv.DictReader(LADDERS.read_text().splitlines()))
    slack = 100 * 2.5 * len(prunable(model)) / total + 0.0005
    for left, row in zip(survivor_counts(spec, model), table, strict=True):
        assert abs(100 * left / total - float(row[column])) < slack


PRINTED = {
    "lenet": {3: 51.3, 4: 41.1, 7: 21.1, 8: 16.9, 9: 13.5, 12: 7.0, 15: 3.6, 16: 2.9, 18: 1.9},
    "conv2": {3: 51.4, 6: 26.5, 11: 8.8, 14: 4.6},
    "conv4": {11: 11.1, 12: 9.2, 15: 5.4},
    "resnet18": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    "vgg19": {12: 6.9, 15: 3.5, 19: 1.5},
}
"""Densities in percent that the paper prints, by level. (Conv-6's are of another network.)"""


@pytest.mark.parametrize("name", PRINTED)
def test_densities_round_to_those_that_the_paper_prints(composed: Composer, name: str) -> None:
    spec = composed(f"preset={name}", "pruning.levels=20")
    counts, total = survivor_counts(spec, build(spec)), NETWORKS[name][1]
    assert {k: round(100 * counts[k] / total, 1) for k in PRINTED[name]} == PRINTED[name]


def test_resnets_of_other_depths(composed: Composer) -> None:
    """3 x 3 x 3 x 16, then per stage 2 n convolutions; projections of 2,560 and 640 outputs."""
    for depth, blocks in ((20, 3), (32, 5), (56, 9)):
        model = build(composed("dataset=cifar10", f"model=resnet{depth}"))
        weights = sum(model.get_parameter(name).numel() for name in prunable(model))
        inner = sum(9 * width * width * (2 * blocks - (width > 16)) for width in (16, 32, 64))
        assert weights == 432 + inner + 9 * (16 * 32 + 32 * 64) + 2_560 + 640


def test_vggs_of_other_depths(composed: Composer) -> None:
    for depth in (11, 13, 16, 19):
        model = build(composed("dataset=cifar10", f"model=vgg{depth}"))
        assert len(prunable(model)) == depth - 2  # two of the three dense layers are gone


def test_one_shot_keeps_as_many_weights_as_level_after_level(composed: Composer) -> None:
    one, other = (
        composed(f"pruning={name}", "pruning.levels=12") for name in ("one_shot", "magnitude")
    )
    assert survivor_counts(one, build(one)) == survivor_counts(other, build(other))


def test_a_list_of_rates_one_shot_and_level_after_level(composed: Composer) -> None:
    rates = ("model.widths=[100]", "pruning.rates=[50,75]", "pruning.output_rate=0")
    one_shot = composed("pruning=one_shot", *rates)
    assert survivor_counts(one_shot, build(one_shot)) == [7400, 4200, 2600]
    iterative = composed(*rates)
    assert survivor_counts(iterative, build(iterative)) == [7400, 4200, 1800]


@pytest.mark.parametrize("levels", [1, 5, 18])
@pytest.mark.parametrize("mode", ["iterative", "one_shot"])
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_a_final_density_is_reached_whatever_the_levels(
    composed: Composer, levels: int, mode: str, scope: str
) -> None:
    spec = composed(
        "dataset=mnist", f"pruning.levels={levels}", "pruning.final_density=0.1",
        f"pruning.mode={mode}", f"pruning.scope={scope}",
    )  # fmt: skip
    assert abs(survivor_counts(spec, build(spec))[-1] - 26_620) <= 6


def test_a_type_can_be_left_alone(composed: Composer) -> None:
    spec = composed("dataset=mnist", "model=lenet5", "pruning.levels=1", "pruning.conv_rate=0")
    dense, pruned = survivor_counts(spec, build(spec))
    assert dense - pruned == 58_080 // 5 + 840 // 10  # all 2,550 of conv stay


class Pair(torch.nn.Module):
    """Returns two tensors."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:  # noqa: ARG002
        super().__init__()
        self.layer = torch.nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(x.flatten(1)), x


class Weightless(torch.nn.Module):
    """Returns logits without a layer that can be pruned."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:  # noqa: ARG002
        super().__init__()
        self.scale, self.classes = torch.nn.Parameter(torch.ones(1)), classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x.flatten(1)[:, : self.classes]


class Headless(torch.nn.Flatten):
    """A model with as many outputs as inputs, whatever the classes."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:  # noqa: ARG002
        super().__init__()


@pytest.mark.parametrize(("overrides", "message"), [
    (["pruning.levels=80"],
     r"pruning\.levels=80 with pruning\.rate=20: level \d+ would remove none of the \d+ weights "
     r"left\. Set pruning\.levels=\d+ or lower, or another rate\."),
    (["pruning.rate=99.99", "pruning.output_rate=99.99", "pruning.levels=2"],
     r"pruning\.levels=2 with pruning\.rate=99\.99: level 2 would remove the last of the 5 "
     r"weights"),
    (["pruning.rate=99.99", "pruning.output_rate=99.99", "pruning=one_shot"],
     r"pruning\.levels=\d+ with pruning\.rate=99\.99: level 2 would remove the last of the 50,200 "
     r"weights left\. Set pruning\.levels=1 or lower"),
    (["pruning.final_density=0.00001"],
     r"pruning\.final_density=1e-05 pruning\.levels=\d+: level \d+ .*Choose another density or "
     r"number of levels\."),
    (["pruning.rates=[50,20,0.001]"],
     r"pruning\.rates=\[50\.0, 20\.0, 0\.001\]: level 3 would remove none of .*other rates\."),
    (["pruning.criterion=magnitud"],
     r"magnitud must be the id of a built-in or the dotted path of a class or function that can be "
     r"imported, e\.g\. lth\.models\.LeNet .*Check its spelling"),
    (["model._target_=lth.models.Nope"],
     r"lth\.models\.Nope must be the id of a built-in or the dotted path"),
    (["pruning=snip", "~pruning.criterion.per_class"],
     r"pruning\.criterion: snip cannot be called with these options \(missing .*per_class.*\)\. "
     r"The files in conf/pruning/ list the options of the built-in ones\."),
    (["+dataset.loader.typo=1"],
     r"dataset\.loader: digits cannot be called with these options .*typo.*conf/dataset/"),
    (["+optimizer.typo=1"],
     r"optimizer: adam cannot be called with these options .*typo.*conf/optimizer/"),
    (["optimizer=sgd", "optimizer.nesterov=true"], r"optimizer: sgd cannot be called .*Nesterov"),
    (["optimizer.betas=[0.9]"], r"optimizer: adam cannot be called with these options"),
    (["probe=connectivity", "+probe.typo=1"],
     r"probe: connectivity cannot be called with these options .*typo.*conf/probe/"),
    (["probe=connectivity", "probe.points=2"], r"probe\.points must be an integer >= 3, got 2"),
    (["training.iterations=600", "probe=connectivity", "probe.iteration=600"],
     r"probe\.iteration must be an integer in \[0, training\.iterations = 600\), got 600"),
    (["pruning.conv_rate=10"],
     r"pruning\.conv_rate must be null for a model without weights of type conv, got 10; this "
     r"model has linear, output"),
    (["pruning.shortcut_rate=0"],
     r"pruning\.shortcut_rate must be null .*without weights of type shortcut, got 0"),
    (["model=resnet20", "pruning.linear_rate=5"],
     r"pruning\.linear_rate must be null .*without weights of type linear, got 5"),
    (["model.widths=[300,-1]"],
     r"model=lenet cannot be built for inputs of shape \[1, 8, 8\], the shape of this dataset "
     r".*Choose another model or dataset"),
    (["model.widths=300"], r"model=lenet .*int\)\. Correct its options, .*widths=300"),
    (["+model.droput=0.5"], r"model=lenet .*'droput'\)\. Correct its options, .*droput=0\.5"),
    (["model=conv2", "model.channels=[]"], r"model=conv cannot be built"),
    (["model=resnet20", "model.depth=21"],
     r"model=resnet cannot be built .*depth must be 6 n \+ 2 .* got 21"),
    (["model=conv6", "dataset.shape=[1,4,4]"],
     r"model=conv cannot be built for inputs of shape \[1, 4, 4\].*pooling leaves no area"),
    (["model=lenet5"],
     r"model=lenet5 cannot be built for inputs of shape \[1, 8, 8\].*pooling leaves no area"),
    (["model=vgg19"], r"model=vgg cannot be built for inputs of shape \[1, 8, 8\]"),
    (["model._target_=torch.nn.Flatten", *OWN_MODEL], r"model=torch\.nn\.Flatten cannot be built"
     r".*Your own class is called as Model\(shape, classes, \*\*options\)"),
    (["dataset=mnist", "model._target_=tests.test_checks.Headless", *OWN_MODEL],
     r"model=tests\.test_checks\.Headless must return one logit per class, a tensor of shape "
     r"\[2, 10\] for two inputs, got \[2, 784\]"),
    (["model._target_=tests.test_checks.Pair", *OWN_MODEL],
     r"model=tests\.test_checks\.Pair must return one logit per class, .*, got tuple"),
    (["model._target_=tests.test_checks.Weightless", *OWN_MODEL],
     r"model=tests\.test_checks\.Weightless must have a torch\.nn\.Linear or Conv2d layer, and has "
     r"none"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused_before_training(
    composed: Composer, overrides: list[str], message: str
) -> None:
    with pytest.raises(LotteryError, match=rf"(?s)^{message}"):
        check(composed(*overrides))


def test_the_level_that_the_message_names_is_the_highest(composed: Composer) -> None:
    with pytest.raises(LotteryError) as refused:
        check(composed("pruning.levels=100"))
    highest = int(str(refused.value).partition("Set pruning.levels=")[2].split()[0])
    check(composed(f"pruning.levels={highest}"))
    with pytest.raises(LotteryError):
        check(composed(f"pruning.levels={highest + 1}"))


def test_survivor_counts_are_those_of_training(composed: Composer) -> None:
    spec = composed("pruning.scope=global", "pruning.levels=3")
    model = build_model(Fresh(recipe(spec).network, spec.seed))
    assert survivor_counts(spec, model) == [50_200, 40_160, 32_128, 25_702]
