"""Names of arms and rates, as figures and tables show them."""

import pytest

from analysis import arms
from analysis.paper import paper_claims
from lth.experiment.names import arm_name, rate_name
from tests.conftest import Composer


@pytest.mark.parametrize(("overrides", "name"), [
    ((), "winning ticket"),
    (("rewind=reinit",), "random reinit"),
    (("pruning=one_shot",), "one-shot"),
    (("pruning=one_shot", "rewind=reinit"), "one-shot, random reinit"),
    (("pruning=random",), "random mask"),
    (("pruning=large_init",), "large init"),
    (("pruning.criterion=mine.score",), "mine.score"),
    (("pruning=snip", "rewind=shuffled"), "snip at init, shuffled"),
    (("pruning.at=init",), "magnitude at init, level by level"),
    (("rewind=late", "rewind.iteration=500"), "late rewinding from 500"),
    (("rewind=late", "rewind.iteration=500", "rewind.survivors=reinit"),
     "late rewinding from 500, random reinit"),
    (("rewind=finetune",), "fine-tuning"),
    (("rewind=frozen",), "pruned weights frozen"),
    (("pruning=early_bird",), "early-bird"),
    (("pruning=early_bird", "rewind=reinit"), "early-bird, random reinit"),
    (("rewind=reinit_long",), "random reinit, longer training"),
    (("dataset=kmnist", "source=mnist"), "found with MNIST"),
    (("dataset=mnist_5_to_9", "source=mnist_0_to_4", "rewind=reinit"),
     "random reinit, found with labels [0, 1, 2, 3, 4]"),
    (("source=recipe", "source.training.iterations=500", "source.optimizer.lr=0.01"),
     "found with lr 0.01, 500 iterations"),
    (("source=recipe", "optimizer@source.optimizer=sgd"), "found with sgd, lr 0.1"),
    (("source=recipe", "source.weights=source"), "found with its weights"),
    (("pruning.at=init", "pruning.mode=one_shot", "pruning.rounds=100"),
     "magnitude at init, 100 rounds"),
])  # fmt: skip
def test_arms_are_named_by_what_they_change(
    composed: Composer, overrides: tuple[str, ...], name: str
) -> None:
    assert arm_name(composed(*overrides)) == name


@pytest.mark.parametrize(("overrides", "name"), [
    ((), "20 %"),
    (("pruning.rate=12.5",), "12.5 %"),
    (("pruning.rates=[5,50]",), "5, 50 %"),
    (("preset=conv2",), "20 %, conv 10 %"),
    (("preset=vgg19",), "20 %, output 0 %"),
    (("pruning.scope=global",), "20 %"),
])  # fmt: skip
def test_rates_are_named_with_those_of_layers_that_depart(
    composed: Composer, overrides: tuple[str, ...], name: str
) -> None:
    assert rate_name(composed(*overrides).pruning) == name


def test_the_arms_that_figures_and_claims_select_have_these_names() -> None:
    assert arms.ARMS == (
        "winning ticket", "random reinit", "random mask", "one-shot", "one-shot, random reinit"
    )  # fmt: skip
    assert (arms.RANDOM_REINIT, arms.CONTINUED) == (
        "random mask, random reinit", "continued training"
    )  # fmt: skip
    assert {claim.arm for claim in paper_claims()} <= {"", *arms.ARMS}
