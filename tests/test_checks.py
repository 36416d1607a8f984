"""What is known and what is refused before any training."""

import csv
from pathlib import Path

import pytest
import torch

from lth.engine.build import build_model
from lth.engine.checks import check, ladder
from lth.errors import LotteryError
from lth.experiment.nodes import Fresh
from lth.experiment.settings import Spec, recipe
from lth.models import prunable
from tests.conftest import Composer

LADDERS = Path(__file__).parent / "density_ladders.csv"
"""Of the paper's networks, by level, in percent; before rounding to whole weights."""

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
    for left, row in zip(ladder(spec, model), table, strict=True):
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
    rungs, total = ladder(spec, build(spec)), NETWORKS[name][1]
    assert {k: round(100 * rungs[k] / total, 1) for k in PRINTED[name]} == PRINTED[name]


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


def test_one_shot_has_the_ladder_of_level_after_level(composed: Composer) -> None:
    one, other = (
        composed(f"pruning={name}", "pruning.levels=12") for name in ("one_shot", "magnitude")
    )
    assert ladder(one, build(one)) == ladder(other, build(other))


def test_a_list_of_rates_one_shot_and_level_after_level(composed: Composer) -> None:
    rates = ("model.widths=[100]", "pruning.rates=[50,75]", "pruning.output_rate=0")
    one_shot = composed("pruning=one_shot", *rates)
    assert ladder(one_shot, build(one_shot)) == [7400, 4200, 2600]
    iterative = composed(*rates)
    assert ladder(iterative, build(iterative)) == [7400, 4200, 1800]


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
    assert abs(ladder(spec, build(spec))[-1] - 26_620) <= 6


def test_a_type_can_be_left_alone(composed: Composer) -> None:
    spec = composed("dataset=mnist", "model=lenet5", "pruning.levels=1", "pruning.conv_rate=0")
    dense, pruned = ladder(spec, build(spec))
    assert dense - pruned == 58_080 // 5 + 840 // 10  # all 2,550 of conv stay


