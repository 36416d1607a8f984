"""Random settings of all groups, in smoke form: each set is refused in a sentence, or runs to the
end, is found sound by the audit, and trains nothing when it is run again.

More sets than here: python -m pytest tests/test_fuzz.py --hypothesis-profile long --timeout 0
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException

from lth.audit.audit import Audit
from lth.engine.checks import check
from lth.errors import LotteryError
from lth.experiment.config import from_config, whole_from_config
from tests.conftest import ROOT, run_spec


def options(group: str, *but: str) -> list[str]:
    return sorted({file.stem for file in (ROOT / "conf" / group).glob("*.yaml")} - {*but})


VALID: Mapping[str, list[str]] = {
    "dataset": options("dataset"),
    "pruning": options("pruning"),
    "optimizer": options("optimizer", "own"),
    "rewind": options("rewind"),
    "probe": options("probe"),
    "seed": ["0", "3"],
    "split_seed": ["1", "${seed}"],
    "training.iterations": ["1", "40", "3ep", "2.5ep"],
    "training.batch_size": ["1", "30"],
    "training.evaluate_every": ["1", "7", "1ep", "100000"],
    "training.evaluate_test": ["every"],
    "training.precision": ["tf32", "bfloat16"],
    "dataset.validation": ["1", "10"],
    "dataset.split": ["random", "stratified"],
    "dataset.preprocessing": ["standardize", "unit", "raw"],
    "dataset.flip": ["true"],
    "dataset.crop": ["2", "9"],
    "optimizer.lr": ["0.01", "1"],
    "optimizer.weight_decay": ["0", "0.01"],
    "optimizer.schedule.kind": ["constant", "cosine"],
    "optimizer.schedule": ["{kind: multistep, milestones: [5,20]}", "{warmup: 1ep}"],
    "pruning.levels": ["0", "1", "2", "5"],
    "pruning.rate": ["10", "50", "99"],
    "pruning.rates": ["[50]", "[20,80,50]"],
    "pruning.final_density": ["0.5", "0.01"],
    "pruning.mode": ["iterative", "one_shot"],
    "pruning.scope": ["layerwise", "global"],
    "pruning.rounds": ["1", "3"],
    "pruning.at": ["end", "init"],
    "pruning.linear_rate": ["0", "10"],
    "pruning.output_rate": ["0", "10", "99"],
    "rewind.iteration": ["0", "1", "20", "1ep"],
    "rewind.survivors": ["rewind", "reinit", "reinit_sign", "constant_sign"],
    "rewind.pruned": ["zero", "frozen"],
    "rewind.shuffle": ["true", "false"],
    "rewind.draw": ["0", "2"],
    "threads": ["1"],
    "device": ["cpu"],
    "backend": ["auto", "eager"],
    "checkpoint_seconds": ["0.001"],
}
"""Values that are valid by themselves; some of their combinations are not."""

INVALID: Mapping[str, list[str]] = {
    "seed": ["-1", "1.5", "null", "true", "seven"],
    "split_seed": ["-2"],
    "training.iterations": ["0", "-5", "1e3", "ten"],
    "training.batch_size": ["0", "100000"],
    "training.evaluate_every": ["0"],
    "training.evaluate_test": ["never"],
    "training.precision": ["float16"],
    "dataset.validation": ["0", "1797", "100000"],
    "dataset.test": ["-1", "0", "600"],
    "dataset.split": ["sorted"],
    "dataset.preprocessing": ["whiten"],
    "dataset.crop": ["-1"],
    "optimizer.lr": ["0", "-1", ".inf", "nan"],
    "optimizer.weight_decay": ["-1"],
    "optimizer.schedule.kind": ["linear", "multistep"],
    "optimizer.schedule.milestones": ["[20]", "[20,5]", "[1ep]", "[0]", "[100000]"],
    "optimizer.schedule.gamma": ["0", "2"],
    "optimizer.schedule.warmup": ["100000", "-1"],
    "pruning.levels": ["80", "-1", "1.5"],
    "pruning.rate": ["0", "100", "1e-6", "0.2"],
    "pruning.rates": ["[]", "[0]", "[100]"],
    "pruning.final_density": ["1e-9", "1", "0"],
    "pruning.mode": ["both"],
    "pruning.conv_rate": ["0", "100"],
    "pruning.linear_rate": ["-1"],
    "pruning.shortcut_rate": ["10"],
    "pruning.typo": ["1"],
    "rewind.iteration": ["100000", "-1"],
    "rewind.draw": ["-1"],
    "probe.points": ["2", "5"],
    "probe.iteration": ["20", "100000"],
    "threads": ["0"],
    "device": ["tpu"],
    "checkpoint_seconds": ["0"],
}
"""Values that are invalid, or invalid in most combinations."""

SMALL = {
    "lenet_300_100": ["", "model.widths=[6,5]", "model.dropout=0.5", "model.widths=[]"],
    "lenet5": [""],
    "conv2": ["model.channels=[2] model.widths=[5]", "model.channels=[2,3] model.widths=[5,4]"],
    "resnet20": ["", "model.blocks=1"],
    "vgg11": [""],
}
"""Models that take a second or less in smoke form, and options of their own."""


def some(values: Mapping[str, list[str]], most: int) -> st.SearchStrategy[list[str]]:
    """Choose values for at most `most` settings."""
    chosen = st.lists(st.sampled_from(sorted(values)), max_size=most, unique=True)
    one = {name: st.sampled_from([f"{name}={value}" for value in values[name]]) for name in values}
    return chosen.flatmap(lambda names: st.tuples(*(one[name] for name in names)).map(list))


models = st.sampled_from([f"model={m} {own}" for m, owns in SMALL.items() for own in owns])
valid = some(VALID, 6)
nothing: list[str] = []
invalid = st.one_of(*[st.just(nothing)] * 3, some(INVALID, 2))


@pytest.mark.slow
@settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=models, allowed=valid, refused=invalid)
def test_any_settings_are_refused_in_a_sentence_or_run_to_the_end(
    model: str, allowed: list[str], refused: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attempt(["smoke=true", *model.split(), *allowed, *refused], Path(folder))


def test_no_levels_with_a_final_density(tmp_path: Path) -> None:
    attempt(["smoke=true", "pruning.levels=0", "pruning.final_density=0.5"], tmp_path)


def attempt(overrides: list[str], folder: Path) -> None:
    """Do what run.py does with overrides, twice, and audit the first run."""
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("config", overrides=[*overrides, f"store={folder / 'store'}"])
        spec = from_config(config)
        check(whole_from_config(config))
    except (LotteryError, HydraException, OmegaConfBaseException):  # anything else is a fault
        event("refused")
        return
    run_spec(spec, folder / "first")
    run_spec(spec, folder / "second")
    assert list(Audit().of_run(folder / "first")) == []
    trained = [
        json.loads((folder / run / "run.json").read_bytes())["trained"]
        for run in ("first", "second")
    ]
    assert trained[0] > 0
    assert trained[1] == 0
