"""python -m analysis store: what is in a store, whether it is sound, and what of it can go."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from analysis.status import find_runs
from lth import care
from lth.errors import LotteryError
from lth.store import Store

Removal = tuple[str, list[Path], Callable[[Path], int], Callable[[Path], None]]
"""What goes, from which paths, how many bytes that frees, and how it is done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", nargs="?", type=Path, default=Path("multirun/store"))
    parser.add_argument(
        "--runs", nargs="+", type=Path, metavar="FOLDER", default=[Path("multirun")],
        help="where all runs lie that use the store (multirun)",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="read every file, check every digest")
    parser.add_argument(
        "--remove", nargs="+", choices=("leftovers", "unused"), default=[],
        help="leftovers of killed processes and repairs; what no run refers to",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("all", "ends", "none"), default="all",
        help="drop weights, but not curves and masks: keep those of each run's first and last "
        "level (ends), or none",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="remove; else only say what would go")


def look_after(arguments: argparse.Namespace) -> int:
    """Do what the command line says; the exit code is 1 where something is wrong."""
    try:
        return _look_after(arguments)
    except LotteryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _look_after(arguments: argparse.Namespace) -> int:
    store = Store(arguments.store)
    if not store.root.is_dir():
        raise LotteryError(f"{store.root}: there is no store. Give the folder of one, store=...")
    if arguments.verify:
        return _verify(store)
    if not arguments.remove and arguments.weights == "all":
        _print_sizes(store)
        return 0
    _refuse_while_busy(store)
    runs = [run for folder in arguments.runs for run in find_runs(folder)]
    if not runs:
        raise LotteryError(
            f"no runs in {', '.join(map(str, arguments.runs))}, so that nothing would be needed. "
            "Name the folders of those that use this store: --runs FOLDER ..."
        )
    _remove(_removals(arguments, store, care.needs_of(runs)), yes=arguments.yes)
    return 0


def _print_sizes(store: Store) -> None:
    table = Table("in the store", "files", "size", title=str(store.root), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for part, (count, size) in sorted(care.sizes(store).items(), key=lambda row: -row[1][1]):
        table.add_row(part, str(count), decimal(size))
    Console().print(table)


def _verify(store: Store) -> int:
    faults = list(care.faults(store))
    for fault in faults:
        print(fault)
    if faults:
        print(f"{len(faults)} faults. A run that needs what is damaged makes it again.")
    else:
        print(f"sound: every file of {len(care.entries(store))} folders is what was published.")
    return int(bool(faults))


def _refuse_while_busy(store: Store) -> None:
    if busy := care.busy(store):
        raise LotteryError(
            f"{store.root}: {busy} trainings are in progress. Nothing is removed under running "
            "sweeps: wait for them, or stop them."
        )


def _removals(arguments: argparse.Namespace, store: Store, needs: care.Needs) -> Iterable[Removal]:
    found = care.entries(store)
    if "leftovers" in arguments.remove:
        yield "leftovers", care.leftovers(store, needs), care.size, store.remove
    unused = care.unused(found, needs) if "unused" in arguments.remove else []
    if unused:
        yield "folders that no run needs", unused, care.size, store.remove
    if arguments.weights != "all":
        keep = needs.ends if arguments.weights == "ends" else set()
        kept = [entry for entry in found if entry.path not in unused]
        yield "weights", care.weights(kept, keep), care.weight_size, store.drop_weights


def _remove(removals: Iterable[Removal], *, yes: bool) -> None:
    for what, paths, size, remove in removals:
        freed = decimal(sum(map(size, paths)))
        print(f"{what}: {len(paths)}, {freed}{' removed' if yes else ' would go'}")
        for path in paths if yes else ():
            remove(path)
    if not yes:
        print("nothing was removed: add --yes")
