"""Every experiment of conf/experiment/, from its sweep to its CSVs and figures, in smoke form."""

import dataclasses
import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from analysis.__main__ import main
from analysis.collect import collect
from analysis.drawing import FigureWithData
from analysis.figures import FIGURES
from analysis.needs import Lacking
from analysis.runs import Runs
from analysis.weights import WEIGHT_FIGURES
from lth.engine.scheduler import missing
from lth.experiment import lottery
from lth.experiment.config import VERSION_BASE, from_config
from lth.experiment.nodes import Training
from lth.experiment.settings import Spec
from lth.experiment.smoke import for_smoke
from run import describe
from tests.conftest import ROOT, run_spec

FILES = {file.stem: file for file in sorted((ROOT / "conf/experiment").glob("*.yaml"))}
DRAWS = {
    "figure10": ["figure9"], "figure13": ["figure12"], "figure4_one_shot": ["figure4c"],
    "appendix_f": sorted(WEIGHT_FIGURES), "appendix_g_rate": ["figure4"],
    "appendix_g_init": ["settings"], "appendix_g_learning_rate": ["settings"],
    "appendix_g_momentum": ["settings"], "appendix_g_sgd": ["settings"],
    "appendix_g_size": ["settings"], "connectivity": ["connectivity"],
    "early_bird": ["arms"], "transfer": ["arms"], "sparse_training": ["arms"],
    "untrained": ["arms"], "less_data": ["data_share"],
    "late_rewinding": ["arms"], "pruning_at_init": ["arms"], "renda": ["arms"],
    "system_cli": ["figure7"], "system_gin": ["figure4"],
    "system_southampton": ["figure4", "arms"], "system_southampton_fast": ["figure4"],
    "system_theys96": ["arms"], "zhou_actions": ["arms"], "zhou_criteria": ["arms"],
}  # fmt: skip
"""Experiment -> the figures that together show each of its runs; else the one of its own name."""


def drawn(name: str) -> list[str]:
    """The figures that an experiment is meant for."""
    return DRAWS.get(name, [name])


@cache
def sweep(name: str) -> list[tuple[DictConfig, Spec]]:
    """The configuration and the Spec of each run of an experiment's sweep, at its first seed and
    draw, as Hydra's own sweeper would expand it."""
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        whole = compose("config", [f"experiment={name}"], return_hydra_config=True)
        params = whole.hydra.sweeper.params or {}
        parsed = OverridesParser.create().parse_overrides(
            [f"{key}={value}" for key, value in params.items() if key != "seed"]
        )
        grid = BasicSweeper.split_arguments(parsed, None)[0]
        return [_composed(name, tuple(words)) for words in grid]


def _composed(name: str, words: tuple[str, ...]) -> tuple[DictConfig, Spec]:
    """One run. YAML files are read once for each choice of groups; then values are set."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    groups = [each for each in parsed if (ROOT / "conf" / each.key_or_group).is_dir()]
    config = _choice(name, tuple(each.input_line or "" for each in groups)).copy()
    for each in parsed:
        if each not in groups:
            OmegaConf.update(config, each.key_or_group, each.value())
    ours = OmegaConf.masked_copy(config, sorted({*map(str, config)} - {"hydra"}))
    return config, from_config(ours)


@cache
def _choice(name: str, words: tuple[str, ...]) -> DictConfig:
    return compose("config", [f"experiment={name}", *words], return_hydra_config=True)


@pytest.mark.parametrize("name", FILES)
def test_the_header_states_the_command_and_the_cost(name: str) -> None:
    """`Costs SEEDS x N trainings`, where N is what the engine would have to make for one seed."""
    header = [line for line in FILES[name].read_text().splitlines() if line.startswith("#")]
    assert header[1].startswith(f"# python run.py experiment={name}")
    stated = re.search(r"# Costs (?:\d+ x )?(\d+) trainings", "\n".join(header))
    assert stated is not None
    nodes = [node for _, spec in sweep(name) for _, node in lottery.nodes(spec)]
    needed = [node for node in missing(nodes, lambda _: False) if isinstance(node, Training)]
    assert len(needed) == int(stated[1])


def test_the_figures_of_each_experiment_are_declared_and_exist() -> None:
    assert set(DRAWS) <= set(FILES)
    for name in FILES:
        assert set(drawn(name)) <= {*FIGURES, *WEIGHT_FIGURES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one store for all experiments, which share trainings."""
    return tmp_path_factory.mktemp("catalogue")


def narrow(spec: Spec) -> Spec:
    """The same network with an eighth of the channels and units, and ResNet with 8 layers."""
    options = {
        key: [max(4, size // 8) for size in value] if key in ("channels", "widths") else value
        for key, value in spec.model.options.items()
    }
    options |= {"depth": 8} if "depth" in options else {}
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, options=options))


def run_in_smoke_form(name: str, folder: Path) -> Path:
    """Make every run of an experiment and return the folder of its sweep."""
    jobs = folder / name
    for number, (config, spec) in enumerate(sweep(name)):
        if not (jobs / str(number)).exists():
            small = for_smoke(dataclasses.replace(narrow(spec), smoke=True))
            HydraConfig.instance().set_config(config)
            run_spec(
                dataclasses.replace(small, store=str(folder / "store")),
                jobs / str(number),
                describe=describe,
            )
    return jobs


def undrawn(name: str, jobs: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Draw the figures of an experiment, and return its runs of which they lack a training.

    Runs with the same trainings, such as draws of an arm that draws nothing, are shown once."""
    out = jobs.parent / "figures" / name
    words = ["figures", str(jobs), "--out", str(out), "--only", "time", *drawn(name)]
    monkeypatch.setattr("sys.argv", ["analysis", *words])
    exit_code = main()
    assert exit_code == any(not (out / f"{figure}.png").exists() for figure in drawn(name))
    trainings = {
        str(file.parent): set(pd.read_csv(file)["training"]) for file in jobs.glob("*/levels.csv")
    }
    shown = set[str]()
    for figure in drawn(name):
        for page in (*out.glob(f"{figure}.png"), *out.glob(f"{figure}-[0-9]*.png")):
            numbers = pd.read_csv(page.with_suffix(".csv"))
            column = numbers["runs" if "runs" in numbers else "run"]
            for run_folder in {each for cell in column.dropna() for each in cell.split(";")}:
                shown |= trainings[run_folder]
    return {each for each, needed in trainings.items() if not needed <= shown}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_run_of_an_experiment_is_in_the_figures_that_it_is_meant_for(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = run_in_smoke_form(name, folder)
    found = collect([jobs])
    assert not found.problems
    assert found.levels["level"].max() <= 2
    assert undrawn(name, jobs, monkeypatch) == set()


def test_a_figure_that_is_not_drawn_or_lacks_an_arm_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = run_in_smoke_form("figure3", folder)
    assert undrawn("figure3", jobs, monkeypatch) == set()
    draw = FIGURES["figure3"]

    def nothing(_: Runs) -> FigureWithData:
        raise Lacking("it needs nothing that there is")

    def without_reinit(runs: Runs) -> FigureWithData:
        kept = runs.levels[runs.levels["arm"] == "winning ticket"]
        return draw(dataclasses.replace(runs, levels=kept))

    monkeypatch.setitem(FIGURES, "figure3", without_reinit)
    assert undrawn("figure3", jobs, monkeypatch) == {str(jobs / "1")}
    monkeypatch.setitem(FIGURES, "figure3", nothing)
    (folder / "figures/figure3/figure3.png").unlink()
    assert undrawn("figure3", jobs, monkeypatch) == {str(jobs / "0"), str(jobs / "1")}
