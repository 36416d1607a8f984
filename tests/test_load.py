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
from tests.test_probe_figures import COST, write_probe

PUBLISHED = ROOT / "multirun/reference/lenet/iterative"
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
    with pytest.raises(LotteryError, match=r"no column final_acuracy in .* mean final_.*acc"):
        runs.points("final_acuracy")


def test_folders_without_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match="has no runs"):
        analysis.load(str(tmp_path))


def test_a_sweep_without_a_level_has_empty_tables(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0/run.json").write_text('{"state": "failed", "overrides": []}')
    runs = analysis.load(tmp_path)
    assert [len(of) for of in (runs.levels, runs.metrics, runs.where(seed=0).levels)] == [0, 0, 0]
    assert runs.points("early_stop_iteration").empty
    assert runs.paired().empty
    assert "left out" in runs.problems[0]


def test_missing_values_and_lists_can_be_asked_for(runs: Runs) -> None:
    assert len(runs.where({"model.options.widths": [300, 100]}).levels) == len(runs.levels)
    assert len(runs.where({"pruning.rates": None}).levels) == len(runs.levels)
    assert runs.where({"model.options.widths": [300]}).levels.empty


def test_rows_of_probes_stay_with_their_levels_whichever_run_was_kept(tmp_path: Path) -> None:
    for name, started in (("0", 2.0), ("1", 1.0)):  # the first is the newer
        write_run(tmp_path / name, seed=0, started=started)
        write_probe(tmp_path / name, "flops", COST, [[0, 1.0, 10.0, 1.0], [1, 0.5, 5.0, 2.0]])
    rows = analysis.load(tmp_path).where(seed=0, level=1).probes["flops"]
    assert rows["flops"].tolist() == [5.0]


def test_a_bad_cell_leaves_out_its_run_alone(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    table = tmp_path / "0/levels.csv"
    table.write_text(table.read_text().replace(",200,", ",abc,"))
    runs = analysis.load(tmp_path)
    assert "early_stop_iteration must be a number, got abc" in " ".join(runs.problems)
    assert len(runs.levels) == 14
    table.write_text("")
    assert "levels.csv has no column level" in " ".join(analysis.load(tmp_path).problems)


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
