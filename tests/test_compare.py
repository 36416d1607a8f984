"""Two runs compared: settings, origin, where curves part, results, and the exit code."""

from pathlib import Path

import pytest

from analysis.compare import compare
from lth.errors import LotteryError
from tests.conftest import ROOT
from tests.test_analysis import analysis, write_run

PUBLISHED = ROOT / "multirun/reference/lenet/iterative"


def change(run: Path, old: str, new: str, name: str = "metrics.csv") -> None:
    """Replace a part of a table of a run, where it stands first."""
    table = run / name
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new, 1))


def test_equal_runs_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "1"):
        write_run(tmp_path / name, seed=0)
    assert analysis(monkeypatch, "compare", tmp_path / "0", tmp_path / "1") == 0
    printed = capsys.readouterr().out
    assert "settings: equal" in printed
    assert "The curves are equal wherever both runs evaluated." in printed


def test_equal_settings_with_different_numbers_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0", seed=0)
    write_run(tmp_path / "1", seed=0, commit="abc")
    change(tmp_path / "1", "1,0.5,500,0.1,,1.0", "1,0.5,500,0.1,,1.25")
    assert analysis(monkeypatch, "compare", tmp_path / "0", tmp_path / "1") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "commit null abc" in printed
    assert "Level 1 is the first whose curves part: at iteration 500, val_loss is 1.0 and 1.25" in (
        printed
    )
    assert "Equal settings gave different numbers." in printed


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [("metrics.csv", "500,0.1,,1.0", "500,0.1,,nan"), ("levels.csv", "0.89,1.0", "0.5,1.0")],
)
def test_a_loss_that_diverged_and_a_result_are_differences(
    tmp_path: Path, table: str, old: str, new: str
) -> None:
    for name in ("0", "1"):
        write_run(tmp_path / name, seed=0)
    change(tmp_path / "1", old, new, table)
    assert compare(tmp_path / "0", tmp_path / "1").contradictory


def test_other_settings_may_give_other_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "0", seed=0)
    write_run(tmp_path / "1", seed=1, shift=0.1)
    assert analysis(monkeypatch, "compare", tmp_path / "0", tmp_path / "1") == 0
    found = compare(tmp_path / "0", tmp_path / "1")
    assert found.settings == [("seed", "0", "1")]
    assert not found.contradictory


def test_curves_part_at_the_first_iteration_of_any_column() -> None:
    found = compare(PUBLISHED / "0", PUBLISHED / "1")
    assert [name for name, *_ in found.settings] == ["rewind.survivors"]
    assert found.levels["parts_at"].isna().tolist() == [True] + [False] * 28  # one dense network
    assert found.levels.loc[1, ["column", "parts_at"]].tolist() == ["val_loss", 0]


def test_levels_in_common_are_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    write_run(tmp_path / "1", seed=0, levels=2)
    assert compare(tmp_path / "0", tmp_path / "1").levels["level"].tolist() == [0, 1]


def test_a_sweep_is_not_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    with pytest.raises(LotteryError, match="has 1 runs, and compare takes one run"):
        compare(tmp_path, tmp_path / "0")
