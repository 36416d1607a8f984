"""Compare the results of two ways to train, paired by seed: accuracies and early-stop iterations of
winning tickets. The plain way is autograd alone, the other one the fast backends.

python -m benchmarks.backends [--seeds 10] [--first 0] [--both KEY=VALUE ...]
    [--plain KEY=VALUE ...] [--fast KEY=VALUE ...] [--keep FOLDER]

--both preset=lenet: settings of all runs (the digits where none are given)
--plain training.precision=float32: settings of the plain runs (backend=eager)
--fast training.precision=bfloat16: settings of the fast runs (the default ones)
--keep FOLDER: keep the runs there; the same command again goes on
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import t

ROOT = Path(__file__).parents[1]
COMPARED = ("early_stop_test_accuracy", "final_test_accuracy", "early_stop_iteration")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="first seed (0)")
    parser.add_argument("--both", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plain", nargs="*", default=["backend=eager"], metavar="KEY=VALUE")
    parser.add_argument("--fast", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or temporary
        plain = sweep(Path(folder, "plain"), seeds, *arguments.both, *arguments.plain)
        fast = sweep(Path(folder, "fast"), seeds, *arguments.both, *arguments.fast)
    differences = fast[list(COMPARED)] - plain[list(COMPARED)]
    console = Console()
    table = Table("level", "density", *COMPARED)
    table.title = f"fast minus plain, n = {arguments.seeds} seeds, mean ± half of the 95 % interval"
    for level, rows in differences.groupby("level"):
        density = fast.loc[rows.index, "density"].mean()
        table.add_row(str(level), f"{density:.1%}", *(in_words(rows[name]) for name in COMPARED))
    of_seed = differences[differences.ne(0).any(axis=1).groupby("level").transform("any")]
    means = of_seed.groupby("seed").mean()
    table.add_section()
    table.add_row("mean", "levels that differ", *(in_words(means[name]) for name in COMPARED))
    console.print(table)


def sweep(folder: Path, seeds: range, *overrides: str) -> pd.DataFrame:
    """Run a sweep over `seeds`. Return the rows of all levels.csv, by level and seed."""
    swept = f"seed=range({seeds.start},{seeds.stop})"
    words = [sys.executable, str(ROOT / "run.py"), "-m", swept, *overrides]
    folder.mkdir(parents=True, exist_ok=True)
    command = [*words, "hydra.sweep.dir=sweep"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    tables = [
        pd.read_csv(folder / "sweep" / f"{number}" / "levels.csv").assign(seed=seed)
        for number, seed in enumerate(seeds)
    ]
    return pd.concat(tables).set_index(["level", "seed"])


def in_words(differences: "pd.Series[float]") -> str:
    """Return the mean and half of Student's 95 % interval; `!` marks intervals without zero."""
    values = differences.to_numpy(float)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mark = " !" if abs(values.mean()) > half else ""
    return f"{values.mean():+.4g} ± {half:.2g}{mark}"


if __name__ == "__main__":
    main()
