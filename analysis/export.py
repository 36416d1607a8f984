"""python -m analysis export: the ticket of one level of a run, as a file for any torch code."""

import argparse
import sys
from pathlib import Path

from lth.errors import LotteryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of one run")
    parser.add_argument("--level", type=int, help="which ticket; by default the last")
    parser.add_argument("--out", type=Path, default=Path("ticket.safetensors"))


def export(arguments: argparse.Namespace) -> int:
    """Write the file; the exit code is 1 where that cannot be done."""
    from lth.audit.run_rules import opened  # torch takes a while: not before it is needed
    from lth.store.store import Damaged
    from lth.ticket import save_ticket

    try:
        run = opened(arguments.run)
        there = [level for level, training in run.trainings.items() if run.store.exists(training)]
        level = max(there, default=0) if arguments.level is None else arguments.level
        if level not in run.trainings:
            raise LotteryError(
                f"--level {level}: this run has levels 0 to {max(run.trainings)}. Choose one."
            )
        save_ticket(arguments.out, level, run.trainings[level], run.inputs())
    except (LotteryError, Damaged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: level {level} of {arguments.run}")
    return 0
