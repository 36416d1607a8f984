"""`analysis.load`: names and types of its columns are those of docs/analysis.md; filters."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pandas.api import types

import analysis
from analysis import collect, reading
from analysis.runs import Runs
from lth.errors import LotteryError
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS, RUN_COLUMNS
from tests.conftest import ROOT
from tests.test_analysis import write_run, write_sweep

PUBLISHED = ROOT / "multirun/reference/lenet_trials"
KINDS = {
    "integer": types.is_integer_dtype,
    "number": types.is_float_dtype,
    "truth": types.is_bool_dtype,
    "text": types.is_string_dtype,
}


@pytest.fixture(scope="module")
def runs() -> Runs:
    return analysis.load(PUBLISHED)


def documented(table: str) -> dict[str, str]:
    """Return the columns and types of a table in the documentation."""
    page = (ROOT / "docs/analysis.md").read_text()
    rows = page.partition(f"| `{table}` | type | meaning |\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for row in rows.splitlines()[1:]:
        names, kind = row.split("|")[1:3]
        found |= dict.fromkeys(re.findall(r"`([\w.]+)`", names), kind.strip())
    return found


def check(table: pd.DataFrame, expected: dict[str, str]) -> None:
    wrong = [name for name, kind in expected.items() if kind and not KINDS[kind](table[name])]
    assert not wrong


def test_columns_of_levels(runs: Runs) -> None:
    expected = documented("levels")
    expected.pop("optimizer.options.lr")
    check(runs.levels, expected)
    settings = set(next(iter(runs.identities.values())))
    own = {*LEVEL_COLUMNS, *RUN_COLUMNS, *expected, *settings}
    assert {n for n in runs.levels.columns if not n.startswith("density/")} == own


def test_columns_of_metrics(runs: Runs) -> None:
    metrics = runs.where(level=[0, 28]).metrics
    expected = documented("metrics")
    check(metrics, expected)
    assert {*metrics.columns} == {*METRIC_COLUMNS, *expected}


@pytest.mark.parametrize("interval", [False, True])
def test_columns_of_points(runs: Runs, *, interval: bool) -> None:
    points = runs.points("early_stop_iteration", interval=interval)
    expected = documented("points(quantity)")
    check(points, expected)
    assert {*points.columns} == {*expected}


def test_columns_of_paired_differences(runs: Runs) -> None:
    expected = documented("paired()")
    check(runs.paired(), expected)
    assert {*runs.paired().columns} == {*expected}


def test_filters_select_levels_probes_and_identities(runs: Runs) -> None:
    chosen = runs.where({"training.iterations": 50000}, seed=1, level=range(3))
    assert {*chosen.levels["seed"]} == {1}
    assert {*chosen.levels["level"]} == {0, 1, 2}
    assert {*chosen.identities} == {*chosen.levels["run"]}
    assert len(chosen.identities) == 2
    assert runs.where(seed=99).levels.empty
    assert runs.where(seed=99).metrics.empty


def test_a_wrong_name_of_a_column_suggests_the_right_one(runs: Runs) -> None:
    with pytest.raises(LotteryError, match=r"no column lr in levels; did you mean optimizer\.opt"):
        runs.where(lr=0.1)


def test_folders_without_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match="has no runs"):
        analysis.load(str(tmp_path))


def test_loading_needs_no_torch() -> None:
    code = f"import analysis, sys; analysis.load({str(PUBLISHED)!r}); print('torch' in sys.modules)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_only_runs_that_may_have_changed_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path)  # five finished runs, and one that is not
    collector = collect.Collector([tmp_path])
    before = collector.collect()
    read: list[str] = []

    def observed(run: Path, state: str, *, curves: bool) -> reading.Run:
        read.append(run.name)
        return reading.read_run(run, state, curves=curves)

    monkeypatch.setattr(collect, "read_run", observed)
    assert collector.collect().levels.equals(before.levels)
    assert read == ["5"]
    write_run(tmp_path / "6", seed=7)
    assert len(collector.collect().levels) == len(before.levels) + 3
    assert read == ["5", "5", "6"]
