"""Do fast backends give the results of the plain one? Ten seeds of a winning ticket on the digits,
by autograd alone and by whatever is fastest: accuracies and early stops, paired by seed.

python -m benchmarks.backends [KEY=VALUE ...]    e.g. training.precision=medium, for its effect
"""

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
SEEDS = 10
COMPARED = ("early_stop_test_accuracy", "final_test_accuracy", "early_stop_iteration")


def main() -> None:
    overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        plain = sweep(Path(folder, "plain"), "backend=eager")
        fast = sweep(Path(folder, "fast"), *overrides)
    table = Table("level", "density", *COMPARED, title=f"fast less plain, n = {SEEDS}, ± 95 %")
    for level, rows in fast.groupby("level"):
        pairs = rows.merge(plain[plain["level"] == level], on="seed", suffixes=("", " plain"))
        differences = [pairs[name] - pairs[f"{name} plain"] for name in COMPARED]
        table.add_row(str(level), f"{rows['density'].mean():.1%}", *map(in_words, differences))
    Console().print(table)


def sweep(folder: Path, *overrides: str) -> pd.DataFrame:
    """levels.csv of ten seeds."""
    words = [sys.executable, str(ROOT / "run.py"), "-m", f"seed=range({SEEDS})", *overrides]
    folder.mkdir()
    command = [*words, "hydra.sweep.dir=sweep"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    tables = [
        pd.read_csv(folder / "sweep" / f"{seed}" / "levels.csv").assign(seed=seed)
        for seed in range(SEEDS)
    ]
    return pd.concat(tables)


def in_words(differences: "pd.Series[float]") -> str:
    """Mean and half of Student's 95 % interval; `!` where that excludes zero."""
    values = differences.to_numpy(float)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mark = " !" if abs(values.mean()) > half else ""
    return f"{values.mean():+.4g} ± {half:.2g}{mark}"


if __name__ == "__main__":
    main()