@pytest.mark.parametrize(("overrides", "says"), [
    (["pruning.levels=80"], r"pruning\.levels=80.*rate=20.*Set pruning\.levels=\d+ or lower"),
    (["pruning.rate=99.99", "pruning.output_rate=99.99", "pruning.levels=2"], r"the last"),
    (["pruning.rate=99.99", "pruning.output_rate=99.99", "pruning=one_shot"], r"the last"),
    (["pruning.criterion=magnitud"], r"lth\.pruning\.magnitud: nothing can be imported"),
    (["pruning=snip", "~pruning.criterion.per_class"], r"pruning\.snip cannot be .*per_class"),
    (["model._target_=lth.models.Nope"], r"lth\.models\.Nope: nothing can be imported"),
    (["model.widths=[300,-1]"], r"model: it cannot be built"),
    (["+optimizer.typo=1"], r"optimizer: torch\.optim\.Adam cannot be called.*typo"),
    (["model=resnet20", "model.depth=21"], r"depth must be 6 n \+ 2 .* got 21"),
    (["pruning.conv_rate=10"], r"conv_rate=10: this model has no weights of type conv, only "
                               r"linear, output.*conv_rate=null"),
    (["pruning.shortcut_rate=0"], r"no weights of type shortcut"),
    (["model=resnet20", "pruning.linear_rate=5"], r"no weights of type linear"),
    (["rewind=late", "rewind.iteration=600"], r"iteration=600 is past the end.*iterations=600"),
    (["rewind=late", "rewind.iteration=36ep"], r"rewind\.iteration=612 is past the end"),
    (["rewind.iteration=5"], r"rewind\.iteration=5 with rewind\.kind=init.*rewind=late"),
    (["rewind=continue", "rewind.iteration=5"], r"rewind\.kind=continue"),
    (["pruning.scope=global", "pruning.output_rate=10"],
     r"output_rate=10 with pruning\.scope=global.*output_rate=null, or 0"),
    (["pruning.scope=global", "pruning.final_density=0.1", "pruning.linear_rate=20"],
     r"linear_rate=20 with pruning\.final_density=0\.1"),
    (["preset=conv2", "pruning=one_shot", "pruning.rates=[50,90]"],
     r"conv_rate=10 with pruning\.rates=\(50\.0, 90\.0\).*conv_rate=null"),
    (["pruning.rates=[50,90]", "pruning.final_density=0.1"], r"one of the two"),
    (["pruning=movement", "pruning.at=init"], r"nothing has changed yet.*at=end"),
    (["pruning=one_shot", "rewind=continue"], r"kind=continue with pruning\.mode=one_shot"),
    (["rewind=lr", "rewind.shuffle=true"], r"shuffle=true with rewind\.kind=lr"),
    (["rewind=finetune", "rewind.pruned=frozen"], r"pruned=frozen with rewind\.kind=finetune"),
    (["rewind=finetune", "optimizer.schedule.kind=cosine"], r"ends at a rate of 0.*rewind=lr"),
    (["optimizer.schedule.kind=multistep"], r"multistep needs milestones"),
    (["optimizer.schedule.milestones=[5]"], r"multistep needs milestones, and nothing else"),
    (["optimizer=sgd", "optimizer.nesterov=true"], r"optimizer: torch\.optim\.SGD cannot be"),
    (["optimizer.betas=[0.9]"], r"optimizer: torch\.optim\.Adam cannot be called"),
    (["+dataset.loader.typo=1"], r"dataset\.loader: lth\.datasets\.digits cannot.*typo"),
    (["training.batch_size=5000"], r"batch_size=5000: 1077 examples are left"),
    (["dataset.validation=1400"], r"batch_size=60: 37 examples are left"),
    (["model=conv2", "model.channels=[]"], r"model: it cannot be built"),
    (["pruning.final_density=0.00001"], r"final_density=1e-05 pruning\.levels=18: level"),
    (["pruning.rates=[50,20,0.001]"], r"rates=\[50\.0, 20\.0, 0\.001\]: level 3 would take none"),
    (["smoke=true", "pruning.levels=80"], r"pruning\.levels=80"),
    (["model=conv6", "dataset.shape=[1,4,4]"], r"shape \[1, 4, 4\].*pooling leaves no area"),
    (["model=lenet5"], r"shape \[1, 8, 8\].*pooling leaves no area"),
    (["model=vgg19"], r"shape \[1, 8, 8\]"),
    (["model._target_=torch.nn.Flatten", "~model.widths", "~model.dropout", "~model.init_scale"],
     r"model: it cannot be built"),
    (["dataset=mnist", "model._target_=tests.conftest.Headless", "~model.widths",
      "~model.dropout", "~model.init_scale"], r"outputs of shape \[2, 784\]; \[2, 10\] is wanted"),
    (["optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[500,600]"],
     r"milestones=\[500, 600\] reaches past the end"),
    (["optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[500,400]"],
     r"have to increase"),
    (["optimizer.schedule.warmup=601"], r"warmup=601.*past the end"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_training(
    composed: Composer, overrides: list[str], says: str
) -> None:
    with pytest.raises(LotteryError, match=rf"(?s){says}"):
        check(composed(*overrides))


def test_the_level_named_as_the_highest_is_the_highest(composed: Composer) -> None:
    with pytest.raises(LotteryError) as refused:
        check(composed("pruning.levels=100"))
    highest = int(str(refused.value).partition("Set pruning.levels=")[2].split()[0])
    check(composed(f"pruning.levels={highest}"))
    with pytest.raises(LotteryError):
        check(composed(f"pruning.levels={highest + 1}"))


def test_the_ladder_is_what_training_then_counts(composed: Composer) -> None:
    spec = composed("pruning.scope=global", "pruning.levels=3")
    model = build_model(Fresh(recipe(spec).network, spec.seed))
    assert ladder(spec, model) == [50_200, 40_160, 32_128, 25_702]
