"""Every composition, and the values that are refused with their messages."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from lth.engine.checks import check
from lth.errors import LotteryError
from lth.experiment.config import VERSION_BASE
from lth.experiment.recipe import identity
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
"""Settings that the options for user code need."""
SOURCES = ("none", "recipe")
"""Sources that name no dataset."""
EXPERIMENTS = [file.stem for file in sorted((ROOT / "conf/experiment").glob("*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_builds(composed: Composer, option: str) -> None:
    group, _, name = option.partition("=")
    large_enough = ["dataset=mnist"] if group == "model" else []
    of_its_form = [f"dataset={name}"] if group == "source" and name not in SOURCES else []
    check(composed(option, *large_enough, *of_its_form, *OWN.get(option, [])))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds(composed: Composer, name: str) -> None:
    check(composed(f"experiment={name}"))


def test_lenet_is_the_column_of_the_paper(composed: Composer) -> None:
    spec = composed("preset=lenet")
    assert spec.dataset.loader.name == "mnist"
    assert (spec.dataset.validation, spec.dataset.shape) == (5000, (1, 28, 28))
    assert (spec.training.iterations, spec.training.batch_size) == (50_000, 60)
    assert (spec.training.evaluate_every, spec.pruning.levels) == (100, 28)
    assert spec.optimizer.name == "adam"
    assert spec.optimizer.options["lr"] == 1.2e-3
    assert (spec.pruning.rate, spec.pruning.output_rate) == (20, None)
    assert spec.model.options["widths"] == [300, 100]


@pytest.mark.parametrize(("override", "message"), [
    ("pruning.rate=0", "pruning.rate must be in (0, 100), got 0"),
    ("pruning.rate=100", "pruning.rate must be in (0, 100), got 100"),
    ("pruning.rate=-5", "pruning.rate must be in (0, 100), got -5"),
    ("pruning.rate=off", "pruning.rate must be a number, got off"),
    ("training.iterations=010", "training.iterations must be an integer, got 010"),
    ("pruning.rate=abc", "pruning.rate must be a number, got abc"),
    ("pruning.conv_rate=100", "pruning.conv_rate must be in [0, 100), got 100"),
    ("pruning.scope=globl",
     "pruning.scope must be 'layerwise', 'global', 'er' or 'erk', got globl"),
    ("pruning.levels=1.5", "pruning.levels must be an integer, got 1.5"),
    ("seed=null", "seed must be an integer, got null"),
    ("seed=-1", "seed must be >= 0, got -1"),
    ("seed=true", "seed must be an integer, got true"),
    ("rewind.kind=rewind",
     "rewind.kind must be 'init', 'late', 'lr', 'finetune' or 'continue', got rewind"),
    ("rewind.shuffle=1", "rewind.shuffle must be true or false, got 1"),
    ("training.iterations=0", "training.iterations must be > 0, got 0"),
    ("training.precision=highest",
     "training.precision must be 'float32', 'tf32' or 'bfloat16', got highest"),
    ("device=gpu", "device must be 'auto', 'cpu' or 'cuda', got gpu"),
    ("store=3", "store must be text, got 3"),
    ("dataset.loader=3",
     "dataset.loader must name code: a built-in, or a dotted path in _target_, got 3"),
    ("optimizer.lr=0", "optimizer.lr must be a number > 0, got 0"),
    ("optimizer.lr=fast", "optimizer.lr must be a number > 0, got fast"),
    ("optimizer.lr=true", "optimizer.lr must be a number > 0, got True"),
    ("optimizer.lr=nan", "optimizer.lr must be a finite number, got nan"),
    ("optimizer.eps=inf", "optimizer.eps must be a finite number, got inf"),
    ("optimizer.weight_decay=-1", "optimizer.weight_decay must be a number >= 0, got -1"),
    ("training.iterations=50epochs", "training.iterations must be an integer, got 50epochs"),
    ("training.iterations=-5ep", "training.iterations must be an integer, got -5ep"),
    ("training.iterations=0ep", "training.iterations must be > 0, got 0"),
    ("optimizer.schedule.kind=step",
     "optimizer.schedule.kind must be 'constant', 'multistep' or 'cosine', got step"),
    ("optimizer.schedule.milestones=5", "optimizer.schedule.milestones must be a list, got 5"),
    ("optimizer.schedule.gamma=0", "optimizer.schedule.gamma must be in (0, 1], got 0"),
    ("pruning.final_density=1", "pruning.final_density must be in (0, 1), got 1"),
    ("pruning.rates=[50,100]", "pruning.rates.1 must be in (0, 100), got 100"),
    ("store=", "store must not be empty, got "),
    ("pruning.rates=[]", "pruning.rates must have at least 1 entries, got []"),
    ("optimizer=own", "optimizer._target_, optimizer.lr must be set, and there is no default: add "
                      "optimizer._target_=... to the command line."),
    ("model=own", "model._target_ must be set, and there is no default: add model._target_=... to "
                  "the command line."),
    ("~optimizer.lr", "optimizer.lr must be a number > 0, got nothing"),
    ("~training.iterations", "training.iterations must be set"),
    ("+dataset.size=3",
     "no setting dataset.size; conf/ has the settings of each group"),
    ("+typo=3", "no setting typo; conf/ has the settings of each group"),
])  # fmt: skip
def test_a_bad_value_is_refused_with_its_name_and_the_allowed_ones(
    composed: Composer, override: str, message: str
) -> None:
    with pytest.raises(LotteryError) as refused:
        composed(override)
    assert str(refused.value) == message


def test_all_faults_are_reported_at_once(composed: Composer) -> None:
    with pytest.raises(LotteryError) as refused:
        composed("seed=-1", "pruning.rate=0")
    assert str(refused.value).splitlines() == [
        "seed must be >= 0, got -1", "pruning.rate must be in (0, 100), got 0"
    ]  # fmt: skip


@pytest.mark.parametrize("override", ["typo=1", "pruning.typo=1", "model.depth=3", "model=nope"])
def test_unknown_keys_and_options_do_not_compose(override: str) -> None:
    with (
        initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE),
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


def test_a_criterion_is_an_id_or_a_dotted_path(composed: Composer) -> None:
    spec = composed("pruning.criterion=lth.pruning.random")
    assert (spec.pruning.criterion.name, spec.pruning.criterion.code) == ("random", None)
    own = composed("pruning.criterion=mine.score").pruning.criterion
    assert (own.name, own.options) == ("mine.score", {})


def test_the_data_folder_comes_from_the_environment(
    composed: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LTH_DATA", raising=False)
    assert composed().dataset.root == "data"
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    assert composed().dataset.root == str(tmp_path)
