"""The engine makes nodes exist: look up, lock, make, publish. Processes on one store share work."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from lth.engine.build import Builder
from lth.engine.maker import Maker, fit_together
from lth.engine.monitor import Watch
from lth.engine.scheduler import missing, ready
from lth.errors import Interrupted, LotteryError
from lth.experiment.node import Stored
from lth.experiment.nodes import Snapshot, Training
from lth.experiment.settings import Spec
from lth.store.store import Damaged, Store
from lth.training.checkpoint import Checkpoint, position
from lth.training.loop import Diverged

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Stored)

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 3.0
"""Seconds between two looks at the locks of other processes; every look asks the file server."""
LONGER = 1.5
"""Factor from one pause to the next while nothing changes."""


OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""Texts of errors of torch, CUDA, and its libraries."""


def find_device(name: str) -> torch.device:
    """Return the device `cpu` or `cuda`; `auto` is CUDA if there is one. Raises LotteryError if
    CUDA is required and missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise LotteryError(
            "device=cuda needs a CUDA device, and torch finds none. Use device=auto."
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def engine_for(spec: Spec, watch: Watch, *, pack: int = 1) -> "Engine":
    """Return the engine with the store, device and threads of a run."""
    store = Store(Path(spec.store))
    builder = Builder(store, Path(spec.dataset.root), find_device(spec.device))
    watch = Watch(spec.checkpoint_seconds, watch.on_progress, watch.stopping)
    maker = Maker(builder, spec.threads, spec.backend, watch)
    return Engine(maker, pack, remake_weights=spec.remake_weights)


@dataclass
class Engine:
    """Makes nodes exist, one at a time or, if `pack` > 1, up to `pack` trainings with one recipe
    together."""

    maker: Maker
    pack: int = 1
    remake_weights: bool = False
    """Whether requested nodes are made again if their weights were dropped from the store."""
    made: set[Stored] = field(default_factory=set)
    """Nodes that this engine has made."""
    damaged: list[str] = field(default_factory=list)
    """A message for each node that was damaged in the store, moved aside, and made again."""
    making: tuple[Stored, ...] = ()
    """Nodes that are being made, or could not be made."""
    _awaited: set[Stored] = field(default_factory=set)
    _locked: Sequence[Stored] = ()
    """Nodes that other processes were making at the last look."""
    _pause: float = 0.0

    def __post_init__(self) -> None:
        self.store = self.maker.build.store
        self._is_there = self.store.is_made if self.remake_weights else self.store.exists
        torch.set_num_threads(self.maker.threads)
        torch.set_flush_denormal(True)

    @property
    def trained(self) -> int:
        """Number of trainings that this engine has made."""
        return sum(isinstance(node, Training) for node in self.made)

    def ensure(self, requested: Iterable[N]) -> Iterator[tuple[N, Any]]:
        """Make all of `requested` exist, with everything that they need, and yield each with its
        results as soon as it does. Raises Interrupted, with the training in progress saved, once
        `stopping` of the watch returns True."""
        waiting = list(dict.fromkeys(requested))
        while waiting:
            self.making = ()
            try:
                for node in [node for node in waiting if self._is_there(node)]:
                    yield node, self.store.results(node)
                    waiting.remove(node)
                if waiting:
                    self._make_next(waiting)
            except Damaged as damage:
                self._move_aside(damage)

    def pending(self, requested: Iterable[Stored]) -> list[Stored]:
        """Return what is not there yet of `requested` and of what it needs, parents first."""
        return missing(requested, self._is_there, self.store.is_made)

    def _move_aside(self, damage: Damaged) -> None:
        if str(damage) in self.damaged:
            raise LotteryError(f"{damage} again after it was rebuilt. Check the disk.")
        log.warning("%s; it was moved aside and will be made again", damage)
        self.damaged.append(str(damage))
        self.store.set_aside(damage.node)

    def _make_next(self, waiting: Sequence[Stored]) -> None:
        """Make the first node that is ready and that no other process is making, with trainings
        that can be packed with it; if there is none, wait."""
        candidates = ready(waiting, self._is_there, self.store.is_made)
        for node in candidates:
            if self.maker.watch.stopping():
                raise Interrupted
            with ExitStack() as locks, torch.random.fork_rng(devices=[]):
                if self._lock(node, locks):
                    self.making = (node,)
                    self._make(node, candidates, waiting, locks)
                    return
            if node not in self._awaited:
                self._awaited.add(node)
                log.info("waiting for %s, which %s is making", node, self.store.holder(node))
        if candidates:
            self._wait(candidates)

    def _wait(self, locked: Sequence[Stored]) -> None:
        """Wait before the next look, longer each time while the same nodes are locked."""
        longer = min(LONGER * self._pause, LONGEST_PAUSE)
        self._pause = longer if locked == self._locked else SHORTEST_PAUSE
        self._locked = locked
        time.sleep(self._pause)

    def _lock(self, node: Stored, locks: ExitStack) -> bool:
        """Hold the lock on a node until `locks` is closed, unless another process holds it."""
        lock = self.store.lock(node)
        if lock is not None:
            locks.enter_context(lock)
        return lock is not None

    def _make(
        self,
        node: Stored,
        candidates: Sequence[Stored],
        waiting: Sequence[Stored],
        locks: ExitStack,
    ) -> None:
        if self.store.is_made(node):  # published after the last check, before the lock
            return
        if not isinstance(node, Training):
            self.made |= self.maker.make(node, self.pending(waiting))
            return
        group = self._group(node, candidates, locks)
        self.making = tuple(group)
        for training in filter(self.store.exists, group):
            log.info("training %s again: its weights were dropped from the store", training)
        snapshots = [other for other in self.pending(waiting) if isinstance(other, Snapshot)]
        try:
            self.maker.train(group, snapshots)
        except Diverged as error:
            self.making = (error.training,)
            raise
        except RuntimeError as error:
            if len(group) == 1 or not any(text in str(error) for text in OUT_OF_MEMORY):
                raise
            self.pack = len(group) // 2
            log.warning("%d networks do not fit into memory; trying %d", len(group), self.pack)
            return
        self.made.update(group)

    def _group(
        self, node: Training, candidates: Sequence[Stored], locks: ExitStack
    ) -> dict[Training, Checkpoint | None]:
        """Return the trainings of a pack, each with its checkpoint: `node`, whose lock is held, and
        others that are ready, have the same recipe, and were saved at the same iteration. Lock the
        others until `locks` is closed."""
        group = {node: self.maker.checkpoint(node)}
        if self.pack == 1 or node.update:
            return group
        for other in candidates:
            if len(group) == self.pack:
                break
            if other == node or not isinstance(other, Training) or not fit_together(node, other):
                continue
            with ExitStack() as own:
                if self._lock(other, own) and not self.store.is_made(other):
                    saved = self.maker.checkpoint(other)
                    if position(saved) == position(group[node]):
                        group[other] = saved
                        locks.enter_context(own.pop_all())
        return group
