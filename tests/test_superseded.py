"""Attempts that were completed later are silent, and can be removed; nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.collect import collect
from analysis.status import overview
from lth.store.locks import Locks
from tests.test_analysis import analysis, write_run
from tests.test_status import printed

Attempt = Callable[..., Path]


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """Write a run that ended at second `ended`, `levels` being its last level."""

    def write(name: str, ended: float, *, state: str, levels: int = 2, **options: Any) -> Path:  # noqa: ANN401
        folder = tmp_path / name
        own: dict[str, Any] = {"started": ended - 0.5, "finished": ended, "spec": {"probe": None}}
        write_run(folder, seed=0, state=state, **(own | options))
        status = json.loads((folder / "run.json").read_bytes()) | {"levels": levels}
        (folder / "run.json").write_text(json.dumps(status))
        return folder

    return write


def without_results(run: Path) -> Path:
    for name in ("levels.csv", "metrics.csv"):
        (run / name).unlink()
    return run


def noted(folder: Path) -> list[str]:
    return [problem.partition(":")[0] for problem in collect([folder]).problems]


@pytest.mark.parametrize("state", ["interrupted", "failed", "running"])  # running: was killed
def test_an_attempt_that_a_later_run_completed_is_silent(
    attempt: Attempt, tmp_path: Path, state: str
) -> None:
    first = attempt("a/0", 1, state=state)
    without_results(attempt("a/1", 1, state=state))
    assert len(noted(tmp_path)) == 2
    attempt("b/0", 2, state="finished", levels=3)
    assert noted(tmp_path) == []
    picture, states = overview([tmp_path])
    assert states == {"finished"}
    assert "a" not in printed(picture).replace(str(tmp_path), "").split(":")[0]
    assert noted(first) == [str(first)]


@pytest.mark.parametrize("later", [
    {"state": "finished", "levels": 1}, {"state": "interrupted"}, {"state": "finished", "ended": 0},
    {"state": "finished", "settings": {"optimizer.options.lr": 0.2}},
    {"state": "finished", "spec": {"probe": {"name": "connectivity"}}},
])  # fmt: skip
def test_an_attempt_that_nothing_completed_is_still_noted(
    attempt: Attempt, tmp_path: Path, later: dict[str, Any]
) -> None:
    first = attempt("a", 1, state="interrupted")
    attempt("b", **{"ended": 2, **later})
    assert str(first) in noted(tmp_path)
    assert "interrupted" in overview([tmp_path])[1]


def cleared(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    assert analysis(monkeypatch, "status", folder, "--clear", *words) == 0


def test_clear_removes_what_has_no_results_or_was_completed_and_nothing_else(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"settings": {"optimizer.options.lr": 0.2}}
    kept = [
        attempt("day/b/0", 2, state="finished"),
        attempt("day/c/0", 1, state="interrupted", **other),  # has results
        without_results(attempt("day/d/0", 1, state="running", **other)),
        without_results(attempt("day/e/0", 1, state="failed", **other)),
    ]
    lock = Locks(kept[2]).acquire("lock")
    assert lock is not None
    (kept[3] / "notes.txt").write_text("a user's own")
    gone = [
        attempt("day/a/0", 1, state="interrupted"),
        without_results(attempt("day/a/1", 1, state="failed", **other)),
        without_results(attempt("day/f", 1, state="running", **other)),  # was killed
    ]
    (tmp_path / "day/a/multirun.yaml").touch()
    (gone[0] / ".hydra").mkdir()
    for name in (".hydra/config.yaml", "run.log", "tracker.log"):
        (gone[0] / name).touch()
    cleared(monkeypatch, tmp_path, "--yes")
    assert [run.exists() for run in kept] == [True] * 4
    assert sorted(path.name for path in (tmp_path / "day").iterdir()) == ["b", "c", "d", "e"]
    assert (kept[3] / "notes.txt").exists()
    assert (kept[3] / "run.json").exists()


def test_clear_asks_first(
    attempt: Attempt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = without_results(attempt("a", 1, state="failed"))
    cleared(monkeypatch, tmp_path)
    assert "--yes" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    cleared(monkeypatch, tmp_path)
    assert run.exists()
    monkeypatch.setattr("builtins.input", lambda _: "y")
    cleared(monkeypatch, tmp_path)
    assert not run.exists()
    cleared(monkeypatch, tmp_path)
    assert "nothing to remove" in capsys.readouterr().out
