"""Copy the records of a run to TensorBoard, MLflow or Weights & Biases.

    python -m lth.trackers RUN_FOLDER    follow a run, or copy one that has ended

This is a separate process that reads the files of the run: a tracker that is slow, hangs or fails
does not affect the run. Its output is in tracker.log.
"""

import argparse
import csv
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from lth.errors import LotteryError
from lth.experiment.results import Evaluation
from lth.experiment.targets import Target
from lth.runs.records import LEVEL_COLUMNS
from lth.runs.signals import SIGNALS
from lth.runs.status import read_status

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
WAIT_SECONDS = 30.0
"""How long a run that has ended waits for its tracker to finish."""
ROOT = Path(__file__).parents[1]
PACKAGES = ("tensorboard", "mlflow", "wandb")
"""Packages that the built-in trackers need; each tracker has the id of its package."""
OF_LEVELS = tuple(c for c in LEVEL_COLUMNS if c not in ("level", "cached", "training"))
OF_CURVES = Evaluation._fields[1:]
Points = Sequence[tuple[int, Mapping[str, float]]]
"""(step, values by name)."""


class Tracker(Protocol):
    """A tracker of one run, made with the options of its YAML in conf/tracker/."""

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        """Start. `settings`: the settings that decide results, by dotted name."""

    def log(self, axis: str, points: Points) -> None:
        """Record points. `axis`: the unit of steps, `level` or (curve of a level) `iteration`."""

    def end(self, state: str) -> None:
        """Finish. `state`: the state of the run, e.g. `finished`, `failed` or `killed`."""


class TensorBoard:
    """Event files in `folder`; by default in `tensorboard/` in the folder of the run."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        logs = Path(self._folder) / _name(folder) if self._folder else folder / "tensorboard"
        self._writer = cast(Any, SummaryWriter(str(logs)))
        texts = {name: str(value) for name, value in settings.items()}
        for summary in hparams(texts, {"level/early_stop_test_accuracy": 0.0}):
            self._writer.file_writer.add_summary(summary)

    def log(self, axis: str, points: Points) -> None:  # noqa: ARG002
        for step, values in points:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, state: str) -> None:
        self._writer.add_text("state", state)
        self._writer.close()


class MLflow:
    """An MLflow run in `experiment` at `uri`: a database file or the address of a server."""

    BATCH = 1000
    """The most metrics that one request may hold."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        from filelock import FileLock
        from mlflow import MlflowClient
        from mlflow.entities import Param

        lock = Path(tempfile.gettempdir()) / f"lth-mlflow-{os.getuid()}.lock"
        with FileLock(lock):  # the first client creates the tables, which fails when done twice
            self._client = client = MlflowClient(self._uri)
            found = client.get_experiment_by_name(self._experiment)
            experiment = (
                found.experiment_id if found else client.create_experiment(self._experiment)
            )
        self._run = self._client.create_run(experiment, run_name=_name(folder)).info.run_id
        parameters = [Param(name, str(value)) for name, value in settings.items()]
        for start in range(0, len(parameters), 100):
            self._client.log_batch(self._run, params=parameters[start : start + 100])

    def log(self, axis: str, points: Points) -> None:  # noqa: ARG002
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        metrics = [Metric(n, value, now, step) for step, v in points for n, value in v.items()]
        for start in range(0, len(metrics), self.BATCH):
            self._client.log_batch(self._run, metrics=metrics[start : start + self.BATCH])

    def end(self, state: str) -> None:
        known = {"finished": "FINISHED", "interrupted": "KILLED", "killed": "KILLED"}
        self._client.set_terminated(self._run, known.get(state, "FAILED"))


class WandB:
    """A run of Weights & Biases in `project`; `offline` writes to `folder`, for `wandb sync`."""

    def __init__(self, project: str, mode: Literal["offline", "online"], folder: str) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"mode must be offline or online, got {mode}")
        self._project, self._mode, self._folder = project, mode, Path(folder)

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=self._project,
            mode=self._mode,
            dir=self._folder,
            name=_name(folder),
            config=dict(settings),
        )
        self._axes = set[str]()

    def log(self, axis: str, points: Points) -> None:
        for step, values in points:
            for name in values.keys() - self._axes:
                self._run.define_metric(name, step_metric=axis)
            self._axes |= values.keys()
            self._run.log({axis: step, **values})

    def end(self, state: str) -> None:
        self._run.finish(exit_code=int(state != "finished"))


