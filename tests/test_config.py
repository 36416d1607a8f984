"""Durations, derived rates and smoke: the steps between the YAMLs and the Spec."""

from dataclasses import replace

import pytest

from lth.errors import LotteryError
from lth.experiment.recipe import identity, level_rate, rules
from lth.experiment.smoke import for_smoke
from tests.conftest import SIZED, Composer


@pytest.mark.parametrize(("typed", "iterations"), [
    ("600", 600), ("30000it", 30_000), ("50ep", 850), ("1ep", 17), ("0.5ep", 8),
])  # fmt: skip
def test_budgets_in_iterations_and_epochs(composed: Composer, typed: str, iterations: int) -> None:
    spec = composed(*SIZED, f"training.iterations={typed}")
    assert spec.training.iterations == iterations


def test_epochs_are_counted_in_the_batches_of_the_run(composed: Composer) -> None:
    spec = composed(
        *SIZED, "training.iterations=2ep", "training.batch_size=100", "dataset.validation=177"
    )
    assert spec.training.iterations == 2 * ((1797 - 360 - 177) // 100)
    kept = composed(*SIZED, "training.iterations=2ep", "training.last_batch=keep")
    assert kept.training.iterations == 2 * 18  # 17 batches of 60, and one of 17
    vgg = composed("preset=vgg19", "training.iterations=160ep")
    assert vgg.training.iterations == 112_480  # the paper's figure 2


def test_every_duration_can_be_in_epochs(composed: Composer) -> None:
    spec = composed(
        *SIZED, "training.evaluate_every=1ep", "rewind=late", "rewind.iteration=2ep",
        "optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[10ep,20ep]",
        "optimizer.schedule.warmup=3ep",
    )  # fmt: skip
    assert spec.training.evaluate_every == 17
    assert spec.rewind.iteration == 34
    assert spec.optimizer.schedule.milestones == (170, 340)
    assert spec.optimizer.schedule.warmup == 51


def test_settings_that_a_source_does_not_give_are_the_runs_own(composed: Composer) -> None:
    own = ("preset=lenet", "dataset=kmnist", "training.batch_size=50", "optimizer.lr=0.002")
    source = composed(*own, "source=mnist", "source.training.iterations=2ep").source
    run = composed(*own)
    assert source is not None
    assert source.dataset.loader.options["name"] == "MNIST"
    assert source.dataset.preprocessing == run.dataset.preprocessing
    assert source.optimizer == run.optimizer
    assert source.training == replace(run.training, iterations=2 * (55_000 // 50))
    other = composed(*own, "source=recipe", "optimizer@source.optimizer=sgd").source
    assert other is not None
    assert (other.optimizer.name, other.optimizer.options["lr"]) == ("sgd", 0.1)
    assert (other.optimizer.schedule, other.dataset) == (run.optimizer.schedule, run.dataset)


def test_masks_move_in_epochs_of_the_source(composed: Composer) -> None:
    words = ("dataset=mnist", "pruning=set", "source=recipe", "source.dataset.train=6000")
    update = composed(
        *words, "pruning.update.ticket=true", "pruning.update.every=1ep"
    ).pruning.update
    assert update is not None
    assert update.every == 100


def test_masks_settle_in_epochs_of_the_source(composed: Composer) -> None:
    words = ("dataset=mnist", "pruning=early_bird", "source=recipe", "source.dataset.train=6000")
    settled = composed(*words).pruning.settled
    assert settled is not None
    assert settled.every == 100
    assert composed(*words, "pruning.settled.every=7").pruning.settled == replace(settled, every=7)
    with pytest.raises(LotteryError, match=r"no setting source\.pruning"):
        composed(*words, "+source.pruning.rate=5")


def test_the_rate_follows_from_the_final_density(composed: Composer) -> None:
    spec = composed("pruning.final_density=0.002", "pruning.levels=28")
    assert (1 - level_rate(spec.pruning) / 100) ** 28 == pytest.approx(0.002)
    same = composed("pruning.final_density=0.1", "pruning.levels=1")
    assert identity(same)["pruning.rate"] == 90
    assert identity(same)["pruning.output_rate"] == 90


def test_smoke_shrinks_sizes_and_keeps_every_choice(composed: Composer) -> None:
    whole = composed("preset=resnet18_warmup")
    small = for_smoke(whole)
    assert small.training.iterations == 8
    assert small.optimizer.schedule.milestones == (5, 6)
    assert small.optimizer.schedule.warmup == 5
    assert small.pruning.levels == 2
    assert small.dataset.loader.name == "noise"
    assert (small.model, small.dataset.shape) == (whole.model, whole.dataset.shape)
    assert small.optimizer.options == whole.optimizer.options
    assert small.pruning.scope == "global"


def test_smoke_keeps_few_examples(composed: Composer) -> None:
    small = composed("smoke=true", "dataset=mnist", "dataset.train=5", "training.batch_size=5")
    assert (small.dataset.train, small.training.batch_size) == (5, 5)


def test_smoke_keeps_the_rates_that_all_levels_would_have_had(composed: Composer) -> None:
    whole = composed("pruning.final_density=0.01", "pruning.levels=20")
    rates = [rules(spec.pruning)[0].rates for spec in (whole, for_smoke(whole))]
    assert rates[1] == pytest.approx(rates[0])
    late = for_smoke(composed(*SIZED, "rewind=late", "rewind.iteration=599"))
    assert late.rewind.iteration == 7
    listed = for_smoke(composed("pruning.rates=[10,20,30]"))
    assert listed.pruning.rates == (10, 20)


def test_an_epoch_without_a_batch_is_refused_before_it_is_converted(composed: Composer) -> None:
    message = (
        r"training\.batch_size must be at most the number of training examples, 1077 .*got 1100"
    )
    with pytest.raises(LotteryError, match=message):
        composed(*SIZED, "training.iterations=5ep", "training.batch_size=1100")
