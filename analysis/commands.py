"""What `python -m analysis figures`, `claims`, `report` and `publish` do."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import style
from rich.console import Console

from analysis.claims import EPSILON, judged, winners
from analysis.collect import Runs, collect
from analysis.drawing import STYLE, Plate
from analysis.figures import FIGURES
from analysis.publish import publish_run
from analysis.report import write_report
from analysis.tables import claim_table, winner_table
from analysis.weights import WEIGHT_FIGURES
from lth.runs.status import find_runs


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
    """Write the page."""
    runs = collected(arguments.folders)
    if runs is None:
        return 1
    write_report(runs, arguments.folders, arguments.out)
    print(arguments.out)
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Write each run to OUT/SWEEP/RUN; the exit code is 1 where one was left out, or none found."""
    published, left_out = 0, 0
    for folder in arguments.folders:
        for run in sorted(find_runs(folder)):
            try:
                publish_run(run, arguments.out / run.resolve().relative_to(folder.resolve().parent))
                published += 1
            except (OSError, ValueError, KeyError) as error:
                print(f"{run}: left out ({error})", file=sys.stderr)
                left_out += 1
    print(f"{arguments.out}: {published} runs")
    return int(left_out > 0 or published == 0)


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
    known = FIGURES | WEIGHT_FIGURES
    if unknown := sorted({*(arguments.only or ())} - {*known}):
        print(f"--only {' '.join(unknown)}: choose of {', '.join(known)}.", file=sys.stderr)
        return 1
    for name in arguments.only or (known if arguments.weights else FIGURES):
        with style.context(STYLE):
            plate = known[name](runs)
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
