"""Read run.json: the state of a run, its settings, and what it needs of the store. No torch.

Nothing else parses run.json.
"""

import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.node import Stored
from lth.experiment.nodes import Training, with_ancestors
from lth.experiment.results import rows_from_csv
from lth.experiment.settings import Spec
from lth.runs.records import is_whole
from lth.store.files import ABSENT, cannot_read, checksum, read
from lth.store.locks import is_abandoned

Status = dict[str, Any]
PUBLISHED = "reference"
"""Name of the folder of published runs, beside a user's own."""
NOT_PUBLISHED = "not-published"
"""The store of a published run."""


@dataclass(frozen=True)
class Needs:
    """The trainings in the store that runs need, by digest."""

    trainings: set[str]
    """Reported by a run, or to be reported when it is finished."""
    ends: set[str]
    """The first and the last level of each finished run, and the nodes from whose weights these
    start."""
    unfinished: set[str]
    """Trainings of runs that have not finished, which resume from their weights and checkpoints."""


def find_runs(root: Path) -> Iterator[Path]:
    """Yield the run folders at or below `root`, and folders that may not be opened, which may hold
    runs. Published runs are found only if `root` is at or below their folder. Raises LotteryError
    if a folder cannot be listed now: runs that are not found would seem to be deleted."""
    closed: list[str] = []

    def skip(error: OSError) -> None:
        if isinstance(error, PermissionError):
            closed.append(error.filename)
        elif not isinstance(error, ABSENT):
            raise cannot_read(Path(error.filename), error) from error

    for path, names, files in os.walk(root, onerror=skip):
        if "run.json" in files:
            yield Path(path)
        if "run.json" in files or "locks" in names:  # a run or a store holds no other runs
            names.clear()
        elif PUBLISHED in names:
            names.remove(PUBLISHED)
    yield from map(Path, closed)


def read_statuses(folder: Path) -> list[tuple[Path, Status]]:
    """Return the run folders in `folder` (or `folder` itself) with their status, in order."""
    files = [folder / "run.json", *folder.glob("*/run.json")]
    found = [(file.parent, read_status(file.parent)) for file in files if file.is_file()]
    return sorted(found, key=lambda run: (len(run[0].name), run[0].name))


def state_of(run: Path) -> str:
    """Return the state of the run in a folder."""
    return str(read_status(run)["state"])


def read_status(run: Path) -> Status:
    """Return the content of run.json. Its state is `killed` if it says `running` and the process is
    gone, `unreadable` if it cannot be read."""
    status = _read(run)
    if status["state"] == "running" and is_abandoned(run / "lock"):
        status = _read(run)  # it may have ended between the two reads
        if status["state"] == "running":
            status["state"] = "killed"
    return status


def _read(run: Path) -> Status:
    try:
        status = json.loads(read(run / "run.json") or b"")
    except (LotteryError, ValueError):
        status = None
    readable = isinstance(status, dict) and "state" in status
    return status if readable else {"state": "unreadable"}


def read_whole(run: Path) -> Status:
    """Return the content of run.json. Raises LotteryError if it cannot be read or was changed."""
    content = read(run / "run.json")
    if content is None:
        raise _unreadable(run, "run.json is missing")
    try:
        status: Status = json.loads(content)
        if not is_whole(status) or "state" not in status:
            raise ValueError("it was changed after it was written")
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(run, f"run.json cannot be read ({error})") from error
    return status


def spec_of(status: Mapping[str, Any]) -> Spec:
    """Return the settings of a run. Raises ValidationError if another version wrote them."""
    return TypeAdapter(Spec).validate_json(json.dumps(status["spec"]))


def needs_of(runs: Iterable[Path]) -> Needs:
    """Return what the runs in these folders need. Raises LotteryError if one cannot be read."""
    trainings, ends, unfinished = set[str](), set[str](), set[str]()
    for run in runs:
        status = read_whole(run)
        reported, described = _reported(run, status), _described(run, status)
        needed = {*reported, *(node.digest for node in described)}
        trainings |= needed
        if status["state"] == "finished":
            own = {*reported[:1], *reported[-1:]}
            ends |= own | _starts(own, described)
        else:
            unfinished |= needed
    return Needs(trainings, ends, unfinished)


def _starts(trainings: Container[str], described: Iterable[Stored]) -> set[str]:
    """Return the digests of the nodes from whose weights some `trainings` start."""
    found = (n for n in described if isinstance(n, Training) and n.digest in trainings)
    return {node.digest for training in found for node in training.weights.needs()}


def _reported(run: Path, status: Status) -> list[str]:
    """Return the digests in levels.csv; it must exist if run.json lists it."""
    written = status.get("tables", {}).get("levels.csv")
    content = read(run / "levels.csv")
    if content is None:
        if written is None and status["state"] != "finished":
            return []
        raise _unreadable(run, "levels.csv is missing")
    try:
        if status["state"] == "finished" and written not in (None, checksum(content)):
            raise ValueError("it was changed after it was written")
        return [row["training"] for row in rows_from_csv(content)]
    except (ValueError, KeyError) as error:
        raise _unreadable(run, f"levels.csv cannot be read ({error})") from error


def _described(run: Path, status: Status) -> set[Stored]:
    """Return all nodes that a run makes; none for a finished run of another version,
    whose settings cannot be read."""
    if "spec" not in status:
        return set()
    try:
        spec = spec_of(status)
    except ValidationError as error:
        if status["state"] == "finished":
            return set()
        raise _unreadable(
            run, "it has not finished, and its settings are of another version"
        ) from error
    return with_ancestors(node for _, node in lottery.nodes(spec))


def _unreadable(run: Path, why: str) -> LotteryError:
    return LotteryError(
        f"{run}: {why}, so what it needs is unknown. Run it again, or delete the folder."
    )
