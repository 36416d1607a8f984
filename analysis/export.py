"""python -m analysis export: write the ticket of one level of a run to a file."""

import argparse
import sys
from pathlib import Path

from lth.errors import LotteryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of one run")
    parser.add_argument(
        "--level", type=int, help="level of the ticket (default: the last that is in the store)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("ticket.safetensors"),
        help="file to write (default: ticket.safetensors)",
    )


def export(arguments: argparse.Namespace) -> int:
    """Write the ticket; return 1 if it cannot be read or written."""
    from lth.audit.run_rules import open_run  # imports torch, which is slow
    from lth.store.store import Damaged
    from lth.ticket import save_ticket

    try:
        run = open_run(arguments.run)
        there = [level for level, training in run.trainings.items() if run.store.exists(training)]
        level = max(there, default=0) if arguments.level is None else arguments.level
        if level not in run.trainings:
            raise LotteryError(
                f"--level must be in 0 to {max(run.trainings)} for this run, got {level}"
            )
        save_ticket(arguments.out, level, run.trainings[level], run.builder())
    except (LotteryError, Damaged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: level {level} of {arguments.run}")
    return 0
