"""python -m analysis figures | status | store: from stored runs to figures; care of the store."""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from rich.console import Console
from rich.live import Live

from analysis.collect import Runs, collect
from analysis.figures import STYLE, curves_figure, density_figure
from analysis.status import overview
from analysis.store import add_arguments, look_after

WATCH_SECONDS = 1.0


def main() -> int:
    """Parse the command line and do what it says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True)
    figures = commands.add_parser("figures", help="merged tables (CSV) and the paper's figures")
    figures.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")])
    figures.add_argument("--out", type=Path, default=Path("figures"))
    figures.add_argument("--format", default="png", help="png, pdf, svg, or several: png,pdf")
    figures.set_defaults(command=draw)
    status = commands.add_parser("status", help="how runs and sweeps stand, from their files alone")
    status.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")])
    status.add_argument("--watch", action="store_true", help="until all have ended")
    status.set_defaults(command=tell)
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


def draw(arguments: argparse.Namespace) -> int:
    """Write levels.csv, metrics.csv and the figures of every experiment that is in the folders."""
    runs = collect(arguments.folders)
    for problem in runs.problems:
        print(f"note: {problem}", file=sys.stderr)
    if runs.levels.empty:
        print(f"no levels in {', '.join(map(str, arguments.folders))}: give folders of runs or "
              "sweeps, as in multirun/DATE/TIME.", file=sys.stderr)  # fmt: skip
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs.levels.drop(columns="setting").to_csv(arguments.out / "levels.csv", index=False)
    runs.metrics.drop(columns="setting").to_csv(arguments.out / "metrics.csv", index=False)
    print(f"{arguments.out}/levels.csv, metrics.csv: {runs.levels['run'].nunique()} runs")
    for name, title, levels, metrics in experiments(runs):
        with rc_context(STYLE):
            drawn = {
                "density": density_figure(levels, title),
                "curves": curves_figure(metrics, title),
            }
            for kind, figure in drawn.items():
                for ending in arguments.format.split(","):
                    file = arguments.out / f"{name}-{kind}.{ending}"
                    figure.savefig(file)
                    print(file)
    return 0


def experiments(runs: Runs) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """File name, title and rows of each experiment: runs that differ in arm, rate and seed only."""
    for network, of_network in runs.levels.groupby("network", sort=False):
        titles = sorted(of_network["experiment"].unique())
        for number, title in enumerate(titles, start=1):
            name = re.sub(r"[^\w.]+", "-", f"{network}".replace(" on ", "-")).strip("-")
            name += f"-{number}" if len(titles) > 1 else ""
            levels = of_network[of_network["experiment"] == title]
            yield name, title, levels, runs.metrics[runs.metrics["experiment"] == title]


if __name__ == "__main__":
    sys.exit(main())
