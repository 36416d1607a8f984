"""The store: finished trainings, snapshots and measurements, each a folder named by its digest.

    <store>/<first 2>/<digest>/   node.json, the artefacts, and last `done` with their checksums
    <store>/checkpoints/<digest>  the state of a training in progress
    <store>/locks/<digest>        held by the process that makes the node now
    <store>/unfinished/           folders that are being written or deleted
    <store>/damaged/              folders that failed a checksum, kept for inspection

A folder is written aside and published by renaming it; without a valid `done` it does not exist.
"""

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from lth.errors import LotteryError
from lth.experiment.node import Stored
from lth.experiment.nodes import describe
from lth.store.files import (
    checksum,
    make_folder,
    read,
    sync_folder,
    write,
    write_atomically,
    writing,
)
from lth.store.locks import Lock, Locks, holder_of

WEIGHTS = {"final.safetensors", "state.safetensors"}
"""Files that can be dropped from a published folder; curves and masks stay."""

RESULTS = {"curve.csv", "mask.safetensors"}
"""Files that stay when weights are dropped; training again must give the same ones."""

log = logging.getLogger(__name__)


class Damaged(Exception):
    """A stored file differs from the published one. `node`: the node whose folder it is in."""

    def __init__(self, node: Stored, fault: str) -> None:
        super().__init__(f"{node} in the store is damaged: {fault}")
        self.node = node


