"""The folder of one run: its CSVs, and run.json with what it is, its state and how far it has come.

A context manager: while it is open nobody else can use the folder, and however it is left, run.json
says how: `finished`, `interrupted`, or `failed` with the reason (and the traceback in run.log).
"""

import json
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from lth.claims import Claims, holder_of
from lth.errors import Interrupted, LotteryError
from lth.files import write_atomically, writing
from lth.provenance import provenance
from lth.records import METRIC_COLUMNS, Outcome, level_row, metric_rows, to_csv

log = logging.getLogger(__name__)

State = Literal["running", "finished", "failed", "interrupted"]


class RunFolder:
    """The files of one run, each always whole. `status` is what run.json holds."""

    def __init__(self, path: Path, status: dict[str, Any]) -> None:
        self.path = path
        self.status = status
        self._levels: dict[int, dict[str, Any]] = {}
        self._metrics: dict[int, list[dict[str, Any]]] = {}

    def __enter__(self) -> "RunFolder":
        with writing(str(self.path)):
            claim = Claims(self.path).acquire("claim")
        if claim is None:
            raise LotteryError(
                f"{self.path}: {holder_of(self.path / 'claim')} is writing its run there. Wait "
                "for it, or start again: another second is another folder."
            )
        self._claim = claim
        self._claim.__enter__()
        self.update(state="running", started=time.time(), done=0, trained=0, **provenance())
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

    def _conclude(self, error: BaseException | None) -> None:
        if self._levels:
            self.write_tables()
        if error is None:
            self.update(state="finished", done=len(self._levels), finished=time.time())
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.update(state="interrupted")
        else:
            log.error("the run failed", exc_info=error)
            known = isinstance(error, LotteryError)
            self.status["error"] = str(error) if known else f"{type(error).__name__}: {error}"
            try:
                self.update(state="failed")
            except LotteryError:
                log.exception("run.json could not say so")

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - any JSON value
        """Change the status and write run.json."""
        self.status |= changes | {"updated": time.time()}
        self._write("run.json", json.dumps(self.status, indent=1).encode())

    def add(self, level: int, digest: str, outcome: Outcome, *, cached: bool) -> None:
        """Record a level; the tables are written anew where it has taken time to get it."""
        self._levels[level] = level_row(level, digest, outcome, cached=cached)
        self._metrics[level] = metric_rows(level, outcome)
        if not cached:
            self.write_tables()
            self.update(done=len(self._levels))

    def write_tables(self) -> None:
        """levels.csv and metrics.csv of the levels that are there, in order."""
        levels = [self._levels[level] for level in sorted(self._levels)]
        metrics = [row for level in sorted(self._metrics) for row in self._metrics[level]]
        self._write("levels.csv", to_csv(levels, list(levels[0])))
        self._write("metrics.csv", to_csv(metrics, METRIC_COLUMNS))

    def _write(self, name: str, content: bytes) -> None:
        with writing(str(self.path)):
            write_atomically(self.path / name, content, durable=False)  # the store has it all
