"""python -m analysis status --clear: remove run folders that nobody needs any more.

These are the folders of runs that ended without a recorded level, and of unfinished runs that
another run completed later. Trainings, also unfinished ones, are in the store, which stays as it
is. A folder that holds any file that the run did not write is kept.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lth.runs.status import Status, find_runs, read_status
from lth.runs.superseded import UNFINISHED, superseded
from lth.store.locks import Locks

OWN = ("run.json", "run.log", "levels.csv", "metrics.csv", "tracker.log", "lock")
"""Files that a run writes, besides the tables of probes, which run.json lists."""
OF_HYDRA = ("config.yaml", "hydra.yaml", "overrides.yaml")
"""Files in `.hydra`."""


def clear(arguments: argparse.Namespace) -> int:
    """List the folders to remove, ask, and remove them; return the exit code."""
    found = list(removable(arguments.folders))
    chosen = [run for run, reason, stranger in found if not stranger]
    for run, reason, stranger in found:
        print(f"{run}: {reason}" + f"; kept, because it also holds {stranger}" * bool(stranger))
    if not chosen:
        print("nothing to remove")
    elif arguments.yes or _confirmed(len(chosen)):
        removed = sum(_remove(run, arguments.folders) for run in chosen)
        print(f"{removed} folders removed")
    else:
        print("nothing was removed: add --yes")
    return 0


def _confirmed(count: int) -> bool:
    question = f"Remove {count} folders? Trainings stay in the store. [y/N] "
    return sys.stdin.isatty() and input(question).strip().lower() in ("y", "yes")


def removable(folders: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield (run, why it can be removed, a file that is not its own or nothing)."""
    paths = sorted({run for root in folders for run in find_runs(root)})
    runs = [(path, read_status(path)) for path in paths]
    completed = superseded(runs)
    for path, status in runs:
        if path in completed:
            yield path, f"{status['state']}, and completed by a later run", _stranger(path, status)
        elif status["state"] in UNFINISHED and not (path / "levels.csv").exists():
            yield path, f"{status['state']}, without results", _stranger(path, status)


def _stranger(run: Path, status: Status) -> str:
    """Return the name of a file in a run's folder that the run did not write; "" if there is
    none."""
    own = {*OWN, *status.get("tables", ())}
    files = {file: _is_file_of(file, own) for file in run.iterdir() if file.name != ".hydra"}
    if (run / ".hydra").is_dir():
        files |= {file: _is_file_of(file, OF_HYDRA) for file in (run / ".hydra").iterdir()}
    return min((file.name for file, is_own in files.items() if not is_own), default="")


def _is_file_of(file: Path, names: Sequence[str] | set[str]) -> bool:
    """Return whether a file has one of these names, or is what a kill left of writing it."""
    left_over = file.name.startswith(".") and file.stem.removeprefix(".") in names
    return file.is_file() and (file.name in names or left_over)


def _remove(run: Path, roots: Sequence[Path]) -> bool:
    """Remove a run's folder and folders above it, below `roots`, that are empty then. Return
    whether it could be removed: another process may have started a run there."""
    lock = Locks(run).acquire("lock")
    if lock is None:
        return False
    with lock:
        status = read_status(run)
        if status["state"] not in (*UNFINISHED, "running") or _stranger(run, status):
            return False
        files = [file for file in run.rglob("*") if file.is_file() and file.name != "lock"]
        for file in sorted(files, key=lambda file: file.name == "run.json"):  # the last to go
            file.unlink()
    with suppress(OSError):
        (run / ".hydra").rmdir()
    with suppress(OSError):  # what is in it now is of another process
        run.rmdir()
        _remove_empty(run.parent, roots)
    return True


def _remove_empty(sweep: Path, roots: Sequence[Path]) -> None:
    """Remove the folder of a sweep without runs, and the folder of its day, if they are empty."""
    for folder in (sweep, sweep.parent):
        if not any(root in folder.parents for root in roots):
            return
        if [file.name for file in folder.iterdir()] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()
        folder.rmdir()
