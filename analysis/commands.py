"""The commands `python -m analysis figures`, `claims`, `report` and `publish`."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import style
from rich.console import Console

from analysis.claims import judged
from analysis.collect import Runs, collect
from analysis.drawing import STYLE, FigureWithData
from analysis.figures import FIGURES, pages
from analysis.publish import publish_run
from analysis.report import write_report
from analysis.tables import claim_table, winner_table
from analysis.weights import WEIGHT_FIGURES
from analysis.winners import EPSILON, winners
from lth.errors import LotteryError
from lth.runs.status import find_runs


def claims(arguments: argparse.Namespace) -> int:
    """Print the paper's claims beside the measured numbers, and the winning levels."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    verdicts = list(judged(runs))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if verdicts:
        console.print(claim_table(verdicts))
    else:
        console.print("No run follows a preset of the paper at its rates: no claims to test.")
    epsilon = EPSILON if arguments.epsilon is None else arguments.epsilon
    console.print(winner_table(winners(runs.levels, epsilon), epsilon))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            found.claim._asdict() | found._asdict() | {"claim": found.claim.id}
            for found in verdicts
        ]
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the report page."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    write_report(runs, arguments.folders, arguments.out)
    print(arguments.out)
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Write each run to OUT/SWEEP/RUN; return 1 if one was left out, or none found."""
    published, left_out = 0, 0
    for folder in arguments.folders:
        for run in sorted(find_runs(folder)):
            try:
                publish_run(run, arguments.out / run.resolve().relative_to(folder.resolve().parent))
                published += 1
            except (LotteryError, OSError, ValueError, KeyError) as error:
                reason = str(error).removeprefix(f"{run}: ")  # a LotteryError names the folder
                print(f"{run}: left out ({reason})", file=sys.stderr)
                left_out += 1
    print(f"{arguments.out}: {published} runs")
    return int(left_out > 0 or published == 0)


def collected(folders: Sequence[Path]) -> Runs | None:
    """Read the runs and print what was left out; return None if there is no level."""
    runs = collect(folders)
    for problem in runs.problems:
        print(f"note: {problem}", file=sys.stderr)
    if runs.levels.empty:
        print(f"no levels in {', '.join(map(str, folders))}: give folders of runs or sweeps, e.g. "
              "multirun/DATE/TIME.", file=sys.stderr)  # fmt: skip
        return None
    return runs


def figures(arguments: argparse.Namespace) -> int:
    """Write levels.csv, and every figure that the runs support beside its numbers."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs.levels.drop(columns="setting").to_csv(arguments.out / "levels.csv", index=False)
    print(f"{arguments.out}/levels.csv: {runs.levels['run'].nunique()} runs")
    known = FIGURES | WEIGHT_FIGURES
    if unknown := sorted({*(arguments.only or ())} - {*known}):
        print(f"--only {' '.join(unknown)}: choose from {', '.join(known)}.", file=sys.stderr)
        return 1
    for name in arguments.only or (known if arguments.weights else FIGURES):
        with style.context(STYLE):
            found = list(pages(name, known[name], runs))
            for page, drawn in found:
                formats = [word.strip() for word in arguments.format.split(",")]
                save(drawn, arguments.out / page, formats)
            if arguments.only and not found:
                print(f"{name}: these runs lack the data that it shows", file=sys.stderr)
    return 0


def save(drawn: FigureWithData, file: Path, formats: Iterable[str]) -> None:
    """Write a figure in each format, and beside it its numbers."""
    for name in formats:
        drawn.figure.savefig(file.with_suffix(f".{name}"))
    drawn.numbers.to_csv(file.with_suffix(".csv"), index=False)
    print(f"{file}: {', '.join([*formats, 'csv'])}")
