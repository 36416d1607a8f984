"""Care of a store: what is in it, whether it is sound, and what can go. No torch.

Experiments need nothing of this, and whatever is removed is made again when a run asks for it.
"""

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth.errors import LotteryError
from lth.experiment import nodes
from lth.store.files import checksum, writing
from lth.store.locks import is_abandoned
from lth.store.store import WEIGHTS, Store, read_done

PARTS = {"mask.safetensors": "masks", "curve.csv": "curves"} | dict.fromkeys(WEIGHTS, "weights")
"""What the files of a published folder are called in a survey; the others are `records`."""

DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """The folder of a stored node, as one look found it; `nodes` is empty if it is damaged."""

    path: Path
    nodes: Mapping[str, dict[str, Any]]

    @property
    def digest(self) -> str:
        return self.path.name

    def refers_to(self) -> set[str]:
        """All digests that it names, and whatever else is text."""
        values = (value for node in self.nodes.values() for value in node.values())
        return {value for value in values if isinstance(value, str)}


@dataclass(frozen=True)
class Needs:
    """What runs need of a store, by digest."""

    trainings: set[str]
    """Those that they report, or would if they went on."""
    ends: set[str]
    """The first and the last of each finished run."""
    going_on: set[str]
    """Those of runs that have not finished: they go on from their weights and checkpoints."""


def is_store(root: Path) -> bool:
    """Whether this is a folder that trainings were stored in."""
    return (root / "claims").is_dir()


def entries(store: Store) -> list[Entry]:
    """Every folder that has the name and the place of a stored node, sound or not."""
    found = (path for path in sorted(store.root.glob("??/*")) if path.is_dir())
    return [
        entry(path)
        for path in found
        if DIGEST.fullmatch(path.name) and path.parent.name == path.name[:2]
    ]


def entry(path: Path) -> Entry:
    """The folder of a stored node, as it is now."""
    return Entry(path, _nodes(path))


def _nodes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        nodes: dict[str, dict[str, Any]] = json.loads((path / "node.json").read_bytes())["nodes"]
    except (OSError, ValueError, KeyError):
        return {}
    return nodes


def sizes(store: Store) -> dict[str, tuple[int, int]]:
    """What is in a store -> how many files, and bytes."""
    found = defaultdict[str, list[int]](list)
    for file in store.root.rglob("*"):
        if not file.is_dir():
            folder = file.relative_to(store.root).parts[0]
            part = PARTS.get(file.name, "records") if len(folder) == 2 else folder
            found[part].append(size(file))
    return {part: (len(of_part), sum(of_part)) for part, of_part in found.items()}


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder; 0 where there is none."""
    if path.is_dir():
        return sum(map(size, path.iterdir()))
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def weight_size(folder: Path) -> int:
    """Bytes of the weights in a published folder."""
    return sum(size(folder / name) for name in WEIGHTS)


def faults(store: Store) -> Iterator[str]:
    """Everything that is not as it was written, in words; reads the whole store."""
    for found in entries(store):
        yield from (f"{found.path}: {fault}" for fault in faults_of(found))
    for file in sorted(store.checkpoints.glob("[!.]*")):
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # its training has just ended
            continue
        if checksum(content[64:]).encode() != content[:64]:
            yield f"{file}: the checksum is wrong"


def faults_of(entry: Entry) -> Iterator[str]:
    """Of one folder."""
    yield from faults_of_files(entry)
    yield from faults_of_description(entry)


def faults_of_files(entry: Entry) -> Iterator[str]:
    """Files that are not as they were published, missing, or not of it."""
    done = read_done(entry.path)
    if done is None:
        yield "it has no valid done file"
        return
    for name, expected in done.items():
        try:
            if checksum((entry.path / name).read_bytes()) != expected:
                yield f"the checksum of {name} is wrong"
        except OSError as error:
            yield f"{name}: {error.strerror}"
    others = {file.name for file in entry.path.iterdir()} - {*done, "done"}
    for name in sorted(others):
        yield f"{name} was not published with it"


def faults_of_description(entry: Entry) -> Iterator[str]:
    """Digests in node.json that are not those of what they stand for."""
    if read_done(entry.path) is None:
        return
    if entry.digest not in entry.nodes:
        yield "node.json does not say what it is"
    for digest, node in entry.nodes.items():
        if nodes.digest_of(node) != digest:
            yield f"node.json: {digest[:12]} is not the digest of its content"


def leftovers(store: Store, needs: Needs) -> list[Path]:
    """What killed processes and repairs have left: half-written and damaged folders, and
    checkpoints that no run will go on from."""

    def is_left(checkpoint: Path) -> bool:
        done = read_done(store.root / checkpoint.name[:2] / checkpoint.name) or {}
        return checkpoint.name not in needs.going_on or bool(WEIGHTS & done.keys())

    checkpoints = filter(is_left, store.checkpoints.glob("*"))
    return [*store.unfinished.glob("*"), *store.damaged.glob("*"), *checkpoints]


def unused(found: Iterable[Entry], needs: Needs) -> list[Path]:
    """The folders that no run reports, nor needs for what it reports. Raises LotteryError where
    that cannot be told."""
    by_digest = {entry.digest: entry for entry in found}
    used, stack = set[str](), list(needs.trainings)
    while stack:
        digest = stack.pop()
        if digest in by_digest and digest not in used:
            used.add(digest)
            if not by_digest[digest].nodes:
                raise LotteryError(
                    f"{by_digest[digest].path}: node.json is damaged, so that nobody knows what "
                    "that training needs. Run the runs that report it once more first."
                )
            stack += by_digest[digest].refers_to()
    return [entry.path for digest, entry in by_digest.items() if digest not in used]


def weights(found: Iterable[Entry], keep: set[str]) -> list[Path]:
    """The folders with weights, without those of the digests `keep`."""
    return [
        entry.path
        for entry in found
        if entry.digest not in keep and any((entry.path / name).exists() for name in WEIGHTS)
    ]


def busy(store: Store) -> int:
    """How many trainings are in progress, by the clock of the file server alone."""
    if not is_store(store.root):
        return 0
    with writing(str(store.root)), tempfile.NamedTemporaryFile(dir=store.root) as touched:
        now = Path(touched.name).stat().st_mtime
    return sum(not is_abandoned(claim, now) for claim in store.claims.glob("*"))
