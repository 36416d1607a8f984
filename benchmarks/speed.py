"""Measure the time of a step, an evaluation, a lineage and a sweep against the baseline loop.

python -m benchmarks.speed    takes half an hour on an idle machine; needs MNIST (LTH_DATA)

Rounds alternate between the cases compared, so that slow phases of the machine affect all of them.
Prints tables, and writes them with a description of the machine to benchmarks/results/.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.baseline import BaselineLoop, mnist_for_torchvision, mnist_parts
from benchmarks.timing import CORES, Ours, Times, alternating, floor, machine, table
from lth.engine.build import Builder
from lth.engine.engine import Engine
from lth.engine.maker import Maker
from lth.experiment import lottery
from lth.experiment.config import composed
from lth.experiment.recipe import recipe
from lth.store.store import Store
from lth.training.data import Data

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DENSITIES = (1.0, 0.51, 0.21, 0.07, 0.036, 0.012)
ROUNDS, STEPS = 5, 200
EVALUATE_EVERY = 100
LEVELS, ITERATIONS = 21, 10_000
SWEEP = ("-m", "preset=lenet", "pruning.rate=10,20", "seed=0,1,2", "rewind=init,reinit")
MEASURED = (
    "import resource, subprocess, sys;"
    "code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
    "sys.exit(code)"
)
"""A small process between this one and a command: the peak memory of a child that a large process
starts is at least that of the large process."""
SWEEP_LEVELS, SWEEP_ITERATIONS = 20, 2000


def steps(baseline: BaselineLoop, ours: Mapping[float, Ours]) -> dict[str, Times]:
    """Measure a step of each network."""
    cases = {"baseline": baseline.seconds_per_step}
    cases |= {f"{density:.1%}": of_density.seconds_per_step for density, of_density in ours.items()}
    return alternating({name: partial(timed, STEPS) for name, timed in cases.items()}, ROUNDS)


def evaluations(baseline: BaselineLoop, ours: Mapping[float, Ours], data: Data) -> dict[str, Times]:
    """Measure an evaluation: of both parts together for the baseline, of each part for ours."""
    cases: dict[str, Callable[[], float]] = {"baseline": baseline.seconds_per_evaluation}
    for density, of_density in ours.items():
        for name, part in (("validation", data.validation), ("test", data.test)):
            cases[f"{density:.1%} {name}"] = partial(of_density.seconds_per_evaluation, part)
    return alternating(cases, rounds=3)


def lineage() -> list[float]:
    """Return the seconds per iteration at each level of a real lineage, everything included."""
    spec = composed(
        "preset=lenet", f"training.iterations={ITERATIONS}", f"pruning.levels={LEVELS}",
        f"training.evaluate_every={EVALUATE_EVERY}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store, root = Store(Path(folder)), Path(spec.dataset.root)
        engine = Engine(Maker(Builder(store, root, torch.device("cpu"))))
        trainings = [training for _, training in lottery.levels(spec)]
        return [outcome.seconds / ITERATIONS for _, outcome in engine.ensure(trainings)]


def command(*overrides: str) -> tuple[float, int]:
    """Run run.py. Return its seconds and the peak memory of its largest process in MB."""
    words = [sys.executable, str(ROOT / "run.py"), *overrides]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MEASURED, *words], cwd=folder,
                              stdout=subprocess.PIPE, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}")
    return time.perf_counter() - started, int(done.stdout) // 1024


def sweep() -> dict[str, float]:
    """Return the seconds of one sweep with a shared store, and with a store for each run."""
    budget = (f"training.iterations={SWEEP_ITERATIONS}", f"pruning.levels={SWEEP_LEVELS}")
    words = (*SWEEP, *budget, f"training.evaluate_every={EVALUATE_EVERY}")
    own = "store=multirun/${hydra:job.num}"
    return {"shared": command(*words)[0], "not shared": command(*words, own)[0]}


def baseline_on_all_cores(root: Path) -> float:
    """Return the seconds per iteration, evaluation included, with a baseline loop on every core."""
    code = (
        "import sys; from benchmarks.speed import *; torch.set_num_threads(1);"
        "loop = BaselineLoop(recipe(composed('preset=lenet')), mnist_parts(Path(sys.argv[1])));"
        "loop.seconds_per_step(50);"
        "print(loop.seconds_per_step(200) + loop.seconds_per_evaluation() / EVALUATE_EVERY)"
    )
    words = [sys.executable, "-c", code, str(root)]
    loops = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(CORES)
    ]
    return statistics.mean(float(loop.communicate()[0]) for loop in loops)


def measure(threads: int, root: Path) -> dict[str, Any]:
    """Measure and print steps and evaluations. Return the seconds of each round."""
    torch.set_num_threads(threads)
    spec = composed("preset=lenet", f"training.evaluate_every={EVALUATE_EVERY}")
    of_spec = recipe(spec)
    build = Builder(Store(root / "store"), Path(spec.dataset.root), torch.device("cpu"))
    data = build.data(of_spec)
    baseline = BaselineLoop(of_spec, mnist_parts(root))
    ours = {density: Ours(of_spec, data, density) for density in DENSITIES}
    of_step, of_evaluation = steps(baseline, ours), evaluations(baseline, ours, data)
    console = Console()
    rows = [
        (n, t.in_ms(), f"{of_step['baseline'].median / t.median:.1f}") for n, t in of_step.items()
    ]
    console.print(table(f"a step, {threads} threads", ("", "ms", "times faster"), rows))
    rows = [(name, times.in_ms(), "") for name, times in of_evaluation.items()]
    console.print(table(f"an evaluation, {threads} threads", ("", "ms", ""), rows))
    return {
        "step": {name: times.rounds for name, times in of_step.items()},
        "evaluation": {name: times.rounds for name, times in of_evaluation.items()},
    }


def report_lineage(console: Console, found: dict[str, Any]) -> None:
    """Measure and print a lineage beside the baseline of `found`, which it is added to."""
    one = found["threads=1"]
    baseline = statistics.median(one["step"]["baseline"])
    baseline += statistics.median(one["evaluation"]["baseline"]) / EVALUATE_EVERY
    torch.set_num_threads(1)
    found["lineage"] = levels = lineage()
    ours = statistics.mean(levels)
    rows = [
        ("baseline", f"{1e3 * baseline:.3g}", ""),
        (f"ours, {len(levels)} levels", f"{1e3 * ours:.3g}", f"{baseline / ours:.1f}"),
    ]
    header = ("", "ms per iteration", "times faster")
    console.print(table("a lineage with its evaluations, 1 thread", header, rows))


def report_sweep(console: Console, found: dict[str, Any]) -> None:
    """Measure and print a sweep beside the baseline of `found`, which it is added to."""
    found["sweep"] = times = sweep()
    # a control also needs the dense network and the tickets of the earlier levels
    trainings = 6 * (SWEEP_LEVELS + 1) + 6 * 2 * SWEEP_LEVELS
    alone = trainings * SWEEP_ITERATIONS * found["baseline, all cores"] / CORES
    rows = [("baseline, every run alone", f"{alone:.0f}", "")]
    rows += [(name, f"{seconds:.0f}", f"{alone / seconds:.1f}") for name, seconds in times.items()]
    console.print(table("a sweep of 12 runs, all cores", ("", "s", "times faster"), rows))


def main() -> None:
    """Run all measurements, print them, and write them to benchmarks/results/."""
    torch.set_flush_denormal(True)
    console, found = Console(), dict[str, Any](machine=machine(), floor=floor())
    console.print(found)
    with mnist_for_torchvision(Path(composed("preset=lenet").dataset.root)) as root:
        for threads in sorted({1, CORES}):
            found[f"threads={threads}"] = measure(threads, root)
        found["baseline, all cores"] = baseline_on_all_cores(root)
    report_lineage(console, found)
    report_sweep(console, found)
    found["run"] = command("preset=lenet", "training.iterations=500", "pruning.levels=2")
    console.print(f"peak memory of a run: {found['run'][1]} MB")
    RESULTS.mkdir(exist_ok=True)
    name = "-".join(found["machine"]["cpu"].split()[:3]).lower()
    (RESULTS / f"{name}-{CORES}-cores.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
