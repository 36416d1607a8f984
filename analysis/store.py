"""python -m analysis store: list, verify or clean up a store of trainings."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from lth.errors import LotteryError
from lth.runs import status
from lth.runs.places import check_runs, check_store
from lth.runs.status import find_runs, state_of
from lth.store import cleanup
from lth.store.store import Store

Removal = tuple[str, list[Path], Callable[[Path], int], Callable[[Path], None]]
"""Description, paths, function for the bytes that a path frees, function that removes it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "store", nargs="?", type=Path, default=Path("multirun/store"),
        help="folder of the store (default: multirun/store)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", nargs="+", type=Path, metavar="FOLDER", default=[Path("multirun")],
        help="folders of all runs that use the store (default: multirun)",
    )  # fmt: skip
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--verify", action="store_true", help="check every file and every digest")
    action.add_argument(
        "--repair",
        action="store_true",
        help="move folders with faults to damaged/, so that the next run makes them again",
    )
    action.add_argument(
        "--remove", nargs="+", choices=("leftovers", "unused"), default=[],
        help="remove leftovers of killed processes and repairs, or trainings that no run needs",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("all", "ends", "none"), default="all",
        help="weights of finished runs to keep: all, of the first and last level and of what these "
        "start from (ends), or none; curves and masks stay",
    )  # fmt: skip
    parser.add_argument(
        "--yes", action="store_true", help="remove; without it, only list what would be removed"
    )


def manage(arguments: argparse.Namespace) -> int:
    """List, verify or clean up the store; return 1 after a fault."""
    check_store(arguments.store)
    store = Store(arguments.store)
    if arguments.verify:
        return _verify(store)
    if arguments.repair:
        return _repair(store, yes=arguments.yes)
    if not arguments.remove and arguments.weights == "all":
        _print_sizes(store)
        return 0
    _refuse_while_busy(store, arguments.runs)
    needs = status.needs_of(_runs_in(arguments.runs))
    found = cleanup.entries(store)
    if needs.trainings.isdisjoint(entry.digest for entry in found):
        raise LotteryError(
            f"{store.root}: none of these runs uses it. Give the folders of those that do: --runs"
        )
    removals = list(_removals(arguments, store, found, needs))
    _refuse_while_busy(store, arguments.runs)
    _remove(removals, yes=arguments.yes)
    return 0


def _runs_in(folders: Sequence[Path]) -> list[Path]:
    try:
        check_runs(folders)
    except LotteryError as error:
        raise LotteryError(
            f"--runs must name the folders of all runs that use this store: {error}"
        ) from error
    return [run for folder in folders for run in find_runs(folder)]


def _print_sizes(store: Store) -> None:
    table = Table("in the store", "files", "size", title=str(store.root), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    found = cleanup.sizes(store)
    for part, (count, size) in sorted(found.items(), key=lambda row: -row[1][1]):
        table.add_row(part, str(count), decimal(size))
    counts, sizes = zip(*found.values(), strict=True) if found else ((), ())
    table.add_section()
    table.add_row("all", str(sum(counts)), decimal(sum(sizes)))
    Console().print(table)


def _verify(store: Store) -> int:
    faults = list(cleanup.faults(store))
    for fault in faults:
        print(fault)
    if faults:
        print(
            f"{len(faults)} faults. "
            f"Repair them: python -m analysis store {store.root} --repair --yes"
        )
    else:
        print(f"no faults: all files of {len(cleanup.entries(store))} folders are as published.")
    return int(bool(faults))


def _repair(store: Store, *, yes: bool) -> int:
    """Move the folders with faults out of the way."""
    if busy := cleanup.busy(store):
        raise LotteryError(
            f"{store.root}: {busy} trainings are in progress. Wait until they have ended, or stop "
            "them."
        )
    moved = 0
    for entry in cleanup.entries(store):
        if faults := list(cleanup.faults_of(entry)):
            print(f"{entry.path}: {'; '.join(faults)}")
            moved += 1
            if yes:
                store.move_aside(entry.path)
    done = "moved to damaged/: the same commands make them again" if yes else "found: add --yes"
    print(f"{moved} damaged folders {done}")
    return 0


def _refuse_while_busy(store: Store, folders: Sequence[Path]) -> None:
    running = [run for run in _runs_in(folders) if state_of(run) == "running"]
    busy = cleanup.busy(store)
    if running or busy:
        raise LotteryError(
            f"{store.root}: {len(running)} runs are running, and {busy} trainings are "
            "in progress. Wait until they have ended, or stop them."
        )


def _removals(
    arguments: argparse.Namespace, store: Store, found: list[cleanup.Entry], needs: status.Needs
) -> Iterable[Removal]:
    if "leftovers" in arguments.remove:
        yield "leftovers", cleanup.leftovers(store, needs.unfinished), cleanup.size, store.remove
    unused = set(cleanup.unused(found, needs.trainings)) if "unused" in arguments.remove else set()
    if unused:
        yield "folders that no run needs", sorted(unused), cleanup.size, store.remove
    if arguments.weights != "all":
        keep = needs.unfinished | (needs.ends if arguments.weights == "ends" else set())
        kept = [entry for entry in found if entry.path not in unused]
        yield "weights", cleanup.weights(kept, keep), cleanup.weight_size, store.drop_weights


def _remove(removals: Iterable[Removal], *, yes: bool) -> None:
    for what, paths, size, remove in removals:
        line = f"{what}: {len(paths)}, {decimal(sum(map(size, paths)))}"
        for path in paths if yes else ():
            remove(path)
        print(f"{line} {'removed' if yes else 'would be removed'}")
    if not yes:
        print("nothing was removed: add --yes")
