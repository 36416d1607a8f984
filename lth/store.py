"""The store: finished trainings and snapshots, each a folder named by its digest.

    <store>/<first 2>/<digest>/   node.json, the artefacts, and last `done` with their checksums
    <store>/checkpoints/<digest>  the state of a training in progress
    <store>/claims/<digest>       who is making it now
    <store>/damaged/              what failed its checksum, set aside for a look

A folder is published by renaming it into place whole; without a valid `done` it does not exist.
"""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from lth.claims import Claim, Claims
from lth.files import sync_folder, write, write_atomically, writing
from lth.graph import Node, describe


class Damaged(Exception):
    """A stored file is not what was published."""

    def __init__(self, node: Node, what: str) -> None:
        super().__init__(f"{node} in the store is damaged: {what}")
        self.node = node


class Store:
    """Everything that is known about a folder of stored nodes; nobody else joins its paths.

    Writing methods raise LotteryError where the disk is full or the folder not writable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._claims = Claims(root / "claims")
        self._done: dict[Node, dict[str, str]] = {}

    def path(self, node: Node) -> Path:
        return self.root / node.digest[:2] / node.digest

    def folders(self) -> Iterator[Path]:
        """Those of all published nodes."""
        return (done.parent for done in self.root.glob("??/*/done"))

    def exists(self, node: Node) -> bool:
        """Whether `node` has been published. Content is checked when it is read."""
        if node not in self._done:
            try:
                done = json.loads((self.path(node) / "done").read_bytes())
            except (OSError, ValueError):
                return False
            if not isinstance(done, dict) or "node.json" not in done:
                return False
            self._done[node] = done
        return True

    def read(self, node: Node, name: str) -> bytes:
        """The content of a published file. Raises Damaged unless it is what was published."""
        if not self.exists(node):
            raise Damaged(node, "it has no valid done file")
        try:
            content = (self.path(node) / name).read_bytes()
        except OSError as error:
            raise Damaged(node, str(error)) from error
        if _checksum(content) != self._done[node].get(name):
            raise Damaged(node, f"the checksum of {name} is wrong")
        return content

    def publish(self, node: Node, artefacts: Mapping[str, bytes]) -> None:
        """Make `node` exist, whole; a no-op where another process was faster."""
        described = json.dumps({"digest": node.digest, "nodes": describe(node)}, indent=1)
        files = {"node.json": described.encode(), **artefacts}
        done = json.dumps({name: _checksum(content) for name, content in files.items()}, indent=1)
        aside = self.root / "unfinished" / f"{node.digest}.{uuid.uuid4().hex[:8]}"
        with self._writing():
            try:
                aside.mkdir(parents=True)
                for name, content in {**files, "done": done.encode()}.items():
                    write(aside / name, content)
                self._rename(aside, node)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self._drop_checkpoint(node)

    def _rename(self, aside: Path, node: Node) -> None:
        if not self.exists(node) and self.path(node).exists():
            self.set_aside(node)
        self.path(node).parent.mkdir(exist_ok=True)
        try:
            sync_folder(aside)
            aside.rename(self.path(node))
            sync_folder(self.path(node).parent)
        except OSError:
            if not self.exists(node):  # else another maker was faster
                raise

    def is_whole(self, node: Node) -> bool:
        """Whether every file of `node` is, just now, what was published."""
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

    def set_aside(self, node: Node) -> None:
        """Move a damaged folder out of the way, so that the node is made again. A whole one stays:
        another process may have made it again already."""
        if self.is_whole(node):
            return
        target = self.root / "damaged" / f"{node.digest}.{uuid.uuid4().hex[:8]}"
        with self._writing():
            target.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.path(node).rename(target)

    def claim(self, node: Node) -> Claim | None:
        """The exclusive right to make `node`, or None while another process has it."""
        with self._writing():
            return self._claims.acquire(node.digest)

    def write_checkpoint(self, node: Node, content: bytes) -> None:
        """Replace the saved state of a training in progress."""
        with self._writing():
            write_atomically(self._checkpoint(node), _checksum(content).encode() + content)

    def read_checkpoint(self, node: Node) -> bytes | None:
        """The saved state, or None where there is none or it is damaged."""
        try:
            stored = self._checkpoint(node).read_bytes()
        except OSError:
            return None
        return stored[64:] if _checksum(stored[64:]).encode() == stored[:64] else None

    def _drop_checkpoint(self, node: Node) -> None:
        with contextlib.suppress(OSError):
            for file in self._checkpoint(node).parent.glob(f"*{node.digest}*"):
                file.unlink(missing_ok=True)  # with what a kill left of writing it

    def _checkpoint(self, node: Node) -> Path:
        return self.root / "checkpoints" / node.digest

    def _writing(self) -> AbstractContextManager[None]:
        return writing(f"store={self.root}")


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
