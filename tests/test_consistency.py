"""Combinations of settings that have no meaning are refused, without torch, in these words."""

import subprocess
import sys
from pathlib import Path

import pytest

from lth.engine.checks import check
from lth.errors import LotteryError
from lth.experiment.names import rate_name
from lth.experiment.recipe import identity
from lth.experiment.results import rows_from_csv
from tests.conftest import ROOT, SIZED, Composer, run_spec

REFUSED: list[tuple[list[str], str]] = [
    (["pruning.rates=[50,90]", "pruning.final_density=0.1"],
     "pruning.rates=[50.0, 90.0] and pruning.final_density=0.1: only one of the two can be set. "
     "Set the other to null."),
    (["pruning.scope=global", "pruning.output_rate=10"],
     "pruning.output_rate=10 cannot be set with pruning.scope=global: weights of all types compete "
     "under one rate. Set pruning.output_rate=null, or 0 to leave that type alone, or use "
     "pruning.scope=layerwise."),
    (["pruning.scope=global", "pruning.final_density=0.1", "pruning.linear_rate=20"],
     "pruning.linear_rate=20 cannot be set with pruning.final_density=0.1, which gives the rate of "
     "all types. Set pruning.linear_rate=null, or 0 to leave that type alone."),
    (["preset=conv2", "pruning=one_shot", "pruning.rates=[50,90]"],
     "pruning.conv_rate=10 cannot be set with pruning.rates=[50.0, 90.0], which gives the rate of "
     "all types. Set pruning.conv_rate=null, or 0 to leave that type alone."),
    (["pruning=movement", "pruning.at=init"],
     "pruning.criterion=movement cannot be used with pruning.at=init: it scores the change of "
     "weights in training. Use pruning.at=end."),
    (["pruning=magnitude_increase", "pruning.at=init"],
     "pruning.criterion=magnitude_increase cannot be used with pruning.at=init: it scores the "
     "change of weights in training. Use pruning.at=end."),
    (["pruning=one_shot", "rewind=continue"],
     "rewind.kind=continue needs pruning.mode=iterative pruning.at=end, got pruning.mode=one_shot "
     "pruning.at=end: continued weights would never be pruned."),
    (["pruning=random", "rewind=continue"],
     "rewind.kind=continue needs pruning.mode=iterative pruning.at=end, got pruning.mode=iterative "
     "pruning.at=init: continued weights would never be pruned."),
    *(([f"rewind={kind}", f"rewind.{control}"],
       f"rewind.{control} cannot be used with rewind.kind={kind}: trained weights are 0 where they "
       "were pruned before, and this control would use those zeros. Use rewind.kind=init or late.")
      for kind in ("lr", "finetune")
      for control in ("shuffle=true", "pruned=frozen", "survivors=constant_sign")),
    (["pruning=early_bird", "pruning.settled=null"],
     "pruning.settled must be set with pruning.at=early: use pruning=early_bird."),
    (["pruning=early_bird", "pruning.at=end"],
     "pruning.settled must be null with pruning.at=end: set pruning.settled=null, or use "
     "pruning=early_bird."),
    (["pruning=early_bird", "pruning.settled.every=120"],
     "pruning.settled.every * pruning.settled.window must be below training.iterations=600, got "
     "120 * 5: otherwise no window of masks is full, and no mask can settle."),
    (["rewind.iteration=5"],
     "rewind.iteration must be 0 with rewind.kind=init, which starts at iteration 0, got 5. Use "
     "rewind=late, or rewind.iteration=0."),
    (["rewind=continue", "rewind.iteration=5"],
     "rewind.iteration must be 0 with rewind.kind=continue, which starts at iteration 0, got 5. "
     "Use rewind=late, or rewind.iteration=0."),
    (["rewind=late", "rewind.iteration=600"],
     "rewind.iteration must be < training.iterations=600, got 600: nothing would be left to "
     "train."),
    (["rewind=late", "rewind.iteration=36ep"],
     "rewind.iteration must be < training.iterations=600, got 612: nothing would be left to "
     "train."),
    (["source=mnist"],
     "source.dataset.shape must be dataset.shape=(1, 8, 8), got (1, 28, 28): a ticket fits one "
     "network. Choose datasets of one form, e.g. dataset=kmnist source=mnist."),
    (["source=recipe", "+source.dataset.root=other", "dataset.root=data"],
     "source.dataset.root must be dataset.root=data, got other: a run reads all data from one "
     "folder. Set dataset.root."),
    (["source=recipe", "rewind=lr", "rewind.iteration=5"],
     "rewind.kind must be init or late with a source, got lr: the others go on from weights at the "
     "end of training. Use rewind=init, or source=none."),
    (["source=recipe", "source.training.iterations=5", "rewind=late", "rewind.iteration=5"],
     "rewind.iteration must be < source.training.iterations=5, got 5. Use a smaller iteration, or "
     "a longer source."),
    (["rewind=lr", "rewind.iteration=5", "rewind.budget=lineage"],
     "rewind.budget=lineage cannot be used with rewind.kind=lr, which goes on from trained "
     "weights. Use rewind.kind=init or late."),
    (["rewind=finetune", "optimizer.schedule.kind=cosine"],
     "rewind.kind=finetune cannot be used with optimizer.schedule.kind=cosine, which ends at a "
     "learning rate of 0. Use rewind=lr, or another schedule."),
    (["optimizer.schedule.kind=multistep"],
     "optimizer.schedule.milestones must be set with kind=multistep and only then, got "
     "kind=multistep warmup=0 milestones=[]. Set both or neither."),
    (["optimizer.schedule.milestones=[5]"],
     "optimizer.schedule.milestones must be set with kind=multistep and only then, got "
     "kind=constant warmup=0 milestones=[5]. Set both or neither."),
    (["optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[500,400]"],
     "optimizer.schedule.milestones must increase, got kind=multistep warmup=0 "
     "milestones=[500, 400]"),
    (["optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[400,400]"],
     "optimizer.schedule.milestones must increase, got kind=multistep warmup=0 "
     "milestones=[400, 400]"),
    (["optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[500,600]"],
     "optimizer.schedule must end within training.iterations=600, got kind=multistep warmup=0 "
     "milestones=[500, 600]. Use smaller iterations, or a larger budget."),
    (["optimizer.schedule.warmup=601"],
     "optimizer.schedule must end within training.iterations=600, got kind=constant warmup=601 "
     "milestones=[]. Use smaller iterations, or a larger budget."),
    (["training.batch_size=5000"],
     "training.batch_size must be at most the number of training examples, 1077 (dataset.examples "
     "less validation and test, or dataset.train), got 5000. Set fewer aside, or use smaller "
     "batches."),
    (["dataset.validation=1400"],
     "training.batch_size must be at most the number of training examples, 37 (dataset.examples "
     "less validation and test, or dataset.train), got 60. Set fewer aside, or use smaller "
     "batches."),
    (["dataset.train=1078"],
     "dataset.train must be at most the number of training examples, 1077 (dataset.examples less "
     "validation and test), got 1078. Set it lower, or to null."),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_combinations_without_a_meaning_are_refused(
    composed: Composer, overrides: list[str], message: str
) -> None:
    with pytest.raises(LotteryError) as refused:
        composed(*SIZED, *overrides)
    assert str(refused.value) == message


def test_all_combinations_at_fault_are_reported_at_once(composed: Composer) -> None:
    with pytest.raises(LotteryError) as refused:
        composed(*SIZED, "rewind.iteration=700", "pruning.scope=global", "pruning.output_rate=10")
    starts = ("pruning.output_rate=10", "rewind.iteration must be 0", "rewind.iteration must be <")
    lines = str(refused.value).splitlines()
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == [*starts]


@pytest.mark.parametrize("overrides", [
    ["pruning.scope=global", "pruning.output_rate=20"],  # the rate of all
    ["pruning.scope=global", "pruning.output_rate=0"],
    ["pruning.final_density=0.1", "pruning.output_rate=0"],
    ["pruning.rates=[50,90]", "pruning.output_rate=0"],
    ["rewind=late", "rewind.iteration=599"],
    ["rewind=lr", "rewind.survivors=reinit"],
    ["optimizer.schedule.warmup=600"],
    ["rewind=finetune", "optimizer.schedule.kind=multistep",
     "optimizer.schedule.milestones=[300,599]"],
])  # fmt: skip
def test_combinations_at_the_limits_are_accepted(composed: Composer, overrides: list[str]) -> None:
    check(composed(*SIZED, *overrides))


def test_refusals_import_no_torch() -> None:
    code = (
        "import sys\n"
        "from hydra import compose, initialize_config_dir\n"
        "from lth.errors import LotteryError\n"
        "from lth.experiment.config import from_config\n"
        f"with initialize_config_dir({str(ROOT / 'conf')!r}, version_base='1.3'):\n"
        "    for overrides in (['pruning.rate=0'], ['rewind.iteration=5'], ['+typo=3']):\n"
        "        try:\n"
        "            from_config(compose('config', overrides=overrides))\n"
        "            raise SystemExit('accepted')\n"
        "        except LotteryError:\n"
        "            assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_smoke_run_without_levels_may_have_a_final_density(
    composed: Composer, tmp_path: Path
) -> None:
    sizes = ("model.widths=[6,5]", "pruning.levels=0", "pruning.final_density=0.5")
    spec = composed("smoke=true", *sizes, f"store={tmp_path / 'store'}")
    check(spec)
    assert identity(spec)["pruning.rate"] == 50
    assert rate_name(spec.pruning) == "50 %, output 50 %"
    run_spec(spec, tmp_path / "run")
    (row,) = rows_from_csv((tmp_path / "run" / "levels.csv").read_bytes())
    assert (row["level"], row["density"]) == ("0", "1.0")


def test_a_smoke_run_is_refused_for_the_settings_that_were_typed(composed: Composer) -> None:
    with pytest.raises(LotteryError, match=r"rewind\.iteration must be < training\.iterations=600"):
        composed(*SIZED, "smoke=true", "rewind=late", "rewind.iteration=600")
