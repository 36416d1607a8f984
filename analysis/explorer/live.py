"""The runs of some folders, kept up to date while sweeps run."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.collect import Collector
from analysis.runs import Runs
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
        self.runs = Runs(pd.DataFrame(), {}, {}, [])
        self.statuses: dict[Path, Status] = {}
        self.version = 0
        """Number of times that results have changed."""
        self._collector = Collector(folders, curves=False)  # a gigabyte of a thousand runs
        self._lock = threading.Lock()
        self._shown: object = None

    def refresh(self) -> int:
        """Read what has changed, and return the version of the results."""
        with self._lock:
            self.statuses = self._collector.statuses()
            shown = [(run, of["state"], of.get("done")) for run, of in self.statuses.items()]
            if shown != self._shown:  # else only iterations and times have changed
                self.runs = self._collector.merged(self.statuses)
                self._shown = shown
                self.version += 1
            return self.version

    def status(self, run: str) -> Status:
        """Return the status of a run; empty if it is not one of these."""
        return self.statuses.get(Path(run), {})

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
