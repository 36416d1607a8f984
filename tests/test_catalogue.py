"""Every experiment of conf/experiment/, from its sweep to its CSVs and figures, in smoke form."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from analysis.__main__ import main
from analysis.collect import collect
from lth.experiment import lottery
from lth.experiment.config import from_config
from lth.experiment.nodes import Training, missing
from lth.experiment.settings import Spec
from lth.runs.folder import RunFolder
from run import run
from tests.conftest import ROOT

FILES = {file.stem: file for file in sorted((ROOT / "conf/experiment").glob("*.yaml"))}
GROUPS = ("model", "dataset")
DRAWN_AS = {"figure10": "figure9", "figure13": "figure12", "figure4_one_shot": "figure4c"}
NO_FIGURE = {name for name in FILES if not name.startswith("figure")}
"""Experiments that are not named after a figure."""


def points(name: str, *overrides: str) -> Iterator[tuple[dict[str, str], Spec]]:
    """The model and dataset, and the Spec, of each run of an experiment's sweep at its first seed
    and draw: as Hydra's own sweeper would expand it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        whole = compose("config", [f"experiment={name}"], return_hydra_config=True)
        params = whole.hydra.sweeper.params or {}
        axes = [f"{k}={v}" for k, v in params.items() if k not in ("seed", *overrides)]
        parsed = OverridesParser.create().parse_overrides(axes)
        for words in BasicSweeper.split_arguments(parsed, None)[0]:
            config = compose(
                "config", [f"experiment={name}", *words, *overrides], return_hydra_config=True
            )
            choices = {group: config.hydra.runtime.choices[group] for group in GROUPS}
            ours = OmegaConf.masked_copy(config, sorted({*config} - {"hydra"}))
            yield choices, from_config(ours)


@pytest.mark.parametrize("name", FILES)
def test_the_header_tells_the_command_and_the_cost(name: str) -> None:
    """`Costs SEEDS x N trainings`, N being what the engine would have to make for one seed."""
    header = [line for line in FILES[name].read_text().splitlines() if line.startswith("#")]
    assert header[1].startswith(f"# python run.py experiment={name}")
    stated = re.search(r"# Costs (?:\d+ x )?(\d+) trainings", "\n".join(header))
    assert stated is not None
    wanted = [node for _, spec in points(name) for node in lottery.wanted(spec)]
    needed = [node for node in missing(wanted, lambda _: False) if isinstance(node, Training)]
    assert len(needed) == int(stated[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all, so that they share what they have in common."""
    return tmp_path_factory.mktemp("catalogue")


@pytest.mark.parametrize("name", FILES)
def test_every_experiment_runs_to_its_figures(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = folder / name
    jobs = points(name, "smoke=true", f"store={folder}/store")
    for number, (choices, spec) in enumerate(jobs):
        job = sweep / str(number)
        job.mkdir(parents=True)
        with RunFolder(job, {"overrides": [], "groups": choices}) as output:
            run(spec, output, lambda: False)
    found = collect([sweep])
    assert not found.problems
    assert found.levels["level"].max() <= 2
    out = folder / "figures" / name
    monkeypatch.setattr("sys.argv", ["analysis", "figures", str(sweep), "--out", str(out)])
    assert main() == 0
    drawn = {file.stem for file in out.glob("*.png")}
    assert {"time", DRAWN_AS.get(name, name)} <= drawn | NO_FIGURE
