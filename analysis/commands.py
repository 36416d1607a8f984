"""The commands `python -m analysis figures`, `claims`, `report` and `publish`."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pandas as pd
from matplotlib import style
from matplotlib.backend_bases import FigureCanvasBase
from rich.console import Console

from analysis.claims import judged
from analysis.clear import removable
from analysis.collect import collect
from analysis.drawing import STYLE, FigureWithData
from analysis.early import near_minimum
from analysis.figures import FIGURES, pages
from analysis.needs import Lacking
from analysis.outputs import check_out_file, check_out_folder
from analysis.publish import publish_run
from analysis.report import write_report
from analysis.runs import Runs
from analysis.tables import claim_table, winner_table
from analysis.weights import WEIGHT_FIGURES
from analysis.winners import EPSILON, winners
from lth.errors import LotteryError
from lth.experiment.config import CONF
from lth.experiment.spelling import did_you_mean, similar_options
from lth.runs.places import check_runs
from lth.runs.status import find_runs

CLEAR = "python -m analysis status --clear removes the folders of runs without results"


def claims(arguments: argparse.Namespace) -> int:
    """Print the paper's claims beside the measured numbers, and the winning levels."""
    if arguments.out:
        check_out_file(arguments.out)
    runs = collected(arguments.folders, arguments.tolerance)
    verdicts = list(judged(runs))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if verdicts:
        console.print(claim_table(verdicts))
    else:
        console.print("No run follows a preset of the paper at its rates: no claims to test.")
    epsilon = EPSILON if arguments.epsilon is None else arguments.epsilon
    if not 0 <= epsilon < 1:
        raise LotteryError(
            f"--epsilon must be in [0, 1), a fraction, got {epsilon:g}; 0.001 is 0.1 points"
        )
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
    check_out_file(arguments.out, ".html")
    runs = collected(arguments.folders, arguments.tolerance)
    write_report(runs, arguments.folders, arguments.out)
    print(arguments.out)
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Write each run to OUT/SWEEP/RUN; return 1 if one was left out."""
    check_runs(arguments.folders)
    check_out_folder(arguments.out)
    targets = {
        run: arguments.out / run.resolve().relative_to(folder.resolve().parent)
        for folder in arguments.folders
        for run in sorted(find_runs(folder))
    }
    _check_different(targets)
    _check_published(arguments.out, set(targets.values()))
    published, left_out = 0, 0
    for run, target in targets.items():
        try:
            publish_run(run, target)
            published += 1
        except (LotteryError, OSError, ValueError, KeyError) as error:
            reason = str(error).removeprefix(f"{run}: ")  # a LotteryError names the folder
            print(f"{run}: left out ({reason})", file=sys.stderr)
            left_out += 1
    print(f"{arguments.out}: {published} runs")
    return int(left_out > 0)


def _check_different(targets: Mapping[Path, Path]) -> None:
    """Raise LotteryError if two runs would be written to one folder."""
    runs: dict[Path, Path] = {}
    for run, target in targets.items():
        if (other := runs.setdefault(target, run)) != run:
            raise LotteryError(
                f"{other} and {run} would both be written to {target}. Publish one of them to "
                "another folder, or name folders above them that differ."
            )


def _check_published(out: Path, targets: AbstractSet[Path]) -> None:
    """Raise LotteryError if `out` holds other runs: figures would mix them with these."""
    others = sorted(set(find_runs(out)) - targets) if out.is_dir() else []
    if others:
        raise LotteryError(
            f"{out.resolve()} must hold no other runs, and has {len(others)}, e.g. {others[0]}. "
            "Name another folder with --out."
        )


def collected(folders: Sequence[Path], tolerance: float) -> Runs:
    """Read the runs, with early stops within this tolerance, and print what was left out. Raises
    LotteryError if there is no level."""
    check_runs(folders)
    runs = near_minimum(collect(folders), tolerance)
    for problem in runs.problems:
        print(f"note: {problem}", file=sys.stderr)
    if runs.problems and any(removable(folders)):
        print(f"note: {CLEAR}", file=sys.stderr)
    if runs.levels.empty:
        places = ", ".join(str(folder.absolute()) for folder in folders)
        raise LotteryError(f"the runs in {places} have no level yet. Wait, or name other folders.")
    return runs


def figures(arguments: argparse.Namespace) -> int:
    """Write levels.csv, and every figure that the runs support beside its numbers; return 1 if one
    that is named lacks its data."""
    known = FIGURES | WEIGHT_FIGURES
    formats = [name for word in arguments.format for name in word.split(",") if name]
    _check_names(arguments.only or (), known)
    _check_formats(formats)
    check_out_folder(arguments.out)
    runs = collected(arguments.folders, arguments.tolerance)
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs.levels.drop(columns="setting").to_csv(arguments.out / "levels.csv", index=False)
    print(f"{arguments.out}/levels.csv: {_counted(runs)}")
    before = {*arguments.out.iterdir()}
    lacking, written = 0, set[Path]()
    for name in arguments.only or (known if arguments.weights else FIGURES):
        try:
            with style.context(STYLE):
                for page, drawn in pages(name, known[name], runs):
                    written |= save(drawn, arguments.out / page, formats)
        except Lacking as why:
            lacking += 1
            if arguments.only:
                print(f"{name} cannot be drawn: {why}{_remedy(name)}", file=sys.stderr)
    earlier = [file for file in before - written if file.stem.partition("-")[0] in known]
    if earlier and not arguments.only:
        print(
            f"note: {arguments.out} also holds {len(earlier)} files of earlier calls, e.g. "
            f"{min(earlier).name}",
            file=sys.stderr,
        )
    return int(bool(arguments.only and lacking))


def _counted(runs: Runs) -> str:
    """Return how many runs have results, in words, and how many repeat those of others."""
    own = runs.levels["run"].nunique()
    repeats = len(runs.identities) - own
    return f"{own} runs" + f", and {repeats} with the same results as another" * bool(repeats)


def _check_names(names: Iterable[str], known: Mapping[str, object]) -> None:
    unknown = [name for name in names if name not in known]
    if folders := [name for name in unknown if Path(name).is_dir()]:
        raise LotteryError(
            f"--only takes names of figures, got the folder {folders[0]}. Write folders before "
            f"--only: python -m analysis figures {' '.join(folders)} --only ..."
        )
    if unknown:
        close = [similar for name in unknown for similar in similar_options(name, known)]
        raise LotteryError(
            f"no figure {', '.join(unknown)}{did_you_mean([*dict.fromkeys(close)]) or '.'} There "
            f"are {', '.join(known)}"
        )


def _check_formats(formats: Iterable[str]) -> None:
    possible = FigureCanvasBase.get_supported_filetypes()
    if wrong := [name for name in formats if name not in possible]:
        raise LotteryError(
            f"--format must be of {', '.join(sorted(possible))}, or several: png,pdf; got "
            f"{', '.join(wrong)}"
        )


def _remedy(figure: str) -> str:
    """Return the command that makes the runs of a figure, if it has one of its own."""
    made = (CONF / f"experiment/{figure}.yaml").exists()
    return f". To make them: python run.py experiment={figure}" if made else ""


def save(drawn: FigureWithData, file: Path, formats: Iterable[str]) -> set[Path]:
    """Write a figure in each format, and beside it its numbers. Print what it is about, and return
    the files."""
    pictures = {file.with_suffix(f".{name}") for name in formats}
    for picture in pictures:
        drawn.figure.savefig(picture)
    drawn.numbers.to_csv(file.with_suffix(".csv"), index=False)
    about = "; ".join(drawn.numbers["experiment"].unique())
    print(f"{file}: {', '.join([*formats, 'csv'])} ({about})")
    return {*pictures, file.with_suffix(".csv")}
