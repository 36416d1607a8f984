"""The state of runs on a terminal, and the summary at their end."""

import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from analysis.__main__ import main
from analysis.collect import collect
from analysis.status import View, overview, position, summary
from analysis.tables import level_tables, tables_of
from lth.runs.status import read_statuses
from lth.store.locks import Locks
from tests.test_analysis import write_run, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_sweep(tmp_path)
    return tmp_path


def printed(*things: RenderableType) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(*things)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.skipif(os.geteuid() != 0, reason="reading as somebody else needs root")
def test_a_folder_that_cannot_be_read_is_reported() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in (0, 1):
            write_run(folder / f"{seed}", seed=seed)
        folder.chmod(0o755)
        (folder / "1").chmod(0)
        try:
            os.seteuid(65534)
            runs, (picture, states) = collect([folder]), overview([folder])
        finally:
            os.seteuid(0)
    assert runs.levels["run"].nunique() == 1
    assert any(problem.startswith(f"{folder / '1'}: left out") for problem in runs.problems)
    assert states == {"finished", "unreadable"}
    assert "1 (): unreadable" in printed(picture)


def test_a_run_of_older_code_shows_its_place() -> None:
    older = {"state": "running", "level": 3, "levels": 28, "iteration": 100,
             "spec": {"training": {"iterations": 5000}}}  # fmt: skip
    assert position(older).startswith("level 3 of 28, iteration 100 of 5,000")
    assert "iteration 100 of 9,000" in position(older | {"iterations": 9000})


def test_a_summary_lists_every_failure_with_its_reason(sweep: Path) -> None:
    write_run(sweep / "7", seed=7, state="failed", error="pruning.rate=[0]: more than 0")
    text = printed(summary(sweep, read_statuses(sweep), tables_of(sweep)))
    assert "93.00±4.50" in text
    assert (
        "1 failed, 5 finished, 1 killed" in text
    )  # run.json says running, but no process holds the lock
    assert "killed: run the same command again" in text
    assert "93.00±4.50" not in printed(summary(sweep, read_statuses(sweep)))
    assert "failed 7 (seed=7): pruning.rate=[0]: more than 0" in text


def test_a_summary_of_runs_without_a_level_names_no_tables(tmp_path: Path) -> None:
    reason = "the loss is not finite"
    write_run(tmp_path / "0", seed=0, state="failed", error=reason, done=0, trained=0)
    assert printed(summary(tmp_path, read_statuses(tmp_path))).splitlines() == [
        "runs: 1 failed.", f"failed 0 (seed=0): {reason} {tmp_path}/0/run.log"
    ]  # fmt: skip


@pytest.mark.parametrize(("trained", "words"), [
    (3, "3 networks trained for the 3 levels reported."),
    (0, "0 networks trained for the 3 levels reported; all were shared, or in the store before."),
    (2, "2 networks trained for the 3 levels reported; the others were shared, or in the store "
        "before."),
])  # fmt: skip
def test_a_summary_says_of_levels_that_were_not_trained_where_they_are_from(
    tmp_path: Path, trained: int, words: str
) -> None:
    write_run(tmp_path / "0", seed=0, trained=trained)
    assert printed(summary(tmp_path, read_statuses(tmp_path))).splitlines()[0] == (
        f"runs: 1 finished. {words}"
    )


def test_the_terminal_table_says_which_networks_learnt_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    assert "learnt nothing" not in printed(*tables_of(tmp_path))
    file = tmp_path / "0/levels.csv"
    file.write_text(file.read_text().replace(",100,", ",0,"))
    words = " ".join(printed(*tables_of(tmp_path)).split())
    assert "a stop at the first iteration: the validation loss never fell" in words


def test_status_shows_the_state_of_every_sweep(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(sweep / "7", seed=7, state="failed", error="pruning.rate must be in (0, 100), got 0")
    monkeypatch.setattr("sys.argv", ["analysis", "status", str(sweep)])
    assert main() == 1
    shown = capsys.readouterr().out
    assert f"{sweep}: 1 failed, 5 finished, 1 killed" in shown
    assert "7 (seed=7): failed, pruning.rate must be in (0, 100), got 0" in shown
    assert "0 (seed=0)" not in shown
    monkeypatch.setattr("sys.argv", ["analysis", "status", str(sweep / "0"), "--watch"])
    assert main() == 0


def test_a_run_whose_lock_is_held_is_running(sweep: Path) -> None:
    lock = Locks(sweep / "5").acquire("lock")
    assert lock is not None
    states = {path.name: status["state"] for path, status in read_statuses(sweep)}
    assert states["5"] == "running"
    (sweep / "5" / "lock").unlink()
    states = {path.name: status["state"] for path, status in read_statuses(sweep)}
    assert states["5"] == "killed"


def test_the_terminal_table_shows_mean_and_half_range(sweep: Path) -> None:
    text = printed(*level_tables(collect([sweep]).levels))
    assert "94.00±4.50" in text
    assert text.index("winning") < text.index("random")
    assert "random reinit 50 % 2 to 3" in text


def test_runs_of_an_earlier_command_count_once_they_start_again(sweep: Path) -> None:
    assert Locks(sweep / "5").acquire("lock") is not None
    view = View(sweep, 6)
    assert [path.name for path, _ in view.runs()] == ["5"]
    status = json.loads((sweep / "0" / "run.json").read_text())
    (sweep / "0" / "run.json").write_text(json.dumps(status | {"started": 1.0}))
    assert [path.name for path, _ in view.runs()] == ["0", "5"]


def test_no_line_of_progress_is_printed_before_a_run_has_started(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = View(tmp_path, 1)
    view.log([])
    assert capsys.readouterr().out == ""
    view.note = "1 job is pending"
    view.log([])
    assert "1 job is pending" in capsys.readouterr().out
    view.note = ""
    view.log(read_statuses(sweep))
    assert "runs: " in capsys.readouterr().out
