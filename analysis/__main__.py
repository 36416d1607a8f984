"""python -m analysis COMMAND: from stored runs to the paper's figures and claims; care of both."""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import style
from rich.console import Console
from rich.live import Live

from analysis import export, verify
from analysis.claims import EPSILON, judged, winners
from analysis.collect import Runs, collect
from analysis.drawing import STYLE, Plate
from analysis.figures import FIGURES
from analysis.report import write_report
from analysis.status import overview
from analysis.store import add_arguments, look_after
from analysis.tables import claim_table, winner_table
from analysis.weights import WEIGHT_FIGURES

WATCH_SECONDS = 1.0


def main() -> int:
    """Parse the command line and do what it says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True)
    figures = commands.add_parser("figures", help="merged tables (CSV) and the paper's figures")
    figures.add_argument("--only", nargs="+", choices=[*FIGURES, *WEIGHT_FIGURES], metavar="FIGURE",
                         help=f"of {', '.join([*FIGURES, *WEIGHT_FIGURES])}")  # fmt: skip
    figures.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")])
    figures.add_argument("--out", type=Path, default=Path("figures"))
    figures.add_argument("--format", default="png", help="png, pdf, svg, or several: png,pdf")
    figures.add_argument("--weights", action="store_true",
                         help="those of appendix F as well, which read the store")  # fmt: skip
    figures.set_defaults(command=draw)
    status = commands.add_parser("status", help="how runs and sweeps stand, from their files alone")
    status.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")])
    status.add_argument("--watch", action="store_true", help="until all have ended")
    status.set_defaults(command=tell)
    claims = commands.add_parser("claims", help="the paper's numbers against the measured ones")
    claims.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")])
    claims.add_argument("--epsilon", type=float, default=EPSILON,
                        help="how far below dense a winning ticket may be")  # fmt: skip
    claims.add_argument("--out", type=Path, help="a CSV to write the verdicts to")
    claims.set_defaults(command=weigh)
    page = commands.add_parser("report", help="all of it on one page, for a browser")
    page.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")])
    page.add_argument("--out", type=Path, default=Path("report.html"))
    page.set_defaults(command=report)
    audit = commands.add_parser("verify", help="whether finished runs are what they claim")
    verify.add_arguments(audit)
    audit.set_defaults(command=verify.verify)
    ticket = commands.add_parser("export", help="one ticket as a file for any torch code")
    export.add_arguments(ticket)
    ticket.set_defaults(command=export.export)
    store = commands.add_parser("store", help="what is in the store, whether it is sound; removal")
    add_arguments(store)
    store.set_defaults(command=look_after)
    arguments = parser.parse_args()
    code: int = arguments.command(arguments)
    return code


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


def weigh(arguments: argparse.Namespace) -> int:
    """Print the paper's claims beside what runs measured, and which levels win."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    verdicts = list(judged(runs.levels))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if verdicts:
        console.print(claim_table(verdicts))
    else:
        console.print("No runs of the paper's networks at its rates: no claims to test.")
    console.print(winner_table(winners(runs.levels, arguments.epsilon), arguments.epsilon))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            found.claim._asdict() | found._asdict() | {"claim": found.claim.id}
            for found in verdicts
        ]
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the page."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    write_report(runs, arguments.folders, arguments.out)
    print(arguments.out)
    return 0


def collected(folders: Sequence[Path]) -> Runs | None:
    """The runs there, having told what was left out; None where there is none."""
    runs = collect(folders)
    for problem in runs.problems:
        print(f"note: {problem}", file=sys.stderr)
    if runs.levels.empty:
        print(f"no levels in {', '.join(map(str, folders))}: give folders of runs or sweeps, as in "
              "multirun/DATE/TIME.", file=sys.stderr)  # fmt: skip
        return None
    return runs


def draw(arguments: argparse.Namespace) -> int:
    """Write levels.csv, and every figure that the runs support with the numbers it shows."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs.levels.drop(columns="setting").to_csv(arguments.out / "levels.csv", index=False)
    print(f"{arguments.out}/levels.csv: {runs.levels['run'].nunique()} runs")
    known = FIGURES | (WEIGHT_FIGURES if arguments.weights else {})
    for name in arguments.only or known:
        with style.context(STYLE):
            plate = (FIGURES | WEIGHT_FIGURES)[name](runs)
            if plate is not None:
                save(
                    plate,
                    arguments.out / name,
                    [word.strip() for word in arguments.format.split(",")],
                )
            elif arguments.only:
                print(f"{name}: these runs do not have what it shows", file=sys.stderr)
    return 0


def save(plate: Plate, file: Path, endings: Iterable[str]) -> None:
    """The figure in each format, and beside it the numbers that it shows."""
    for ending in endings:
        plate.figure.savefig(file.with_suffix(f".{ending}"))
    plate.numbers.to_csv(file.with_suffix(".csv"), index=False)
    print(f"{file}: {', '.join([*endings, 'csv'])}")


if __name__ == "__main__":
    sys.exit(main())
