"""Inspect and clean up a store: its content, its faults, the files that can be removed. No torch.

Experiments do not depend on this module: a run that needs what was removed makes it again.
"""

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lth.errors import LotteryError
from lth.experiment.node import digest_of
from lth.store.files import checksum, read, writing
from lth.store.locks import is_abandoned
from lth.store.store import WEIGHTS, Store, read_done

PARTS = {"mask.safetensors": "masks", "curve.csv": "curves"} | dict.fromkeys(WEIGHTS, "weights")
"""File of a published folder -> the part of the store it counts as; others count as `records`."""

DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """The folder of a stored node when it was read; `nodes` is empty if node.json is damaged."""

    path: Path
    nodes: Mapping[str, dict[str, Any]]
    """Digest -> canonical form of the node and of all that it consists of."""

    @property
    def digest(self) -> str:
        return self.path.name

    def refers_to(self) -> set[str]:
        """Return all digests in the description, among other text values."""
        values = (value for node in self.nodes.values() for value in node.values())
        return {value for value in values if isinstance(value, str)}


def is_store(root: Path) -> bool:
    """Return whether trainings were stored in this folder."""
    return (root / "locks").is_dir()


def entries(store: Store) -> list[Entry]:
    """Return every folder that has the name and the place of a stored node, damaged or not."""
    found = (path for path in sorted(store.root.glob("??/*")) if path.is_dir())
    return [
        entry(path)
        for path in found
        if DIGEST.fullmatch(path.name) and path.parent.name == path.name[:2]
    ]


def entry(path: Path) -> Entry:
    """Read the folder of a stored node."""
    return Entry(path, _nodes(path))


def _nodes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        nodes: dict[str, dict[str, Any]] = json.loads(read(path / "node.json") or b"")["nodes"]
    except (ValueError, KeyError):
        return {}
    return nodes


def sizes(store: Store) -> dict[str, tuple[int, int]]:
    """Return the number of files and of bytes for each part of a store."""
    found = defaultdict[str, list[int]](list)
    for file in store.root.rglob("*"):
        if not file.is_dir():
            folder = file.relative_to(store.root).parts[0]
            part = PARTS.get(file.name, "records") if len(folder) == 2 else folder
            found[part].append(size(file))
    return {part: (len(of_part), sum(of_part)) for part, of_part in found.items()}


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 if it does not exist."""
    if path.is_dir():
        return sum(map(size, path.iterdir()))
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def weight_size(folder: Path) -> int:
    """Return the bytes of the weights in a published folder."""
    return sum(size(folder / name) for name in WEIGHTS)


def faults(store: Store) -> Iterator[str]:
    """Yield a message for each file that differs from what was written. Reads the whole store."""
    for found in entries(store):
        yield from (f"{found.path}: {fault}" for fault in faults_of(found))
    for file in sorted(store.checkpoints.glob("[!.]*")):
        content = read(file)
        if content is None:  # its training has just ended
            continue
        if checksum(content[64:]).encode() != content[:64]:
            yield f"{file}: the checksum is wrong"


def faults_of(entry: Entry) -> Iterator[str]:
    """Yield the faults of one folder."""
    yield from faults_of_files(entry)
    yield from faults_of_description(entry)


def faults_of_files(entry: Entry) -> Iterator[str]:
    """Yield the files that were changed, removed or added since the folder was published."""
    done = read_done(entry.path)
    if done is None:
        yield "it has no valid done file"
        return
    for name, expected in done.items():
        try:
            content = read(entry.path / name)
        except LotteryError as error:
            yield str(error)
            continue
        if content is None:
            yield f"{name} is missing"
        elif checksum(content) != expected:
            yield f"the checksum of {name} is wrong"
    # a kill while weights are dropped leaves their file, which is no longer listed
    others = {file.name for file in entry.path.iterdir()} - {*done, "done", *WEIGHTS}
    for name in sorted(others):
        yield f"{name} was not published with it"


def faults_of_description(entry: Entry) -> Iterator[str]:
    """Yield the digests in node.json that do not match the nodes listed under them."""
    if read_done(entry.path) is None:
        return
    if entry.digest not in entry.nodes:
        yield "node.json does not describe this node"
    for digest, node in entry.nodes.items():
        if digest_of(node) != digest:
            yield f"node.json: {digest[:12]} is not the digest of its content"


def leftovers(store: Store, unfinished: Collection[str]) -> list[Path]:
    """Return what killed processes and repairs left behind: half-written and damaged folders,
    temporary files, and checkpoints that no run resumes from.

    `unfinished`: digests of the trainings of all runs that have not finished.
    """

    def is_left(checkpoint: Path) -> bool:
        done = read_done(store.root / checkpoint.name[:2] / checkpoint.name) or {}
        return checkpoint.name not in unfinished or bool(WEIGHTS & done.keys())

    checkpoints = filter(is_left, store.checkpoints.glob("*"))  # hidden temporary files as well
    temporary = (f for f in store.root.glob("??/*/.done.*") if DIGEST.fullmatch(f.parent.name))
    whole = (store.unfinished.glob("*"), store.damaged.glob("*"), store.locks.glob("*.*"))
    return [*chain(*whole), *checkpoints, *temporary]


def unused(found: Iterable[Entry], reported: Iterable[str]) -> list[Path]:
    """Return the folders that no run reports, and that nothing reported was made from.

    `reported`: digests of the trainings that runs report. Raises LotteryError if a node.json on
    the way is damaged.
    """
    by_digest = {entry.digest: entry for entry in found}
    used, stack = set[str](), list(reported)
    while stack:
        digest = stack.pop()
        if digest in by_digest and digest not in used:
            used.add(digest)
            if not by_digest[digest].nodes:
                raise LotteryError(
                    f"{by_digest[digest].path}: node.json is damaged, so it is unknown what this "
                    "training was made from. First run the runs that report it again."
                )
            stack += by_digest[digest].refers_to()
    return [entry.path for digest, entry in by_digest.items() if digest not in used]


def weights(found: Iterable[Entry], keep: Collection[str]) -> list[Path]:
    """Return the folders with weights, except those whose digest is in `keep`."""
    return [
        entry.path
        for entry in found
        if entry.digest not in keep and any((entry.path / name).exists() for name in WEIGHTS)
    ]


def busy(store: Store) -> int:
    """Return the number of trainings in progress. Times are compared by the clock of the file
    server alone. Raises LotteryError if the store cannot be written."""
    if not is_store(store.root):
        return 0
    with writing(str(store.root)), tempfile.NamedTemporaryFile(dir=store.root) as touched:
        now = Path(touched.name).stat().st_mtime
    return sum(not is_abandoned(lock, now) for lock in store.locks.glob("*"))
