"""The door: every composition, and what is refused there, in which words."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from lth.engine.checks import check
from lth.errors import LotteryError
from lth.experiment.settings import identity
from tests.conftest import ROOT, Composer

OPTIONS = [
    f"{file.parent.name}={file.stem}"
    for file in sorted((ROOT / "conf").glob("*/*.yaml"))
    if file.parent.name != "experiment"
]
OWN = {
    "model=own": ["model._target_=lth.models.ResNet", "+model.depth=8"],
    "optimizer=own": ["optimizer._target_=torch.optim.Adagrad", "optimizer.lr=0.1"],
}
"""What the options for one's own need."""
EXPERIMENTS = [file.stem for file in sorted((ROOT / "conf/experiment").glob("*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_builds(composed: Composer, option: str) -> None:
    large_enough = ["dataset=mnist"] if option.startswith("model=") else []
    check(composed(option, *large_enough, *OWN.get(option, [])))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds(composed: Composer, name: str) -> None:
    check(composed(f"experiment={name}"))


def test_lenet_is_the_column_of_the_paper(composed: Composer) -> None:
    spec = composed("preset=lenet")
    assert spec.dataset.loader.path == "lth.datasets.mnist"
    assert (spec.dataset.validation, spec.dataset.shape) == (5000, (1, 28, 28))
    assert (spec.training.iterations, spec.training.batch_size) == (50_000, 60)
    assert (spec.training.evaluate_every, spec.pruning.levels) == (100, 28)
    assert spec.optimizer.path == "torch.optim.Adam"
    assert spec.optimizer.options["lr"] == 1.2e-3
    assert (spec.pruning.rate, spec.pruning.output_rate) == (20, None)
    assert spec.model.options["widths"] == [300, 100]


@pytest.mark.parametrize(("override", "says"), [
    ("pruning.rate=0", r"pruning\.rate=0.*greater than 0"),
    ("pruning.rate=100", r"pruning\.rate=100.*less than 100"),
    ("pruning.rate=-5", r"pruning\.rate=-5.*greater than 0"),
    ("pruning.rate=off", r"pruning\.rate=off.*valid number"),
    ("training.iterations=010", r"training\.iterations=010.*valid integer"),
    ("pruning.rate=abc", r"pruning\.rate=abc.*valid number"),
    ("pruning.conv_rate=100", r"pruning\.conv_rate=100.*less than 100"),
    ("pruning.scope=globl", r"pruning\.scope=globl.*'layerwise' or 'global'"),
    ("pruning.levels=1.5", r"pruning\.levels=1\.5.*integer"),
    ("seed=null", r"seed=None.*integer"),
    ("seed=-1", r"seed=-1.*greater than or equal to 0"),
    ("seed=true", r"seed=True.*integer"),
    ("rewind.kind=rewind", r"rewind\.kind=rewind.*'init', 'late'"),
    ("training.iterations=0", r"training\.iterations=0.*greater than 0"),
    ("device=gpu", r"device=gpu.*'auto', 'cpu' or 'cuda'"),
    ("optimizer.lr=0", r"lr=0: a number is wanted, more than 0"),
    ("optimizer.lr=fast", r"lr=fast"),
    ("optimizer.lr=nan", r"optimizer\.lr=nan: a finite number"),
    ("optimizer.eps=inf", r"optimizer\.eps=inf: a finite number"),
    ("optimizer.weight_decay=-1", r"weight_decay=-1: a number is wanted, 0 or more"),
    ("training.iterations=50epochs", r"training\.iterations=50epochs.*integer"),
    ("training.iterations=-5ep", r"training\.iterations=-5ep"),
    ("training.iterations=0ep", r"training\.iterations=0.*greater than 0"),
    ("optimizer.schedule.kind=step", r"schedule\.kind=step.*'multistep'"),
    ("pruning.final_density=1", r"final_density=1.*less than 1"),
    ("pruning.rates=[50,100]", r"rates\.1=100.*less than 100"),
    ("optimizer=own", r"optimizer\._target_, optimizer\.lr: not set.*Say optimizer\._target_="),
    ("model=own", r"model\._target_: not set"),
    ("~optimizer.lr", r"lr=missing: a number is wanted"),
    ("+dataset.size=3", r"dataset\.size=3.*[Uu]nexpected"),
    ("+typo=3", r"typo=3.*[Uu]nexpected"),
])  # fmt: skip
def test_bad_values_are_refused_with_their_name_and_what_is_allowed(
    composed: Composer, override: str, says: str
) -> None:
    with pytest.raises(LotteryError, match=says):
        composed(override)


def test_all_faults_are_told_at_once(composed: Composer) -> None:
    with pytest.raises(LotteryError, match=r"(?s)seed=-1.*pruning\.rate=0"):
        composed("seed=-1", "pruning.rate=0")


@pytest.mark.parametrize("override", ["typo=1", "pruning.typo=1", "model.depth=3", "model=nope"])
def test_unknown_keys_and_options_do_not_compose(override: str) -> None:
    with (
        initialize_config_dir(str(ROOT / "conf"), version_base="1.3"),
        pytest.raises(HydraException),
    ):
        compose("config", overrides=[override])


@pytest.mark.parametrize(("override", "name", "value"), [
    ("pruning.rate=10", "rate", 10.0),
    ("pruning.rate=0.5", "rate", 0.5),
    ("pruning.conv_rate=15", "conv_rate", 15.0),
    ("pruning.conv_rate=null", "conv_rate", None),
    ("pruning.at=init", "at", "init"),
])  # fmt: skip
def test_fields_are_set_from_the_command_line(
    composed: Composer, override: str, name: str, value: object
) -> None:
    assert getattr(composed(override).pruning, name) == value


def test_two_spellings_have_one_identity(composed: Composer) -> None:
    one = identity(composed("optimizer=sgd", "optimizer.momentum=0.0", "pruning.output_rate=10"))
    assert one == identity(composed("optimizer=sgd", "optimizer.momentum=0"))


def test_booleans_are_booleans(composed: Composer) -> None:
    nesterov = composed("optimizer=momentum", "optimizer.nesterov=true").optimizer.options
    assert nesterov["nesterov"] is True
    plain = composed("optimizer=sgd", "optimizer.nesterov=false").optimizer.options
    assert plain["nesterov"] is False


def test_a_user_s_own_criterion_is_a_dotted_path(composed: Composer) -> None:
    spec = composed("pruning.criterion=lth.pruning.random")
    assert spec.pruning.criterion.path == "lth.pruning.random"


def test_the_data_folder_comes_from_the_environment(
    composed: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LTH_DATA", raising=False)
    assert composed().dataset.root == "data"
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    assert composed().dataset.root == str(tmp_path)
