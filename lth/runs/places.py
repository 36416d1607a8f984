"""Tell folders of runs, stores and other folders apart, for commands that are given one of them."""

from collections.abc import Iterable
from pathlib import Path

from lth.errors import LotteryError
from lth.experiment.config import CONF
from lth.runs.status import PUBLISHED, find_runs, read_status
from lth.store.cleanup import is_store

PROJECT = CONF.parent
"""The folder of run.py."""
LISTED = 20
"""The most runs that a message lists."""


def check_runs(folders: Iterable[Path]) -> None:
    """Raise LotteryError, with the full path, unless each folder has runs at or below it."""
    for folder in folders:
        if not has_runs(folder):
            raise LotteryError(
                f"{folder.absolute()} {_instead_of_runs(folder)}. Give folders of runs or sweeps, "
                f"e.g. multirun/DATE/TIME.{_in_the_project(folder)}"
            )


def check_one_run(folder: Path, command: str) -> None:
    """Raise LotteryError, which lists the runs, unless a folder is that of one run, as this command
    of `analysis` takes it."""
    if (folder / "run.json").exists():
        return
    check_runs([folder])
    runs = sorted(find_runs(folder), key=lambda run: (len(run.name), run))
    listed = [f"\n  {run}: {' '.join(read_status(run).get('overrides', []))}" for run in runs]
    more = f"\n  and {len(runs) - LISTED} more" if len(runs) > LISTED else ""
    raise LotteryError(
        f"{folder.absolute()} has {len(runs)} runs, and {command} takes one run. Name one of them, "
        f"e.g. python -m analysis {command} {runs[0]}{''.join(listed[:LISTED])}{more}"
    )


def check_store(root: Path) -> None:
    """Raise LotteryError, with the full path, unless a folder is a store."""
    if not is_store(root):
        what = "is a folder of runs, not a store" if has_runs(root) else "is not a store"
        raise LotteryError(
            f"{root.absolute()} {_no_folder(root) or what}. Give the folder of a store, e.g. "
            "multirun/store."
        )


def has_runs(folder: Path) -> bool:
    """Return whether there are runs at or below a folder, besides published ones."""
    return next(find_runs(folder), None) is not None


def _instead_of_runs(folder: Path) -> str:
    if is_store(folder):
        return "is a store, not a folder of runs"
    if has_runs(folder / PUBLISHED):
        return f"has no runs but the published ones in {folder / PUBLISHED}, which must be named"
    return _no_folder(folder) or "has no runs"


def _no_folder(path: Path) -> str:
    """Return what there is instead of a folder; nothing if it is one."""
    if not path.exists():
        return "does not exist"
    return "" if path.is_dir() else "is a file"


def _in_the_project(folder: Path) -> str:
    """Return where the project has such a folder with runs, if the command starts elsewhere."""
    own = PROJECT / folder
    return f" The project's runs are in {own}." if own != folder and has_runs(own) else ""