class Store:
    """A folder of stored nodes, with the locks and the checkpoints of nodes in progress.

    Methods that write raise LotteryError if the disk is full or the folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.locks = root / "locks"
        self.unfinished = root / "unfinished"
        self.damaged = root / "damaged"
        self._locks = Locks(self.locks)
        self._done: dict[Stored, dict[str, str]] = {}

    def path(self, node: Stored) -> Path:
        """Return the folder of `node`, whether it exists or not."""
        return self.root / node.digest[:2] / node.digest

    def folders(self) -> Iterator[Path]:
        """Yield the folders of all published nodes."""
        return (done.parent for done in self.root.glob("??/*/done"))

    def exists(self, node: Stored) -> bool:
        """Return whether `node` is published. Its files are checked when they are read."""
        if node not in self._done:
            done = read_done(self.path(node))
            if done is None:
                return False
            self._done[node] = done
        return True

    def has_weights(self, node: Stored) -> bool:
        """Return whether `node` is published with its weights, so that others can start from it."""
        if self.exists(node) and not WEIGHTS & self._done[node].keys():
            del self._done[node]  # read `done` again: another process may have made them
        return self.exists(node) and bool(WEIGHTS & self._done[node].keys())

    def is_made(self, node: Stored) -> bool:
        """Return whether `node` is complete."""
        return self.has_weights(node) if node.keeps_weights else self.exists(node)

    def read(self, node: Stored, name: str) -> bytes:
        """Return the content of a published file. Raises Damaged if it is missing or changed, and
        LotteryError if it was dropped or cannot be read now."""
        if not self.exists(node):
            raise Damaged(node, "it has no valid done file")
        content = read(self.path(node) / name)
        if content is not None and checksum(content) == self._done[node].get(name):
            return content
        if self._has_changed(node):  # another process has dropped its weights, or made them again
            return self.read(node, name)
        if name in WEIGHTS and name not in self._done[node]:
            raise LotteryError(
                f"{self.root}: the weights of {node} were dropped. To train it again, run python "
                "-m analysis export RUN, or repeat the run with remake_weights=true."
            )
        missing = content is None
        raise Damaged(node, f"{name} is missing" if missing else f"the checksum of {name} is wrong")

    def _has_changed(self, node: Stored) -> bool:
        """Read `done` again. Return whether it is another one than before."""
        before = self._done.pop(node)
        return not self.exists(node) or self._done[node] != before

    def results(self, node: Stored) -> Any:  # noqa: ANN401 - each kind of node has its own
        """Return what is recorded of a stored node. Raises Damaged."""
        return node.results(partial(self.read, node))

    def publish(self, node: Stored, artefacts: Mapping[str, bytes]) -> None:
        """Store the files of `node`, by name. Does nothing if another process was faster."""
        described = json.dumps({"digest": node.digest, "nodes": describe(node)}, indent=1)
        files = {"node.json": described.encode(), **artefacts}
        done = json.dumps({name: checksum(content) for name, content in files.items()}, indent=1)
        aside = self._aside(node.digest)
        with self._writing():
            try:
                make_folder(aside)
                for name, content in {**files, "done": done.encode()}.items():
                    write(aside / name, content)
                self._put_in_place(aside, node)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self._drop_checkpoint(node)

    def _put_in_place(self, aside: Path, node: Stored) -> None:
        self._done.pop(node, None)
        if not self.exists(node) and self.path(node).exists():
            self.set_aside(node)
        elif self.exists(node) and not self.is_made(node):
            self._replace(node, aside)  # curve and weights must come from one training
        make_folder(self.path(node).parent)
        try:
            sync_folder(aside)
            aside.rename(self.path(node))
            sync_folder(self.path(node).parent)
        except OSError:
            if not self.exists(node):  # else another process was faster
                raise
        finally:
            self._done.pop(node, None)

    def _replace(self, node: Stored, aside: Path) -> None:
        """Remove a folder without weights to make room for `aside`, which has them."""
        old, new = read_done(self.path(node)) or {}, read_done(aside) or {}
        changed = [name for name in old if name in RESULTS and old[name] != new.get(name)]
        if changed:
            names = " and ".join(changed)
            log.warning("%s was trained again, and its %s changed", node, names)
        self.remove(self.path(node))

    def is_whole(self, node: Stored) -> bool:
        """Return whether every file of `node` is now as it was published."""
        self._done.pop(node, None)
        if not self.exists(node):
            return False
        try:
            for name in self._done[node]:
                self.read(node, name)
        except Damaged:
            del self._done[node]
            return False
        return True

    def set_aside(self, node: Stored) -> None:
        """Move a damaged folder to `damaged/`, so that the node is made again. A whole folder
        stays: another process may have made it again already."""
        if not self.is_whole(node):
            self.move_aside(self.path(node))

    def move_aside(self, folder: Path) -> None:
        """Move a folder of the store to `damaged/`."""
        target = self.damaged / f"{folder.name}.{uuid.uuid4().hex[:8]}"
        with self._writing():
            target.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(target)

    def remove(self, path: Path) -> None:
        """Delete a file or folder of the store. It is renamed first: no reader sees half of it."""
        aside = self._aside(path.name)
        with self._writing(), contextlib.suppress(FileNotFoundError):
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
            if aside.is_dir():
                shutil.rmtree(aside)
            else:
                aside.unlink()

    def drop_weights(self, folder: Path) -> None:
        """Delete the weights of a published folder. They are made again by a run whose other
        trainings start from them, or that is told to (`remake_weights`)."""
        done = read_done(folder)
        if done is None:
            return
        kept = {name: digest for name, digest in done.items() if name not in WEIGHTS}
        with self._writing():
            write_atomically(folder / "done", json.dumps(kept, indent=1).encode())
            for name in WEIGHTS:
                (folder / name).unlink(missing_ok=True)

    def lock(self, node: Stored) -> Lock | None:
        """Return the lock on `node`, or None while another process holds it. Only its holder may
        make the node."""
        with self._writing():
            return self._locks.acquire(node.digest)

    def holder(self, node: Stored) -> str:
        """Return the process that makes `node`, for messages."""
        return holder_of(self.locks / node.digest)

    def write_checkpoint(self, node: Stored, content: bytes) -> None:
        """Replace the saved state of a training in progress."""
        with self._writing():
            write_atomically(self._checkpoint(node), checksum(content).encode() + content)

    def read_checkpoint(self, node: Stored) -> bytes | None:
        """Return the saved state; None if there is none or it is damaged."""
        stored = read(self._checkpoint(node)) or b""
        return stored[64:] if checksum(stored[64:]).encode() == stored[:64] else None

    def _drop_checkpoint(self, node: Stored) -> None:
        """Delete the checkpoint alone: a temporary file beside it may be of a process that is
        writing it now."""
        with contextlib.suppress(OSError):
            self._checkpoint(node).unlink()

    def _aside(self, name: str) -> Path:
        return self.unfinished / f"{name}.{uuid.uuid4().hex[:8]}"

    def _checkpoint(self, node: Stored) -> Path:
        return self.checkpoints / node.digest

    def _writing(self) -> AbstractContextManager[None]:
        return writing(f"store={self.root}")


def read_done(folder: Path) -> dict[str, str] | None:
    """Return the checksum of each file of a published folder; None if it has no valid `done`."""
    try:
        done = json.loads(read(folder / "done") or b"")
    except ValueError:
        return None
    return done if isinstance(done, dict) and "node.json" in done else None
