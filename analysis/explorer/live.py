"""The runs of some folders, kept up to date while sweeps run."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.collect import NO_LEVELS, Collector
from analysis.reading import METRICS, UNUSABLE, check_tables
from analysis.runs import Runs
from analysis.status import position
from lth.runs.status import Status

LOG_BYTES = 100_000
"""The end of a log that is shown."""
LOG = "run.log"


class Live:
    """The runs at or below some folders. `refresh` reads what has changed.

    Several threads of the server may use it. Only files of these runs are read, and a page names a
    run by a folder that was found here.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self.runs = Runs(NO_LEVELS, {}, {}, [])
        self.statuses: dict[Path, Status] = {}
        self.version = time.time_ns() // 1_000_000  # a browser rounds numbers above 2^53
        """Grows when results change; a page that an earlier server made has a smaller one."""
        self._collector = Collector(folders, curves=False)  # a gigabyte of a thousand runs
        self._lock = threading.Lock()
        self._shown: object = None

    def refresh(self) -> int:
        """Read what has changed, unless another thread does, and return the version of the
        results."""
        if not self._lock.acquire(blocking=False):
            return self.version
        try:
            found = self._collector.statuses()
            self.statuses = {run: _usable(status) for run, status in found.items()}
            shown = [(run, *_results_of(status)) for run, status in self.statuses.items()]
            if shown != self._shown or self._collector.unread:
                self.runs = self._collector.merged(self.statuses)
                self._shown = shown
                self.version += 1
        finally:
            self._lock.release()
        return self.version

    def status(self, run: str) -> Status:
        """Return the status of a run; empty if it is not one of these."""
        return self.statuses.get(Path(run), {})

    def fault(self, run: str) -> str:
        """Return why the curves of a run cannot be used; empty if they can."""
        status = self.status(run)
        try:
            check_tables(Path(run), status, status["state"])
            return "" if (Path(run) / METRICS).exists() else f"no {METRICS} yet"
        except UNUSABLE as error:
            return str(error)

    def log(self, run: str) -> str:
        """Return the end of the log of a run."""
        if not self.status(run) or (Path(run) / LOG).is_symlink():
            return ""
        try:
            with (Path(run) / LOG).open("rb") as file:
                file.seek(0, 2)
                file.seek(max(file.tell() - LOG_BYTES, 0))
                return file.read().decode(errors="replace")
        except OSError as error:
            return f"the log cannot be read: {error.strerror}"


def _usable(status: Status) -> Status:
    """Return a status that has what the page shows; that of a foreign run.json has only a state."""
    try:
        " ".join(status.get("overrides", []))
        position(status)
        return status
    except UNUSABLE:
        return {"state": "unreadable"}


def _results_of(status: Status) -> tuple[Any, ...]:
    """Return what changes when a run has other results. While it is running, run.json changes with
    every iteration."""
    finished = status["state"] == "finished"
    return status["state"], status.get("started"), status.get("checksum" if finished else "done")
