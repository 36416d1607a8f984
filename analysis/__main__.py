"""python -m analysis COMMAND: from stored runs to the paper's figures and claims; care of both."""

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live

from analysis import export, store, verify
from analysis.status import overview

WATCH_SECONDS = 1.0
RUNS = {"nargs": "*", "type": Path, "default": [Path("multirun")],
        "help": "folders of runs or sweeps (multirun)"}  # fmt: skip


def main() -> int:
    """Parse the command line and do what it says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, told, fill, command in (
        ("figures", "merged tables (CSV) and the paper's figures", _of_figures, _later("draw")),
        ("claims", "the paper's numbers against the measured ones", _of_claims, _later("weigh")),
        ("report", "all of it on one page, for a browser", _of_report, _later("report")),
        ("verify", "whether runs are what they claim", verify.add_arguments, verify.verify),
        ("export", "a ticket as a file for any torch code", export.add_arguments, export.export),
        ("publish", "finished runs as small files", _of_publish, _later("publish")),
        ("status", "how runs stand, from their files alone", _of_status, tell),
        ("store", "what is in the store; its care", store.add_arguments, store.look_after),
    ):
        own = commands.add_parser(name, help=told)
        fill(own)
        own.set_defaults(command=command)
    arguments = parser.parse_args()
    code: int = arguments.command(arguments)
    return code


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """A function of `analysis.commands`, which takes two seconds to import."""

    def command(arguments: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module("analysis.commands"), name)(arguments)
        return code

    return command


def _of_figures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument("--only", nargs="+", metavar="FIGURE", help="e.g. figure4 layers")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--format", default="png", help="png, pdf, svg, or several: png,pdf")
    told = "those of appendix F as well, which read the store"
    parser.add_argument("--weights", action="store_true", help=told)


def _of_claims(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    told = "how far below dense a winning ticket may be (0.001: 0.1 points)"
    parser.add_argument("--epsilon", type=float, help=told)
    parser.add_argument("--out", type=Path, help="a CSV to write the verdicts to")


def _of_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument("--out", type=Path, default=Path("report.html"))


def _of_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs or sweeps")
    parser.add_argument("--out", type=Path, required=True, help="e.g. multirun/reference/NAME")


def _of_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument("--watch", action="store_true", help="until all have ended")


def tell(arguments: argparse.Namespace) -> int:
    """Print where runs stand; the exit code is 1 where one failed, was killed or cannot be read."""
    console = Console(highlight=False)
    picture, states = overview(arguments.folders)
    if arguments.watch:
        with Live(picture, console=console, transient=True) as live:
            while "running" in states:
                time.sleep(WATCH_SECONDS)
                picture, states = overview(arguments.folders)
                live.update(picture)
    console.print(picture, soft_wrap=True)
    return int(bool(states & {"failed", "killed", "unreadable"}) or not states)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has seen enough: no traceback
    sys.exit(main())