def _name(folder: Path) -> str:
    """Return the name of a run, e.g. 2026-11-21/17-30-16/3."""
    parts = folder.resolve().parts
    return "/".join(parts[parts.index("multirun") + 1 :] if "multirun" in parts else parts[-3:])


@contextmanager
def tracked(tracker: Target | None, folder: Path) -> Iterator[None]:
    """Run a tracker process beside the run that is recorded in `folder`. Does nothing if `tracker`
    is None."""
    if tracker is None:
        yield
        return
    try:
        process = _start(folder)
    except OSError:
        log.exception("the tracker could not be started")
        yield
        return
    try:
        yield
    finally:
        _wait(process, folder)


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the process of this module that follows the run in `folder`."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    with (folder / "tracker.log").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "lth.trackers", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C must not stop it
        )


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait until the tracker has ended; kill it after `WAIT_SECONDS`."""
    try:
        failed = process.wait(WAIT_SECONDS) != 0
    except subprocess.TimeoutExpired:
        failed = True
        process.kill()
        process.wait()
    if failed:
        again = f"python -m lth.trackers {folder}"
        log.warning("the tracker failed, see tracker.log; to run it again: %s", again)


def follow(tracker: Tracker, folder: Path) -> None:
    """Copy the records of a run to `tracker` until the run has ended."""
    tracker.begin(folder, read_status(folder)["identity"])
    passed = set[tuple[str, str]]()
    done = None
    while True:
        status = read_status(folder)
        ended = status["state"] != "running"
        if ended or status.get("done") != done:
            done = status.get("done")
            _pass_on(tracker, folder, passed)
        if ended:
            break
        time.sleep(POLL_SECONDS)
    tracker.end(status["state"])


def _pass_on(tracker: Tracker, folder: Path, passed: set[tuple[str, str]]) -> None:
    """Copy the levels and curves that are not in `passed`, and add them to it."""
    for axis, level, points in _points(folder):
        if (axis, level) not in passed:
            tracker.log(axis, points)
            passed.add((axis, level))


def _points(folder: Path) -> Iterator[tuple[str, str, Points]]:
    """Yield (axis, level, points) for each recorded level and for its curve."""
    for row in _rows(folder / "levels.csv"):
        yield "level", row["level"], [(int(row["level"]), _numbers(row, OF_LEVELS, "level/{}"))]
    curves: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
    for row in _rows(folder / "metrics.csv"):
        values = _numbers(row, OF_CURVES, "{}/level " + row["level"].zfill(2))
        curves.setdefault(row["level"], []).append((int(row["iteration"]), values))
    yield from (("iteration", level, curve) for level, curve in curves.items())


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(file.read_text().splitlines()))
    except FileNotFoundError:
        return []


def _numbers(row: Mapping[str, str], columns: Sequence[str], name: str) -> dict[str, float]:
    """Return the values of some columns that are not empty; `name` formats a column into a name."""
    numbers = {name.format(column): float(row[column] or "nan") for column in columns}
    return {name: number for name, number in numbers.items() if not math.isnan(number)}


def check_tracker(tracker: Target | None) -> None:
    """Raise LotteryError if the package of the tracker is not installed, or its options are wrong.
    Does nothing if `tracker` is None."""
    if tracker is None:
        return
    package = tracker.name
    if package in PACKAGES and find_spec(package) is None:
        raise LotteryError(
            f"tracker={package}: {package} is not installed. Install it (pip install -e "
            f"'.[{package}]'), or use tracker=none."
        )
    try:
        tracker()
    except (TypeError, ValueError) as error:
        raise LotteryError(
            f"tracker: {tracker.name} does not accept its options ({error}). Correct them; "
            "conf/tracker/ has the built-in ones."
        ) from error


def main(folder: Path) -> None:
    """Follow the run in `folder` with the tracker of its settings."""
    beside_a_run = os.getsid(0) == os.getpid()
    if beside_a_run:  # signals to the run must not end it early
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.nice(10)
    while "spec" not in (status := read_status(folder)):
        if status["state"] != "running":
            if beside_a_run:
                return  # the run was refused
            sys.exit(f"{folder}: no run is recorded here. Name the folder of a run.")
        time.sleep(POLL_SECONDS)
    sys.path.insert(0, str(Path.cwd()))
    settings = status["spec"].get("tracker")
    if settings is None:
        sys.exit(
            f"{folder}: this run has tracker=none. Run it again with tracker=tensorboard, mlflow "
            "or wandb; stored trainings are not repeated."
        )
    follow(Target(**settings)(), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lth.trackers", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
