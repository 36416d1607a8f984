"""Trackers get the values of the CSVs, and cannot affect a run."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lth import trackers
from lth.errors import LotteryError
from lth.experiment.targets import Target
from tests.conftest import ROOT, TINY

CURVE = "val_accuracy/level 02"
LEVEL = "level/early_stop_test_accuracy"


class Recorder:
    """Write all that it gets to a file in the folder of the run."""

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._file = (folder / "recorded.txt").open("w")
        print(settings["pruning.rate"], file=self._file)

    def log(self, axis: str, points: trackers.Points) -> None:
        for step, values in points:
            print(axis, step, *values, file=self._file)

    def end(self, state: str) -> None:
        print(state, file=self._file)
        self._file.close()


class Broken(Recorder):
    def log(self, axis: str, points: trackers.Points) -> None:  # noqa: ARG002
        raise OSError("the server is gone")


class Hanging(Recorder):
    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:  # noqa: ARG002
        signal.pause()


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, str(ROOT / "run.py"), *TINY, "hydra.run.dir=run", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def curve(folder: Path) -> dict[int, Any]:
    """Return the validation accuracy of level 2 by iteration."""
    with (folder / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["level"] == "2"]
    return {int(row["iteration"]): pytest.approx(float(row["val_accuracy"])) for row in rows}


def accuracies(folder: Path) -> dict[int, Any]:
    """Return the test accuracy at the early stop by level."""
    with (folder / "run" / "levels.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {int(r["level"]): pytest.approx(float(r["early_stop_test_accuracy"])) for r in rows}


@pytest.mark.slow
def test_a_user_tracker_gets_all_points_and_the_final_state(tmp_path: Path) -> None:
    done = run(tmp_path, "+tracker._target_=tests.test_trackers.Recorder")
    assert done.returncode == 0, done.stdout + done.stderr
    rate, *lines, state = (tmp_path / "run" / "recorded.txt").read_text().splitlines()
    assert (rate, state) == ("20", "finished")
    assert len(lines) == 4 + 4 * 4  # levels, and evaluations at 0, 5, 10 and 12 of each
    assert [line.split()[:2] for line in lines if line.startswith("level")] == [
        ["level", str(level)] for level in range(4)
    ]


@pytest.mark.slow
def test_a_failing_tracker_does_not_affect_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "+tracker._target_=tests.test_trackers.Broken")
    assert done.returncode == 0
    assert "the server is gone" in (tmp_path / "run" / "tracker.log").read_text()
    assert "the tracker failed, see tracker.log" in (tmp_path / "run" / "run.log").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_hanging_tracker_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "WAIT_SECONDS", 0.1)
    tracker = Target("tests.test_trackers.Hanging", {}, None)
    settings = {"tracker": dataclasses.asdict(tracker)}
    status = {"state": "running", "spec": settings, "identity": {}}
    (tmp_path / "run.json").write_text(json.dumps(status))
    with trackers.tracked(tracker, tmp_path):
        pass


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(
        LotteryError, match=r"mlflow is not installed\. Install it \(pip install -e '.\[mlflow\]'\)"
    ):
        trackers.check_tracker(Target("mlflow", {}, None))
    trackers.check_tracker(None)


@pytest.mark.slow
def test_tensorboard_holds_what_the_csvs_hold(tmp_path: Path) -> None:
    assert run(tmp_path, "tracker=tensorboard").returncode == 0
    read = """if True:
        import json, sys
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        events = EventAccumulator(sys.argv[1]).Reload()
        print(json.dumps({t: {e.step: e.value for e in events.Scalars(t)} for t in sys.argv[2:]}))
    """
    words = [sys.executable, "-c", read, str(tmp_path / "run" / "tensorboard"), CURVE, LEVEL]
    recorded = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert {int(step): value for step, value in recorded[CURVE].items()} == curve(tmp_path)
    assert {int(step): value for step, value in recorded[LEVEL].items()} == accuracies(tmp_path)


@pytest.mark.slow
def test_mlflow_holds_what_the_csvs_hold(tmp_path: Path) -> None:
    assert run(tmp_path, "tracker=mlflow").returncode == 0
    read = """if True:
        import json, sys
        from mlflow import MlflowClient
        client = MlflowClient("sqlite:///multirun/mlflow.db")
        (run,) = client.search_runs([client.get_experiment_by_name("lth").experiment_id])
        recorded = {n: client.get_metric_history(run.info.run_id, n) for n in sys.argv[1:]}
        points = {n: {m.step: m.value for m in metrics} for n, metrics in recorded.items()}
        print(json.dumps([run.info.status, run.data.params["pruning.rate"], points]))
    """
    words = [sys.executable, "-c", read, CURVE, LEVEL]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    status, rate, recorded = json.loads(done.stdout)
    assert (status, rate) == ("FINISHED", "20")
    assert {int(step): value for step, value in recorded[CURVE].items()} == curve(tmp_path)
    assert {int(step): value for step, value in recorded[LEVEL].items()} == accuracies(tmp_path)


@pytest.mark.slow
def test_wandb_holds_the_names_and_works_without_network(tmp_path: Path) -> None:
    assert run(tmp_path, "tracker=wandb").returncode == 0
    (file,) = tmp_path.glob("multirun/wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert CURVE.encode() in content
    assert LEVEL.encode() in content
