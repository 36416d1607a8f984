"""Published runs: they are read like the runs themselves, and hide the machine."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.collect import collect
from analysis.publish import _is_private, _without_the_machine
from lth.audit.audit import Audit
from lth.runs.records import sealed
from lth.runs.status import find_runs
from tests.conftest import Composer

Published = tuple[Path, Path]


@pytest.fixture
def published(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Publish a sweep; return its folder and the published one."""
    out = tmp_path / "multirun/reference/tiny"
    assert _publish(monkeypatch, clean / "sweep", out) == 0
    return clean / "sweep", out


def _publish(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path) -> int:
    monkeypatch.setattr("sys.argv", ["analysis", "publish", str(folder), "--out", str(out)])
    return main()


def test_figures_and_claims_see_the_same(published: Published) -> None:
    own, theirs = (collect([folder]) for folder in published)
    assert not theirs.problems
    pd.testing.assert_frame_equal(own.levels.drop(columns="run"), theirs.levels.drop(columns="run"))
    curves = [runs.curves(runs.levels).drop(columns="run") for runs in (own, theirs)]
    pd.testing.assert_frame_equal(*curves)


def test_other_runs_are_not_added_to_a_publication(
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep, out = published
    assert _publish(monkeypatch, sweep, out) == 0  # the same runs again
    before = list(find_runs(out))
    other = tmp_path / "another"
    shutil.copytree(sweep, other)
    assert _publish(monkeypatch, other, out) == 1
    message = capsys.readouterr().err
    assert "must hold no other runs, and has" in message
    assert "Name another folder with --out." in message
    assert list(find_runs(out)) == before


def test_two_runs_are_never_written_to_one_folder(
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("one", "other"):
        shutil.copytree(clean / "sweep/0", tmp_path / name / "0")
    folders = [str(tmp_path / name / "0") for name in ("one", "other")]
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["analysis", "publish", *folders, "--out", str(out)])
    assert main() == 1
    assert f"would both be written to {out / '0'}" in capsys.readouterr().err
    assert not out.exists()


def test_the_audit_sees_tables_alone(published: Published) -> None:
    audit = Audit()
    runs = sorted(find_runs(published[1]))
    assert [found for run in runs for found in audit.of_run(run)] == []
    assert [*audit.notes] == ["not-published: there is no store, so no training was checked"]


def test_a_changed_table_shows(published: Published) -> None:
    run = next(find_runs(published[1]))
    table = run / "levels.csv"
    table.write_bytes(table.read_bytes().replace(b"12", b"13"))
    assert "levels.csv was changed" in "".join(found.what for found in Audit().of_run(run))


def test_nothing_identifies_the_machine(published: Published, clean: Path) -> None:
    files = [file for file in published[1].rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".csv"}
    for file in files:
        assert str(clean) not in file.read_text()
    status = json.loads(next(file for file in files if file.name == "run.json").read_bytes())
    assert status["host"] is None
    assert not any(word.startswith("store=") for word in status["overrides"])
    assert _is_private("+tracker.uri=http://user:secret@host")
    assert not _is_private("dataset.root_of_all=1")


def test_nothing_identifies_the_folder_of_a_source(composed: Composer) -> None:
    spec = dataclasses.asdict(composed("source=recipe", "dataset.root=/home/somebody"))
    published = _without_the_machine({"spec": spec, "overrides": [], "groups": {}})
    assert "somebody" in json.dumps(spec["source"])
    assert "somebody" not in json.dumps(published)


def test_published_runs_are_not_among_ones_own(published: Published, tmp_path: Path) -> None:
    assert len([*find_runs(published[1])]) == 4
    assert [*find_runs(tmp_path / "multirun")] == []


def test_an_interrupted_run_is_published_with_its_levels(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "sweep/0"
    shutil.copytree(clean / "sweep/0", run)
    status = json.loads((run / "run.json").read_bytes()) | {"state": "interrupted"}
    (run / "run.json").write_text(json.dumps(sealed(status)))
    assert _publish(monkeypatch, run.parent, tmp_path / "out") == 0
    (problem,) = collect([tmp_path / "out"]).problems
    assert "interrupted, with" in problem


def test_unfinished_runs_are_left_out(
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = json.loads((clean / "sweep/0/run.json").read_bytes())
    run = tmp_path / "sweep/0"
    run.mkdir(parents=True)
    status = {k: v for k, v in status.items() if k != "checksum"} | {"state": "failed"}
    (run / "run.json").write_text(json.dumps(status))
    assert _publish(monkeypatch, run.parent, tmp_path / "out") == 1
    assert "failed: run the same command again to finish it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
