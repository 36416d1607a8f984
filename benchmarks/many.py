"""Measure the time and memory that `analysis` takes for a large sweep of made-up results.

python -m benchmarks.many [--runs 1000] [--levels 28] [--evaluations 501]
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from analysis.explorer.live import Live
from lth.experiment import lottery
from lth.experiment.config import composed
from lth.experiment.names import arm_name, rate_name
from lth.experiment.recipe import identity
from lth.experiment.results import Evaluation, Outcome
from lth.experiment.settings import Spec
from lth.runs.folder import RunFolder

ROOT = Path(__file__).parents[1]
WATCHED = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
CURVES = 20
"""Number of different curves, which the runs share: reading takes as long."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--levels", type=int, default=28)
    parser.add_argument("--evaluations", type=int, default=501)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, random = Path(name), np.random.default_rng(0)
        curves = [curve(random, sizes.evaluations) for _ in range(CURVES)]
        arms = [composed("preset=lenet", f"rewind={arm}") for arm in ("init", "reinit")]
        for number in range(sizes.runs):
            seed, arm = divmod(number, len(arms))
            of_run = dataclasses.replace(arms[arm], seed=seed)
            write(folder / "sweep" / f"{number}", of_run, number, sizes.levels, curves)
        size = sum(file.stat().st_size for file in folder.rglob("*.csv"))
        print(f"{sizes.runs} runs of {sizes.levels} levels, {size / 1e9:.2f} GB of tables")
        for words in (("figures", "--out", f"{folder}/figures"), ("claims",),
                      ("report", "--out", f"{folder}/report.html")):  # fmt: skip
            seconds, memory = measured(words[0], f"{folder}/sweep", *words[1:])
            print(f"{words[0]}: {seconds:.1f} s, {memory} MB")
        live = Live([folder / "sweep"])
        print(f"explore: {timed(live.refresh):.2f} s to load")
        print(f"explore: {timed(live.refresh):.2f} s to look again")
        write(folder / "sweep/new", arms[0], sizes.runs, sizes.levels, curves)
        print(f"explore: {timed(live.refresh):.2f} s to add a run")


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measured(*words: str) -> tuple[float, int]:
    """Run a command of `analysis`. Return its seconds and its peak memory in MB. A small process
    without torch starts it: the kernel counts the memory of the forking process as its own."""
    command = [sys.executable, "-m", "analysis", *words]
    started = time.perf_counter()
    printed = subprocess.run(
        [sys.executable, "-c", WATCHED, *command], cwd=ROOT, check=True, capture_output=True
    )
    return time.perf_counter() - started, int(printed.stdout.split()[-1]) // 1024


def write(
    folder: Path, spec: Spec, number: int, levels: int, curves: list[list[Evaluation]]
) -> None:
    """Write a run of the LeNet preset with made-up numbers, by the code that writes real runs."""
    folder.mkdir(parents=True)
    status = {
        "overrides": [], "groups": {"model": "lenet_300_100", "dataset": "mnist"},
        "preset": "lenet", "arm": arm_name(spec), "rate": rate_name(spec.pruning),
        "levels": levels - 1, "identity": identity(spec), "spec": dataclasses.asdict(spec),
    }  # fmt: skip
    trainings = dict(lottery.levels(spec))
    with RunFolder(folder, status) as run:
        for level in range(levels):
            kept = round(266_200 * 0.8**level)
            weights = {f"{place}.weight": (kept // 3, 266_200 // 3) for place in (1, 3, 5)}
            outcome = Outcome(curves[(number + level) % CURVES], 1.0, 1.0, weights, 50.0)
            run.add(level, trainings[level], outcome, cached=True)


def curve(random: np.random.Generator, evaluations: int) -> list[Evaluation]:
    """Return a random curve; test values at every tenth evaluation and at the early stop."""
    numbers = random.random((evaluations, 5))
    lowest = np.arange(evaluations) == numbers[:, 1].argmin()
    numbers[(np.arange(evaluations) % 10 > 0) & ~lowest, 3:] = np.nan
    return [Evaluation(100 * i, 0.0012, *row) for i, row in enumerate(numbers.tolist())]


if __name__ == "__main__":
    main()
