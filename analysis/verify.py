"""python -m analysis verify: audit finished runs and the trainings behind them."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lth.runs.places import check_runs
from lth.runs.status import find_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("multirun")],
        help="folders of runs or sweeps (default: multirun)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="check only files and masks; evaluate no weights"
    )


def verify(arguments: argparse.Namespace) -> int:
    """Print every violation and its place; return 1 if there is one."""
    check_runs(arguments.folders)
    from lth.audit.audit import Audit  # imports torch, which is slow

    audit, found, noted = Audit(quick=arguments.quick), 0, set[str]()
    console = Console(highlight=False)

    def show_notes(notes: Iterable[str]) -> None:
        new = [note for note in notes if note not in noted]
        noted.update(new)
        for note in new:
            console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)

    for run in sorted({run for folder in arguments.folders for run in find_runs(folder)}):
        for violation in audit.of_run(run):
            found += 1
            show_notes(audit.notes)  # they may explain what follows
            line = f"{violation.where}: [{violation.rule}] {violation.what}"
            console.print(Text(line, style="red"), soft_wrap=True)
    show_notes([*audit.notes, *audit.mixtures()])
    checked = f"{audit.runs} runs, {audit.trainings} trainings"
    console.print(f"{checked}: {f'{found} violations' if found else 'nothing found'}")
    return int(found > 0)
