"""The folder of one run: its CSVs, and run.json with its settings, its state and its progress."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lth.errors import Interrupted, LotteryError
from lth.experiment.node import FORMAT, Stored
from lth.experiment.nodes import Measurement
from lth.experiment.recipe import with_neutral_options
from lth.experiment.results import Row, to_csv
from lth.runs.records import (
    METRIC_COLUMNS,
    PROBE_COLUMNS,
    level_row,
    metric_rows,
    names_of,
    probe_rows,
    sealed,
)
from lth.runs.status import read_status
from lth.store.files import checksum, read, write_atomically, writing
from lth.store.locks import STALE_AFTER, TOUCH_EVERY, Lock, Locks, holder_of, is_held_here
from lth.store.provenance import provenance

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
NOTHING_YET: dict[str, Any] = {"done": 0, "trained": 0, "damaged": []}


class RunFolder:
    """A context manager that writes the files of one run, each atomically. While it is open, no
    other process can use the folder. At the end, the state in run.json is `finished`,
    `interrupted`, or `failed` with the reason (the traceback is in run.log).

    `status`: the content of run.json. CSVs that are already in the folder are deleted.
    """

    def __init__(self, path: Path, status: dict[str, Any]) -> None:
        self.path = path
        self.status = {"format": FORMAT, **status}
        self._levels: dict[int, Row] = {}
        self._metrics: dict[int, list[Row]] = {}
        self._measured: dict[tuple[int, Stored], list[Row]] = {}
        self._probe: Measurement | None = None

    def __enter__(self) -> "RunFolder":
        self._lock = self._acquire()
        try:
            earlier = check_overwriting(self.path, self.status)
        except LotteryError:
            self._lock.__exit__()
            raise
        self._lock.__enter__()
        for table in earlier.get("tables", ()):
            (self.path / table).unlink(missing_ok=True)
        self.update(state="running", started=time.time(), **NOTHING_YET, **provenance())
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        try:
            self._conclude(error)
        finally:
            self._lock.__exit__()
        if isinstance(error, Exception) and not isinstance(error, LotteryError | Interrupted):
            raise LotteryError(self.status["error"]) from error  # one that can be pickled

    def _acquire(self) -> Lock:
        """Return the lock on the folder. If a process on another host holds it, wait until it would
        be stale. Raises LotteryError if the folder is still in use."""
        locks, deadline = Locks(self.path), time.monotonic() + STALE_AFTER + TOUCH_EVERY
        while True:
            with writing(str(self.path)):
                lock = locks.acquire("lock")
            if lock is not None:
                return lock
            file = self.path / "lock"
            if is_held_here(file) or time.monotonic() > deadline:
                raise LotteryError(
                    f"{self.path} is in use: {holder_of(file)} writes its run there. Wait for it, "
                    "or start again: each start gets a new folder."
                )
            log.warning("waiting for the lock on this folder, held by %s", holder_of(file))
            time.sleep(WAIT_SECONDS)

    def _conclude(self, error: BaseException | None) -> None:
        self.status |= {"done": len(self._levels), "finished": time.time()}
        if error is None:
            self.status["state"] = "finished"
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.status["state"] = "interrupted"
        else:
            log.error("the run failed", exc_info=error)
            known = isinstance(error, LotteryError)
            self.status["error"] = str(error) if known else f"{type(error).__name__}: {error}"
            self.status["state"] = "failed"
        for name in ("left", "pace"):  # of the training in progress, for the estimate of time
            self.status.pop(name, None)
        try:
            if self._levels:
                self.write_tables()
            self.update()
        except LotteryError:
            if error is None:
                raise
            log.exception("the end of the run could not be recorded")

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - any JSON value
        """Change the status and write run.json."""
        self.status |= changes | {"updated": time.time()}
        self._write("run.json", json.dumps(sealed(self.status), indent=1).encode())

    def add(self, level: int, node: Stored, results: Any, *, cached: bool) -> None:  # noqa: ANN401
        """Record the results of a level's training, or of a measurement on a recorded level. Tables
        are written at once, or at the end of the run if the results were `cached` in the store."""
        if isinstance(node, Measurement):
            self._probe = node
            self._measured[level, node] = results
        else:
            names = names_of(self.status)
            self._levels[level] = level_row(level, node.digest, results, cached=cached, names=names)
            self._metrics[level] = metric_rows(level, results)
        if not cached:
            self.write_tables()
            self.update(done=len(self._levels))

    def write_tables(self) -> None:
        """Write the CSVs of the levels recorded so far, in order."""
        levels = [self._levels[level] for level in sorted(self._levels)]
        tables = {
            "levels.csv": to_csv(levels, list(levels[0])),
            "metrics.csv": to_csv(_in_order(self._metrics), METRIC_COLUMNS),
        }
        if self._probe is not None:
            columns = (*PROBE_COLUMNS, *self._probe.columns)
            tables[f"{self._probe.table}.csv"] = to_csv(self._probe_rows(), columns)
        for name, content in tables.items():
            self._write(name, content)
        self.status["tables"] = {name: checksum(content) for name, content in tables.items()}

    def _probe_rows(self) -> list[Row]:
        """Return the rows of all measurements on levels that are there, in order of level."""
        measured = sorted(self._measured.items(), key=lambda item: item[0][0])
        return [
            row
            for (level, _), rows in measured
            if level in self._levels
            for row in probe_rows(level, self._levels[level]["density"], rows)
        ]

    def _write(self, name: str, content: bytes) -> None:
        with writing(str(self.path)):
            write_atomically(self.path / name, content, durable=False)  # the store is durable


def check_overwriting(path: Path, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of run.json of an earlier run in a folder. Raises LotteryError if it has
    finished and its settings are not those of the run that `status` describes, or if it cannot be
    read now."""
    read(path / "run.json")
    earlier = read_status(path)
    there, here = (with_neutral_options(s.get("identity", {})) for s in (earlier, _as_json(status)))
    if earlier["state"] == "finished" and there != here:
        name = min(name for name in {**there, **here} if there.get(name) != here.get(name))
        raise LotteryError(
            f"{path} holds a finished run with other settings ({name} is {there.get(name)} there, "
            f"{here.get(name)} here), which would be overwritten. Name another folder "
            "(hydra.run.dir=FOLDER or hydra.sweep.dir=FOLDER), or delete this one."
        )
    return earlier


def _as_json(status: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    return json.loads(json.dumps(status))


def _in_order(rows: Mapping[int, list[Row]]) -> list[Row]:
    return [row for level in sorted(rows) for row in rows[level]]
