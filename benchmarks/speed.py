"""Measure the time of a step, an evaluation, a lineage and a sweep against the baseline loop.

python -m benchmarks.speed    takes half an hour on an idle machine; needs MNIST (LTH_DATA)

Rounds alternate between the cases compared, so that slow phases of the machine affect all of them.
Prints tables, and writes them with a description of the machine to benchmarks/results/.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.baseline import BaselineLoop, mnist_for_torchvision
from lth.engine.build import Builder, build_model
from lth.engine.engine import Engine
from lth.engine.maker import Maker
from lth.experiment import lottery
from lth.experiment.config import composed
from lth.experiment.nodes import Dense, Fresh, Training
from lth.experiment.recipe import Recipe, recipe
from lth.store.store import Store
from lth.training.data import Batch, BatchOrder, Data, Part
from lth.training.loop import Task, build_networks
from lth.training.masks import Mask

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DENSITIES = (1.0, 0.51, 0.21, 0.07, 0.036, 0.012)
ROUNDS, STEPS = 5, 200
EVALUATE_EVERY = 100
LEVELS, ITERATIONS = 21, 10_000
CORES = os.cpu_count() or 1
SWEEP = ("-m", "preset=lenet", "pruning.rate=10,20", "seed=0,1,2", "rewind=init,reinit")
SWEEP_LEVELS, SWEEP_ITERATIONS = 20, 2000


@dataclass(frozen=True)
class Times:
    """The seconds of several rounds."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def in_ms(self) -> str:
        """Return median, minimum and maximum in ms, e.g. `1.2 (1.1 to 1.4)`."""
        low, high = 1e3 * min(self.rounds), 1e3 * max(self.rounds)
        return f"{1e3 * self.median:.3g} ({low:.3g} to {high:.3g})"


def alternating(cases: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, Times]:
    """Measure each case once to warm up, then all of them in turn for some rounds."""
    for measure in cases.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            found[name].append(measure())
    return {name: Times(times) for name, times in found.items()}


class Ours:
    """A network under a random mask of some density, trained by the backend that lth chooses."""

    def __init__(self, recipe: Recipe, data: Data, density: float) -> None:
        start = Fresh(recipe.network, seed=0)
        model = build_model(start)
        random = torch.Generator().manual_seed(0)
        self._mask: Mask = {
            name: torch.rand(parameter.shape, generator=random) < density
            for name, parameter in model.named_parameters()
            if name.endswith("weight")
        }
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        task = Task(Training(recipe, 0, start, Dense()), model, weights, self._mask, data)
        (self._network,), self._step = build_networks([task])
        self._data = data
        self._order = BatchOrder(0, len(data.train), 60, torch.device("cpu"))

    def seconds_per_step(self) -> float:
        started = time.perf_counter()
        for iteration in range(STEPS):
            self._step([Batch(self._data.train, self._order.batch(iteration))])
        return (time.perf_counter() - started) / STEPS

    def seconds_per_evaluation(self, part: Part) -> float:
        started = time.perf_counter()
        self._network.evaluate(part)
        return time.perf_counter() - started


def steps(baseline: BaselineLoop, ours: Mapping[float, Ours]) -> dict[str, Times]:
    """Measure a step of each network."""
    return alternating({"baseline": lambda: baseline.seconds_per_step(STEPS)} | {
        f"{density:.1%}": of_density.seconds_per_step for density, of_density in ours.items()
    })  # fmt: skip


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
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss // 1024


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
        "loop = BaselineLoop(recipe(composed('preset=lenet')).network, Path(sys.argv[1]));"
        "loop.seconds_per_step(50);"
        "print(loop.seconds_per_step(200) + loop.seconds_per_evaluation() / EVALUATE_EVERY)"
    )
    words = [sys.executable, "-c", code, str(root)]
    loops = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(CORES)
    ]
    return statistics.mean(float(loop.communicate()[0]) for loop in loops)


def floor() -> dict[str, float]:
    """Measure the speed of matrix products and of copies on this machine, with one thread."""
    a, big = torch.randn(1024, 1024), torch.randn(64 * 2**20 // 4)
    other = torch.empty_like(big)

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    times = alternating({"product": lambda: timed(lambda: a @ a),
                         "copy": lambda: timed(lambda: other.copy_(big))}, rounds=15)  # fmt: skip
    return {
        "product, GFLOP/s": 2 * 1024**3 / times["product"].median / 1e9,
        "copy, GB/s": 2 * 64 * 2**20 / times["copy"].median / 1e9,
    }


def machine() -> dict[str, str]:
    """Describe this machine and its software."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu, "cores": str(CORES), "torch": torch.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    drawn = Table(*header, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*map(str, row))
    return drawn


def measure(threads: int, root: Path) -> dict[str, Any]:
    """Measure and print steps and evaluations. Return the seconds of each round."""
    torch.set_num_threads(threads)
    spec = composed("preset=lenet", f"training.evaluate_every={EVALUATE_EVERY}")
    of_spec = recipe(spec)
    build = Builder(Store(root / "store"), Path(spec.dataset.root), torch.device("cpu"))
    data = build.data(of_spec)
    baseline = BaselineLoop(of_spec.network, root)
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
