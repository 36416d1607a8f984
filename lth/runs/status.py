"""Read run.json: the state of a run, its settings, and what it needs of the store. No torch.

Nothing else parses run.json.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lth.errors import LotteryError
from lth.experiment import lottery, nodes
from lth.experiment.settings import Spec
from lth.runs.records import is_whole
from lth.store.files import checksum
from lth.store.locks import is_abandoned

Status = dict[str, Any]


@dataclass(frozen=True)
class Needs:
    """The trainings in the store that runs need, by digest."""

    trainings: set[str]
    """Reported by a run, or to be reported when it is finished."""
    ends: set[str]
    """The first and the last level of each finished run."""
    unfinished: set[str]
    """Trainings of runs that have not finished, which resume from their weights and checkpoints."""


PUBLISHED = "reference"
"""The folder of published runs among one's own."""


def read_statuses(folder: Path) -> list[tuple[Path, Status]]:
    """The run folders in `folder` (it may be one itself) with what their run.json says. A run that
    says `running` and whose process is gone is `killed`."""
    files = [folder / "run.json", *folder.glob("*/run.json")]
    found = [(file.parent, read_status(file.parent)) for file in files if file.is_file()]
    return sorted(found, key=lambda run: (len(run[0].name), run[0].name))


def find_runs(root: Path) -> Iterator[Path]:
    """Folders with a run.json, not looking inside them nor inside a store; and folders that cannot
    be looked into, as they may be such. Published runs are found where one looks there."""
    closed: list[OSError] = []
    for path, names, files in os.walk(root, onerror=closed.append):
        if "run.json" in files:
            yield Path(path)
        if "run.json" in files or "locks" in names:
            names.clear()
        elif PUBLISHED in names:
            names.remove(PUBLISHED)
    yield from (Path(error.filename) for error in closed if isinstance(error, PermissionError))


def state_of(run: Path) -> str:
    """That of the run in this folder."""
    return str(read_status(run)["state"])


def read_status(run: Path) -> Status:
    """What run.json says; `killed` where it says that the run goes on, and its process is gone;
    `unreadable` where it says nothing."""
    file = run / "run.json"
    status = _content(file)
    if status["state"] == "running" and is_abandoned(run / "lock"):
        status = _content(file)  # it may have ended between the two looks
        if status["state"] == "running":
            status["state"] = "killed"
    return status


def _content(file: Path) -> Status:
    try:
        status = json.loads(file.read_bytes())
    except (OSError, ValueError):
        status = None
    readable = isinstance(status, dict) and "state" in status
    return status if readable else {"state": "unreadable"}


def needs_of(runs: Iterable[Path]) -> Needs:
    """What the runs in these folders need. Raises LotteryError for one that cannot be read."""
    trainings, ends, unfinished = set[str](), set[str](), set[str]()
    for run in runs:
        status = read_whole(run)
        reported, wanted = _reported(run, status), _wanted(run, status)
        trainings |= {*reported, *wanted}
        if status["state"] == "finished":
            ends |= {*reported[:1], *reported[-1:]}
        else:
            unfinished |= {*reported, *wanted}
    return Needs(trainings, ends, unfinished)


def read_whole(run: Path) -> Status:
    """What run.json holds. Raises LotteryError where it cannot be read, or was changed."""
    try:
        status: dict[str, Any] = json.loads((run / "run.json").read_bytes())
        if not is_whole(status) or "state" not in status:
            raise ValueError("it is not as it was written")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(run, f"run.json cannot be read ({error})") from error
    return status


def _reported(run: Path, status: dict[str, Any]) -> list[str]:
    """Digests of the trainings in a run's table, which is there if the run says so."""
    written = status.get("tables", {}).get("levels.csv")
    try:
        content = (run / "levels.csv").read_bytes()
        if status["state"] == "finished" and written not in (None, checksum(content)):
            raise ValueError("it is not as it was written")
        return [row["training"] for row in csv.DictReader(content.decode().splitlines())]
    except FileNotFoundError as error:
        if written is None and status["state"] != "finished":
            return []
        raise _unreadable(run, "levels.csv is not there") from error
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(run, f"levels.csv cannot be read ({error})") from error


def _unreadable(run: Path, why: str) -> LotteryError:
    return LotteryError(
        f"{run}: {why}, so that nobody knows what it needs. Run it again, or delete the folder."
    )


def spec_of(status: Mapping[str, Any]) -> Spec:
    """The settings of a run. Raises ValidationError for those of another version."""
    return TypeAdapter(Spec).validate_json(json.dumps(status["spec"]))


def _wanted(run: Path, status: dict[str, Any]) -> set[str]:
    """What a run makes, by digest; of a finished run of another version, what its table says."""
    if "spec" not in status:  # it was refused before it began
        return set()
    try:
        wanted = spec_of(status)
    except ValidationError as error:
        if status["state"] == "finished":
            return set()
        raise _unreadable(
            run, "it has not finished, and these are not settings of this version"
        ) from error
    return {node.digest for node in nodes.missing(lottery.wanted(wanted), lambda _: False)}
