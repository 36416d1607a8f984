"""What a run records, given to TensorBoard, MLflow or Weights & Biases as well.

    python -m lth.tracking RUN_FOLDER    follows a run, or passes on one that has ended

That is a process of its own, which reads the files of the run: a tracker that is slow, hangs or
breaks costs the run nothing. What it says is in tracker.log.
"""

import argparse
import csv
import json
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
from lth.store.locks import is_abandoned

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
WAIT_SECONDS = 30.0
"""How long a run that has ended waits for its tracker to have read all."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ROOT = Path(__file__).parents[1]
PACKAGES = ("tensorboard", "mlflow", "wandb")
"""Packages that the built-in trackers need; each tracker has the id of its package."""
OF_LEVELS = tuple(c for c in LEVEL_COLUMNS if c not in ("level", "cached", "training"))
OF_CURVES = Evaluation._fields[1:]
Points = Sequence[tuple[int, Mapping[str, float]]]
"""(step, numbers by name)."""


class Tracker(Protocol):
    """Made with the options of its YAML in conf/tracker/, then told of one run."""

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        """`settings`: those that decide results, by dotted name (`lth.experiment.settings.identity`)."""

    def log(self, axis: str, points: Points) -> None:
        """`axis`: what steps count, `level` or, for a level's curve, `iteration`."""

    def end(self, state: str) -> None:
        """The run has come to this state."""


class TensorBoard:
    """Event files in `folder`; by default in the run's own, for `tensorboard --logdir multirun`."""

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
    """One MLflow run in `experiment` at `uri`: a database file, or the address of a server."""

    BATCH = 1000
    """The most that one request may hold."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment

    def begin(self, folder: Path, settings: Mapping[str, object]) -> None:
        from filelock import FileLock
        from mlflow import MlflowClient
        from mlflow.entities import Param

        with FileLock(
            Path(tempfile.gettempdir()) / f"lth-mlflow-{os.getuid()}.lock"
        ):  # the first makes tables
            self._client = MlflowClient(self._uri)
            found = self._client.get_experiment_by_name(self._experiment)
            experiment = (
                found.experiment_id if found else self._client.create_experiment(self._experiment)
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
    """One run of Weights & Biases; `offline` writes to `folder`, for `wandb sync` later."""

    def __init__(self, project: str, mode: Literal["offline", "online"], folder: str) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"tracker.mode={mode}: offline or online")
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
    """As in 2026-11-21/17-30-16/3."""
    parts = folder.resolve().parts
    return "/".join(parts[parts.index("multirun") + 1 :] if "multirun" in parts else parts[-3:])


@contextmanager
def tracked(tracker: Target | None, folder: Path) -> Iterator[None]:
    """A tracker beside the run that is recorded in `folder`; none is none."""
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
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    with (folder / "tracker.log").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "lth.trackers", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C is not for it
        )


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    try:
        failed = process.wait(WAIT_SECONDS) != 0
    except subprocess.TimeoutExpired:
        failed = True
        process.kill()
        process.wait()
    if failed:
        again = f"python -m lth.tracking {folder}"
        log.warning("the tracker did not end well, see tracker.log; to repeat it: %s", again)


def follow(tracker: Tracker, folder: Path) -> None:
    """Pass on what there is of a run and what comes, until it has ended, or its process has."""
    tracker.begin(folder, _status(folder)["identity"])
    passed = set[tuple[str, str]]()
    done = -1
    while True:
        alone, status = is_abandoned(folder / "claim"), _status(folder)
        ended = alone or status["state"] != "running"
        if ended or status["done"] != done:
            done = status["done"]
            for axis, level, points in _points(folder):
                if (axis, level) not in passed:
                    tracker.log(axis, points)
                    passed.add((axis, level))
        if ended:
            break
        time.sleep(LOOK_SECONDS)
    tracker.end("killed" if status["state"] == "running" else status["state"])


def _points(folder: Path) -> Iterator[tuple[str, str, Points]]:
    """Axis, level and points of each level and of each level's curve that is recorded."""
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
    numbers = {name.format(column): float(row[column] or "nan") for column in columns}
    return {name: number for name, number in numbers.items() if not math.isnan(number)}


def _status(folder: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((folder / "run.json").read_bytes())
    return status


def check_tracker(tracker: Target | None) -> None:
    """Raise LotteryError unless what the tracker needs is installed, and its options are its."""
    if tracker is None:
        return
    package = tracker.name
    if package in PACKAGES and find_spec(package) is None:
        raise LotteryError(
            f"tracker={package}: {package} is not installed. pip install -e '.[{package}]', or "
            "tracker=none."
        )
    try:
        tracker()
    except (TypeError, ValueError) as error:
        raise LotteryError(f"tracker: {tracker.name} cannot be made ({error}).") from error


def main(folder: Path) -> None:
    """Follow the run in `folder` with the tracker of its settings."""
    if os.getsid(0) == os.getpid():  # beside a run: it ends when that has
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.nice(10)
    while "spec" not in _status(folder):
        if is_abandoned(folder / "claim"):
            return  # refused before it began
        time.sleep(LOOK_SECONDS)
    sys.path.insert(0, str(Path.cwd()))
    settings = _status(folder)["spec"].get("tracker")
    if settings is None:
        sys.exit(f"{folder}: it was run with tracker=none. Run it again with tracker=tensorboard, "
                 "mlflow or wandb: what is stored is not trained again.")  # fmt: skip
    follow(Target(**settings)(), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lth.tracking", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
