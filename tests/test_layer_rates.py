"""The rate and the weights of each type of layer are recorded and shown."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from analysis.status import View, summary
from hydra_plugins.lth_launchers.plan import report
from lth.engine.checks import counted
from lth.engine.plan import plan
from lth.experiment.names import layers_of, layers_text
from lth.runs.status import read_statuses
from lth.store.store import Store
from tests.conftest import ROOT, TINY, Composer
from tests.test_analysis import write_run
from tests.test_status import printed

TEXT = "linear 20 % of 414 weights, output 10 % of 50"
"""The widths of TINY: 64 x 6 + 6 x 5 = 414 weights, and an output layer of 5 x 10."""


@pytest.mark.parametrize(("overrides", "text"), [
    ((), TEXT),
    (("pruning.output_rate=7.5",), "linear 20 % of 414 weights, output 7.5 % of 50"),
    (("pruning.rates=[5,20,50]",),
     "linear 5, 20, 50 % of 414 weights, output 2.5, 10, 25 % of 50"),
    (("pruning=one_shot", "pruning.scope=global"),
     "linear 20 % (all types together) of 414 weights, output 20 % (all types together) of 50"),
    (("pruning.levels=0",), TEXT),
])  # fmt: skip
def test_every_type_that_the_network_has_is_named(
    tiny: Composer, overrides: tuple[str, ...], text: str
) -> None:
    spec = tiny(*overrides)
    assert layers_text(layers_of(spec.pruning, counted(spec).types)) == text


def test_convolutions_and_shortcuts_are_counted(composed: Composer) -> None:
    types = counted(composed("preset=resnet18")).types
    # blocks that widen have 1x1 projections from 16 to 32, and from 32 to 64 channels
    assert types["shortcut"] == 16 * 32 + 32 * 64
    assert types["output"] == 64 * 10
    assert types.keys() == {"conv", "shortcut", "output"}


@pytest.mark.slow
def test_a_run_records_them_and_says_them_at_its_start_and_end(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "run.py"), *TINY, "hydra.run.dir=run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    status = json.loads((tmp_path / "run/run.json").read_bytes())
    assert status["layers"] == {
        "linear": {"weights": 414, "rate": "20 %"}, "output": {"weights": 50, "rate": "10 %"},
    }  # fmt: skip
    assert TEXT in (tmp_path / "run/run.log").read_text().splitlines()[0]
    assert TEXT in done.stdout


def test_the_progress_view_and_the_summary_name_each_combination_once(tmp_path: Path) -> None:
    for number, rate in enumerate(("20 %", "20 %", "10 %")):
        layers = {"linear": {"weights": 1414, "rate": rate}}
        write_run(tmp_path / f"{number}", seed=number, layers=layers)
    runs = read_statuses(tmp_path)
    view = View(tmp_path, 3)
    shown = io.StringIO()
    view.announce(runs, Console(file=shown, width=200))
    view.announce(runs, Console(file=shown, width=200))
    for text in (printed(summary(tmp_path, runs)), shown.getvalue()):
        assert text.count("linear 20 % of 1,414 weights") == 1
        assert text.count("linear 10 % of 1,414 weights") == 1
    write_run(tmp_path / "3", seed=3)  # all of its results were stored before
    summed = printed(summary(tmp_path, read_statuses(tmp_path)))
    assert summed.count("each level of the runs that trained removes linear") == 2


def test_a_plan_names_them(tiny: Composer, tmp_path: Path) -> None:
    made = plan({"seed=0": tiny}, Store(tmp_path))
    assert any(TEXT in line for line in report(made, 0.0, None, "store", jobs=1))
