"""Between the steps of a training: measure time, report progress, save checkpoints, and stop."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lth.errors import Interrupted
from lth.experiment.node import Stored
from lth.experiment.nodes import Training
from lth.store.store import Store
from lth.training.checkpoint import Unrepresentable
from lth.training.loop import Progress

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.5

OnProgress = Callable[[Sequence[Training], int, float], None]
"""Receives trainings that run together, their iteration, and iterations per second."""


@dataclass(frozen=True)
class Watch:
    """Callbacks and intervals of a Monitor. `on_progress` is called about twice a second, and
    `stopping` (whether to save and stop) before every step. A checkpoint is saved every
    `checkpoint_seconds`."""

    checkpoint_seconds: float = 120.0
    on_progress: OnProgress = lambda _, __, ___: None
    stopping: Callable[[], bool] = lambda: False


@dataclass
class Monitor:
    """Watches some trainings that run together. Call it before every step; it raises Interrupted
    when they have to stop, with their checkpoints saved under the digests of `saved_as`, unless
    their state cannot be saved exactly: then an interrupted training starts again."""

    watch: Watch
    store: Store
    trainings: Sequence[Training]
    saved_as: Sequence[Stored]
    _last: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _reported: float = -math.inf
    _iteration: int = 0

    def __call__(self, running: Sequence[Progress]) -> None:
        now = time.monotonic()
        for progress in running:
            progress.seconds += (now - self._last) / len(running)
        self._last = now
        if now - self._reported > REPORT_SECONDS:
            self._report(running[0].iteration, now)
        stopping = self.watch.stopping()
        if stopping or now - self._saved > self.watch.checkpoint_seconds:
            self._save(running, now)
        if stopping:
            raise Interrupted

    def _report(self, iteration: int, now: float) -> None:
        speed = (iteration - self._iteration) / (now - self._reported)
        self.watch.on_progress(self.trainings, iteration, speed)
        self._reported, self._iteration = now, iteration

    def _save(self, running: Sequence[Progress], now: float) -> None:
        try:
            if self.saved_as:
                for node, progress in zip(self.saved_as, running, strict=True):
                    self.store.write_checkpoint(node, progress.checkpoint().to_bytes())
        except Unrepresentable as error:
            self.saved_as = []
            log.warning("no checkpoints of this training: its optimiser's state holds %s", error)
        self._saved = now
