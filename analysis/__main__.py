"""python -m analysis COMMAND: figures, claims and reports from stored runs; checks and cleanup."""

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.live import Live

from analysis import export, store, verify
from analysis.clear import clear
from analysis.status import overview
from lth.errors import LotteryError
from lth.experiment.spelling import did_you_mean, similar_options
from lth.runs.places import check_runs

WATCH_SECONDS = 1.0
TOLERANCE = {
    "type": float,
    "default": 0.0,
    "metavar": "FRACTION",
    "help": "take as early stop the first iteration whose validation loss is at most this "
    "far above the lowest, e.g. 0.05 (default: 0, the paper's definition)",
}
RUNS = {"nargs": "*", "type": Path, "default": [Path("multirun")],
        "help": "folders of runs or sweeps (default: multirun)"}  # fmt: skip


def main() -> int:
    """Parse the command line, run the command, and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary, add_arguments, command in (
        ("figures", "draw the paper's figures, and write merged tables as CSV", _add_figures,
         _on_demand("figures")),
        ("claims", "compare the paper's numbers with the measured ones", _add_claims,
         _on_demand("claims")),
        ("report", "write runs, figures and claims to one HTML page", _add_report,
         _on_demand("report")),
        ("explore", "serve a page on this machine that shows runs while they run", _add_explore,
         _on_demand("explore", "analysis.explorer.server")),
        ("verify", "audit runs and the trainings behind them", verify.add_arguments,
         verify.verify),
        ("export", "write the ticket of one level to a file for any torch code",
         export.add_arguments, export.export),
        ("publish", "write runs as small files without paths or host", _add_publish,
         _on_demand("publish")),
        ("compare", "show what differs between two runs", _add_compare,
         _on_demand("command", "analysis.compare")),
        ("status", "show the state and progress of runs", _add_status, show_status),
        ("store", "list, verify or clean up the store of trainings", store.add_arguments,
         store.manage),
    ):  # fmt: skip
        subparser = commands.add_parser(name, help=summary, description=summary)
        add_arguments(subparser)
        subparser.set_defaults(command=command)
    try:
        _check_command(sys.argv[1:2], commands.choices)
        arguments = parser.parse_args()
        code: int = arguments.command(arguments)
    except LotteryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def _check_command(words: Iterable[str], known: Iterable[str]) -> None:
    """Raise LotteryError, which says what may be meant, if a first word is not a command."""
    known = list(known)
    for word in words:
        if word not in known and not word.startswith("-"):
            close = did_you_mean(similar_options(word, known)) or "."
            raise LotteryError(f"no command {word}{close} There are {', '.join(known)}")


def _on_demand(name: str, module: str = "analysis.commands") -> Callable[[argparse.Namespace], int]:
    """Return a function of a module that takes a second or two to import."""

    def command(arguments: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(module), name)(arguments)
        return code

    return command


def _add_figures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument(
        "--only", nargs="+", metavar="FIGURE", help="draw only these, e.g. figure4 layers"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("figures"), help="folder to write to (default: figures)"
    )
    parser.add_argument(
        "--format", nargs="+", default=["png"], metavar="FORMAT",
        help="png, pdf, svg, or several: png,pdf (default: png)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", action="store_true", help="also draw appendix F, which reads the store"
    )
    parser.add_argument("--tolerance", **TOLERANCE)  # type: ignore[arg-type]


def _add_claims(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument(
        "--epsilon", type=float,
        help="allowed accuracy loss of a winning ticket against dense (default: 0.001, 0.1 points)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="CSV file to write the verdicts to")
    parser.add_argument("--tolerance", **TOLERANCE)  # type: ignore[arg-type]


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="file to write (default: report.html)"
    )
    parser.add_argument("--tolerance", **TOLERANCE)  # type: ignore[arg-type]


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs or sweeps")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write to, e.g. multirun/reference/NAME"
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument("--watch", action="store_true", help="update until no run is running")
    parser.add_argument(
        "--clear", action="store_true",
        help="remove the folders of runs without results, and of unfinished runs that a later run "
        "completed; ask first",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="with --clear: do not ask")


def _add_explore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", **RUNS)  # type: ignore[arg-type]
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: 0, any that is free)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="folder of one run")


def show_status(arguments: argparse.Namespace) -> int:
    """Print the state of runs, or clear them; return 1 if one failed, was killed or cannot be
    read."""
    if arguments.clear:
        return clear(arguments)
    check_runs(arguments.folders)
    console = Console(highlight=False)
    picture, states = overview(arguments.folders)
    if arguments.watch:
        with Live(picture, console=console, transient=True) as live:
            while "running" in states:
                time.sleep(WATCH_SECONDS)
                picture, states = overview(arguments.folders)
                live.update(picture)
    console.print(picture, soft_wrap=True)
    return int(bool(states & {"failed", "killed", "unreadable"}))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` closes the pipe: no traceback
    sys.exit(main())
