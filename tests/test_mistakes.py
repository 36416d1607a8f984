"""Mistakes that newcomers make, each with the message that it is answered with."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from hydra_plugins.lth_launchers import console
from lth.errors import LotteryError
from lth.experiment.config import composed
from tests.conftest import ROOT, TINY
from tests.typed import left_behind, run

MODELS = (
    "conv2, conv4, conv6, lenet5, lenet_300_100, own, resnet18, resnet20, resnet32, resnet56, "
    "southampton_lenet5, vgg11, vgg13, vgg16, vgg19"
)
DATASETS = (
    "cifar10, cifar100, cifar10_jpeg, digits, fashion_mnist, image_folder, kmnist, mnist, "
    "mnist_0_to_4, mnist_5_to_9"
)
REWINDS = (
    "constant_sign, continue, finetune, frozen, init, late, lr, reinit, reinit_long, reinit_sign, "
    "shuffled"
)
TYPED = "Type settings as KEY=VALUE, without spaces: seed=1"

REFUSED = {
    "pruning.ratee=10": "no setting pruning.ratee; did you mean pruning.rate?",
    "-m pruning.ratee=10 seed=0,1": "no setting pruning.ratee; did you mean pruning.rate?",
    "+pruning.ratee=10": "no setting pruning.ratee; did you mean pruning.rate?",
    "lr=0.1": "no setting lr; did you mean optimizer.lr?",
    "levels=3 seeds=1": (
        "no setting levels; did you mean pruning.levels?\nno setting seeds; did you mean seed?"
    ),
    "preset=conv2 model.chanels=[4]": (
        "no setting model.chanels; did you mean model.channels?"
    ),
    "hydra.launcher.job=2": "no setting hydra.launcher.job; did you mean hydra.launcher.jobs?",
    "rewind.foo=1": (
        "no setting rewind.foo; rewind has budget, draw, iteration, kind, pruned, shuffle, "
        "survivors (conf/rewind/init.yaml)"
    ),
    "training.epochs=3": (
        "no setting training.epochs; training has batch_size, evaluate_every, evaluate_test, "
        "iterations, last_batch, precision (conf/config.yaml)"
    ),
    "datset=mnist": f"no setting datset; did you mean dataset? Its options: {DATASETS}",
    "+datset=mnist": "no setting datset; did you mean dataset?",
    "launcher=slurm": (
        "no setting launcher; did you mean hydra/launcher? Its options: basic, local, packed, "
        "plan, slurm, submitit_local, submitit_slurm"
    ),
    "model=lenet": (
        "no option lenet of model; did you mean lenet5, lenet_300_100, southampton_lenet5 or "
        "preset=lenet? Its "
        f"options: {MODELS}"
    ),
    "network=lenet": "no setting network; did you mean preset=lenet?",
    "model=own model._target_=tests.typed.Net model.depth=3": (
        "no setting model.depth. For an argument of that name of your own code, write "
        "+model.depth=3"
    ),
    "optimizer._target_=torch.optim.Adagrad optimizer.decay=0": (
        "no setting optimizer.decay. For an argument of that name of your own code, write "
        "+optimizer.decay=0"
    ),
    "-m pruning=set,rigl pruning.update.every=20": (
        "pruning.update.every is a setting of pruning=set and pruning=rigl, and Hydra reads a "
        "sweep first without the options that it sweeps over. Write "
        "'pruning.update.every=choice(20)'"
    ),
    "rewind=reinitt": (
        "no option reinitt of rewind; did you mean reinit, init or reinit_sign? Its options: "
        f"{REWINDS}"
    ),
    "preset=null": (
        "no option null of preset. Its options: conv2, conv2_dropout, conv4, conv4_dropout, conv6, "
        "conv6_dropout, lenet, resnet18, resnet18_low, resnet18_warmup, vgg19, vgg19_low, "
        "vgg19_warmup"
    ),
    "seed=0,1,2": (
        "seed=0,1,2 has several values, which needs a sweep: add -m, as in python run.py -m "
        "seed=0,1,2"
    ),
    "pruning.rates=10,50,90": (
        "pruning.rates=10,50,90 has several values, which needs a sweep: add -m, as in python "
        "run.py -m pruning.rates=10,50,90. For one run with a list of values, write "
        "'pruning.rates=[10,50,90]'."
    ),
    "-m seed=0, 1": "seed=0, 1 has a space after a comma. Write seed=0,1",
    "-m seed=0,": "seed=0, ends with a comma. Write seed=0",
    "seed 1": f"seed is not a setting with a value. {TYPED}",
    "seed:1": f"seed:1 is not a setting with a value. {TYPED}",
    "pruning.rates=[10,20": (
        "pruning.rates=[10,20 cannot be read. Close every bracket and quote, and put a value with "
        "brackets, commas, spaces or quotes into single quotes: 'pruning.rates=[10,50,90]'"
    ),
}  # fmt: skip
"""Words after `python run.py` -> the message."""


@pytest.mark.parametrize("typed", REFUSED)
def test_a_setting_that_is_not_there_is_refused_with_the_one_that_is(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = typed.split(" ")
    monkeypatch.setattr("sys.argv", ["run.py", *words])
    swept = ("-m", "seed=0,1", "pruning=set,rigl")  # Hydra reads the others first
    single = [word for word in words if word not in swept]
    with pytest.raises((HydraException, LotteryError, ValueError)) as refused:
        composed(*single)
    assert console.conclude(refused.value) == 1
    assert capsys.readouterr().err == f"error: {REFUSED[typed]}\n"


@pytest.mark.parametrize("words", [
    "experiment=figure3 -m seed=0,1", "-m experiment=figure3 seed=0,1",
    "experiment=figure3 seed=0,1 --multirun",
])  # fmt: skip
def test_the_flag_of_a_sweep_may_stand_anywhere(words: str) -> None:
    flag, *others = console.flags_first(words.split())
    assert flag in ("-m", "--multirun")
    assert others == ["experiment=figure3", "seed=0,1"]


def test_a_setting_with_dashes_is_refused_with_its_spelling(tmp_path: Path) -> None:
    done = run(tmp_path, "--seed=1")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "unrecognized arguments: --seed=1\n"
        "Settings have no dashes, e.g. seed=1; --help lists flags.\n"
    )


def test_several_experiments_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "experiment=figure4,figure5", "smoke=true")
    assert (done.returncode, done.stdout, left_behind(tmp_path)) == (1, "", [])
    assert done.stderr == (
        "error: experiment=figure4,figure5 names several experiments, and each is a sweep of its "
        "own. Start them one after the other: python run.py experiment=figure4\n"
    )


def test_outside_its_environment_a_run_says_what_to_activate(tmp_path: Path) -> None:
    bare = [sys.executable, "-S", str(ROOT / "run.py")]  # without installed packages
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: lth is not installed in this Python. Activate its environment (source "
        ".venv/bin/activate), or install it (pip install -e .)\n"
    )


NOTHING = "No run of this sweep was started."
SWEEPS = {
    "pruning.ratee=10,20": f"no setting pruning.ratee; did you mean pruning.rate?\n{NOTHING}",
    "pruning.rates=10,50,90": (
        "pruning.rates=10,50,90 is a sweep with one value for each run, and each must be a list. "
        "For one run with all of these, write 'pruning.rates=[10,50,90]'. For a sweep over these "
        f"rates, write pruning.rate=10,50,90.\n{NOTHING}"
    ),
    "rewind=init,late rewind.iteration=5": (
        "rewind.iteration must be 0 with rewind.kind=init, which starts at iteration 0, got 5. "
        "Use rewind=late, or rewind.iteration=0. "
        f"({' '.join(TINY)} rewind=init rewind.iteration=5)\n{NOTHING}"
    ),
    "pruning=static,set pruning.update.every=20": (
        "pruning.update.every is a setting of pruning=set, but not of pruning=static. Start a "
        "sweep of its own for each"
    ),
}


@pytest.mark.parametrize("typed", SWEEPS)
def test_a_sweep_is_refused_with_what_was_meant(typed: str, tmp_path: Path) -> None:
    done = run(tmp_path, "-m", *typed.split(" "))
    assert (done.returncode, done.stdout, left_behind(tmp_path)) == (1, "", [])
    assert done.stderr == f"error: {SWEEPS[typed]}\n"
