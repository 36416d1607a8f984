"""Care of a store: what is in it, whether it is sound, and what can go. No torch.

Experiments need nothing of this, and whatever is removed is made again when a run asks for it.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lth import graph, lottery
from lth.claims import is_abandoned
from lth.errors import LotteryError
from lth.files import checksum
from lth.spec import Spec
from lth.store import WEIGHTS, Store, read_done

PARTS = {"mask.safetensors": "masks", "curve.csv": "curves"} | dict.fromkeys(WEIGHTS, "weights")
"""What the files of a published folder are called in a survey; the others are `records`."""


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
    """Those that they report, or that a run which has not finished will."""
    ends: set[str]
    """Of finished runs the first and the last; of others all, as they go on from them."""
    unfinished: int
    """How many runs have not finished."""


def entries(store: Store) -> list[Entry]:
    """Every folder that has the place of a stored node, sound or not."""
    return [Entry(path, _nodes(path)) for path in sorted(store.root.glob("??/*")) if path.is_dir()]


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
        if file.is_file():
            folder = file.relative_to(store.root).parts[0]
            part = PARTS.get(file.name, "records") if len(folder) == 2 else folder
            found[part].append(file.stat().st_size)
    return {part: (len(of_part), sum(of_part)) for part, of_part in found.items()}


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def weight_size(folder: Path) -> int:
    """Bytes of the weights in a published folder."""
    return sum(size(folder / name) for name in WEIGHTS)


def faults(store: Store) -> Iterator[str]:
    """Everything that is not as it was written, in words; reads the whole store."""
    for entry in entries(store):
        yield from (f"{entry.path}: {fault}" for fault in _faults(entry))
    for file in sorted(store.checkpoints.glob("[!.]*")):
        content = file.read_bytes()
        if checksum(content[64:]).encode() != content[:64]:
            yield f"{file}: the checksum is wrong"


def _faults(entry: Entry) -> Iterator[str]:
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
    for name in sorted({file.name for file in entry.path.iterdir()} - {*done, "done"}):
        yield f"{name} was not published with it"
    if entry.digest not in entry.nodes:
        yield "node.json does not say what it is"
    for digest, node in entry.nodes.items():
        if graph.digest_of(node) != digest:
            yield f"node.json: {digest[:12]} is not the digest of its content"


def leftovers(store: Store, needs: Needs) -> list[Path]:
    """What killed processes and repairs have left: half-written and damaged folders, claims of
    the dead, and checkpoints that no run will go on from."""
    claims = [claim for claim in store.claims.glob("*") if is_abandoned(claim)]
    checkpoints = [
        file
        for file in store.checkpoints.glob("*")
        if not needs.unfinished or read_done(store.root / file.name[:2] / file.name)
    ]
    return [*store.unfinished.glob("*"), *store.damaged.glob("*"), *claims, *checkpoints]


def unused(found: Iterable[Entry], needs: Needs) -> list[Path]:
    """The folders that no run reports, nor needs for what it reports."""
    by_digest = {entry.digest: entry for entry in found}
    used, stack = set[str](), list(needs.trainings)
    while stack:
        digest = stack.pop()
        if digest in by_digest and digest not in used:
            used.add(digest)
            stack += by_digest[digest].refers_to()
    return [entry.path for digest, entry in by_digest.items() if digest not in used]


def weights(found: Iterable[Entry], keep: set[str]) -> list[Path]:
    """The folders with weights, without those of the digests `keep`."""
    return [
        entry.path
        for entry in found
        if entry.digest not in keep and WEIGHTS & (read_done(entry.path) or {}).keys()
    ]


def busy(store: Store) -> int:
    """How many trainings are in progress."""
    return sum(not is_abandoned(claim) for claim in store.claims.glob("*"))


def needs_of(runs: Iterable[Path]) -> Needs:
    """What the runs in these folders need. Raises LotteryError for one that cannot be read."""
    trainings, ends, unfinished = set[str](), set[str](), 0
    for run in runs:
        reported = _reported(run)
        finished = _status(run).get("state") == "finished"
        wanted = set() if finished else _wanted(run)
        trainings |= {*reported, *wanted}
        ends |= {*reported[:1], *reported[-1:]} if finished else {*reported, *wanted}
        unfinished += not finished
    return Needs(trainings, ends, unfinished)


def _reported(run: Path) -> list[str]:
    try:
        with (run / "levels.csv").open() as file:
            return [row["training"] for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []


def _status(run: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((run / "run.json").read_bytes())
    except (OSError, ValueError) as error:
        raise LotteryError(
            f"{run}: run.json cannot be read ({error}), so that nobody knows what the run needs. "
            "Delete the folder, or run it again."
        ) from error
    return status


def _wanted(run: Path) -> set[str]:
    """What a run that has not finished would make, by digest."""
    spec = _status(run).get("spec")
    if spec is None:  # it was refused before it began
        return set()
    try:
        wanted = TypeAdapter(Spec).validate_json(json.dumps(spec))
    except ValidationError as error:
        raise LotteryError(
            f"{run}: it has not finished, and these are not settings of this version, so that "
            "nobody knows what it needs. Delete the folder, or run it again."
        ) from error
    trainings = (training for _, training in lottery.levels(wanted))
    return {node.digest for node in graph.missing(trainings, lambda _: False)}
