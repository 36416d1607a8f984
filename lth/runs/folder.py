"""The folder of one run: its CSVs, and run.json with what it is, its state and how far it has come.

A context manager: while it is open nobody else can use the folder, and however it is left, run.json
says how: `finished`, `interrupted`, or `failed` with the reason (and the traceback in run.log).
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from lth.errors import Interrupted, LotteryError
from lth.experiment.results import Outcome, Point, Row, to_csv
from lth.runs.records import LINE_COLUMNS, METRIC_COLUMNS, level_row, line_rows, metric_rows, sealed
from lth.store.files import checksum, write_atomically, writing
from lth.store.locks import STALE_AFTER, TOUCH_EVERY, Lock, Locks, holder_of, is_held_here
from lth.store.provenance import provenance

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
NOTHING_YET: dict[str, Any] = {"done": 0, "trained": 0, "damaged": []}
TABLES = ("levels.csv", "metrics.csv", "connectivity.csv")
State = Literal["running", "finished", "failed", "interrupted"]


class RunFolder:
    """The files of one run, each always whole. `status` is what run.json holds."""

    def __init__(self, path: Path, status: dict[str, Any]) -> None:
        self.path = path
        self.status = status
        self._levels: dict[int, Row] = {}
        self._metrics: dict[int, list[Row]] = {}
        self._lines: dict[int, list[Row]] = {}

    def __enter__(self) -> "RunFolder":
        self._claim = self._acquire()
        self._claim.__enter__()
        for name in TABLES:  # of an earlier run in the same folder
            (self.path / name).unlink(missing_ok=True)
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
            self._claim.__exit__()
        if isinstance(error, Exception) and not isinstance(error, LotteryError | Interrupted):
            raise LotteryError(self.status["error"]) from error  # one that can be pickled

    def _acquire(self) -> Lock:
        """The claim on the folder. One of a process elsewhere may be left over: it gets the time
        after which it is stale."""
        claims, patience = Locks(self.path), time.monotonic() + STALE_AFTER + TOUCH_EVERY
        while True:
            with writing(str(self.path)):
                claim = claims.acquire("lock")
            if claim is not None:
                return claim
            file = self.path / "lock"
            if is_held_here(file) or time.monotonic() > patience:
                raise LotteryError(
                    f"{self.path}: {holder_of(file)} is writing its run there. Wait for it, or "
                    "start again: another second is another folder."
                )
            log.warning("waiting for %s, if it still lives, to finish here", holder_of(file))
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

    def add(self, level: int, digest: str, outcome: Outcome, *, cached: bool) -> None:
        """Record a level; the tables are written anew where it has taken time to get it."""
        self._levels[level] = level_row(level, digest, outcome, cached=cached)
        self._metrics[level] = metric_rows(level, outcome)
        if not cached:
            self.write_tables()
            self.update(done=len(self._levels))

    def add_line(self, level: int, iteration: int, line: Iterable[Point], *, cached: bool) -> None:
        """Record the line of a level that is there, whose ends parted at `iteration`."""
        density = self._levels[level]["density"]
        self._lines[level] = line_rows(level, density, iteration, line)
        if not cached:
            self.write_tables()
            self.update()

    def write_tables(self) -> None:
        """The CSVs of the levels that are there, in order."""
        levels = [self._levels[level] for level in sorted(self._levels)]
        tables = {
            "levels.csv": to_csv(levels, list(levels[0])),
            "metrics.csv": to_csv(_in_order(self._metrics), METRIC_COLUMNS),
        }
        if self._lines:
            tables["connectivity.csv"] = to_csv(_in_order(self._lines), LINE_COLUMNS)
        for name, content in tables.items():
            self._write(name, content)
        self.status["tables"] = {name: checksum(content) for name, content in tables.items()}

    def _write(self, name: str, content: bytes) -> None:
        with writing(str(self.path)):
            write_atomically(self.path / name, content, durable=False)  # the store has it all


def _in_order(rows: Mapping[int, list[Row]]) -> list[Row]:
    return [row for level in sorted(rows) for row in rows[level]]
