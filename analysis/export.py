"""python -m analysis export: write the ticket of one level of a run, or the trained network without
its pruned units, to a file."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.outputs import check_out_file
from lth.errors import Interrupted, LotteryError
from lth.runs.places import check_one_run
from lth.runs.status import NOT_PUBLISHED
from lth.store.cleanup import is_store

if TYPE_CHECKING:
    from lth.audit.run_rules import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of one run")
    parser.add_argument(
        "--level", type=int, help="level of the ticket (default: the last that is in the store)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write, replaced if it exists (default: ticket-level-LEVEL.safetensors, which "
        "must not exist)",
    )

    parser.add_argument(
        "--smaller",
        action="store_true",
        help="write the trained network without the units that were pruned, as a dense network for "
        "torch.export.load (default file: network-level-LEVEL.pt2)",
    )


def export(arguments: argparse.Namespace) -> int:
    """Write the ticket; return 1 if that is interrupted. Raises LotteryError if the ticket cannot
    be read, made or written."""
    from lth.audit.run_rules import open_run  # imports torch, which is slow
    from lth.store.store import Damaged
    from lth.ticket import save_smaller, save_ticket, ticket_of

    ending = ".pt2" if arguments.smaller else ".safetensors"
    if arguments.out:
        check_out_file(arguments.out, ending)
    check_one_run(arguments.run, "export")
    run = open_run(arguments.run)
    _check_store(run)
    level = _level(run, arguments.level)
    named = "network" if arguments.smaller else "ticket"
    out = arguments.out or _new_file(f"{named}-level-{level}{ending}")
    try:
        _make_weights(run, level)
        ticket = ticket_of(level, run.trainings[level], run.builder())
        (save_smaller if arguments.smaller else save_ticket)(out, ticket)
    except Damaged as damage:
        raise LotteryError(
            f"{damage}. "
            f"Repair the store: python -m analysis store {run.store.root} --repair --yes. "
            f"Then train it again: python run.py {' '.join(run.status['overrides'])}"
        ) from damage
    except Interrupted:
        print("interrupted: the same command continues", file=sys.stderr)
        return 1
    print(f"{out}: level {level} of {arguments.run}")
    return 0


def _level(run: "Run", asked: int | None) -> int:
    """Return the level to export: by default, the last one that is stored. Raises LotteryError if
    the run has no such level."""
    there = [level for level, training in run.trainings.items() if run.store.exists(training)]
    level = max(there, default=0) if asked is None else asked
    if level not in run.trainings:
        raise LotteryError(
            f"--level must be in 0 to {max(run.trainings)} for this run, got {level}"
        )
    return level


def _new_file(name: str) -> Path:
    """Return the file to write where none is named. Raises LotteryError if it exists."""
    out = Path(name)
    if out.exists():
        raise LotteryError(
            f"{out.absolute()} exists already, perhaps that of another run. Name a file with --out."
        )
    return out


def _check_store(run: "Run") -> None:
    """Raise LotteryError if the store of a run is not there."""
    if is_store(run.store.root):
        return
    place, command = run.path.absolute(), f"python run.py {' '.join(run.status['overrides'])}"
    if run.spec.store == NOT_PUBLISHED:
        raise LotteryError(
            f"{place} is a published run: its tables were published, its weights were not. To "
            f"train them, run its command: {command}"
        )
    raise LotteryError(
        f"{place}: its store, {run.spec.store}, was looked for in {Path.cwd()} and in every folder "
        "above the run, and is in none. Start the command in the folder that has it, or train the "
        f"run again: {command}"
    )


def _make_weights(run: "Run", level: int) -> None:
    """Train a level again if its weights, or those from which it starts, were dropped from the
    store, with all that they were made from and that was dropped as well."""
    from lth.engine.engine import engine_for
    from lth.engine.monitor import Watch
    from lth.engine.scheduler import missing
    from lth.runs.signals import stop_on_signal

    training, store = run.trainings[level], run.store
    needed = [training, *training.weights.needs()]
    again = missing(needed, store.is_made)
    if not again or not store.exists(training):
        return
    print(
        f"{store.root}: the weights of level {level} were dropped; training again, in "
        f"{len(again)} steps",
        file=sys.stderr,
    )
    spec = replace(run.spec, store=str(store.root), remake_weights=True)
    with stop_on_signal() as stopping:
        for node, _ in engine_for(spec, Watch(stopping=stopping)).ensure(again):
            print(f"made {node}", file=sys.stderr)
