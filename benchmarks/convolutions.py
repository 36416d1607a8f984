"""Measure convolutional networks against the baseline loop: a step, an evaluation, and an iteration
of the paper's protocol with its share of the evaluations.

python -m benchmarks.convolutions    takes ten minutes on an idle machine; needs no data

Rounds take turns between all cases. Prints tables, and writes the seconds of each round to
benchmarks/results/.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from rich.console import Console

from benchmarks.baseline import BaselineLoop, cifar_parts
from benchmarks.speed import RESULTS, command
from benchmarks.timing import CORES, Ours, Times, alternating, floor, machine, table
from lth.engine.checks import counted
from lth.experiment.config import composed
from lth.experiment.recipe import Recipe, recipe, rules
from lth.experiment.settings import Precision, Spec
from lth.training.data import Data, Examples, Part

LEVELS = {"conv2": range(15), "resnet18": (0, 7), "vgg19": (0, 7)}
ROUNDS, STEPS = 5, {"conv2": 4, "resnet18": 2, "vgg19": 1}
EVALUATED, OURS = 500, 100
"""Images that are evaluated in a round; times are scaled to the protocol's."""
VALIDATION, TEST, EVERY = 5_000, 10_000, 100
TESTED = 0.4
"""Part of the evaluations that include the test set: each fourth (50 points of 200), and those at
which the validation loss is the lowest so far, which are less than 25 of Conv-2's."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
NOISE = (
    "~dataset.loader.name", "dataset.loader._target_=lth.datasets.noise",
    "+dataset.loader.shape=[3,32,32]", "+dataset.loader.classes=10",
    "+dataset.loader.examples=1500", "+dataset.loader.test=500", "dataset.examples=1500",
    "dataset.validation=500", "training.iterations=2", "pruning.levels=0",
    "optimizer.schedule.kind=constant", "optimizer.schedule.milestones=[]",
)  # fmt: skip
"""A run on few random images, for its memory. The 60,000 of CIFAR-10 take 176 MB more."""
CIFAR_MB = 176


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console()
    found: dict[str, object] = {"machine": machine(), "floor": floor()}
    console.print(found)
    for preset in LEVELS:
        steps, evaluations = measure(preset)
        header = ("", "step, ms", "iteration, ms", "times faster")
        console.print(table(f"{preset}, 1 thread", header, rows(steps, evaluations)))
        memory = command(f"preset={preset}", *NOISE)[1] + CIFAR_MB
        console.print(f"peak memory of a run: {memory} MB")
        found[preset] = {
            "step": {name: times.rounds for name, times in steps.items()},
            "evaluation of an image": {name: times.rounds for name, times in evaluations.items()},
            "memory": memory,
        }
    name = "-".join(machine()["cpu"].split()[:3]).lower()
    file = RESULTS / f"{name}-{CORES}-cores-convolutions.json"
    file.write_text(json.dumps(found, indent=1))


def measure(preset: str) -> tuple[dict[str, Times], dict[str, Times]]:
    """Return the times of a step, and of the evaluation of an image, by case."""
    spec = composed(f"preset={preset}")
    given, data = recipe(spec), random_data(spec)
    parts = cifar_parts(augmented=bool(spec.dataset.crop), evaluated=EVALUATED)
    loops = {
        "baseline, 0 workers": BaselineLoop(given, parts),
        "baseline, 2 workers": BaselineLoop(given, parts, workers=2),
    }
    ours = dict(networks(spec, preset, given, data))
    steps: dict[str, Callable[[], float]] = {
        name: partial(case.seconds_per_step, STEPS[preset]) for name, case in (loops | ours).items()
    }
    evaluations: dict[str, Callable[[], float]] = {
        name: partial(_per_image, loop.seconds_per_evaluation, 2 * EVALUATED)
        for name, loop in loops.items()
    }
    for name, case in ours.items():
        one = partial(case.seconds_per_evaluation, data.validation)
        evaluations[name] = partial(_per_image, one, OURS)
    return alternating(steps, ROUNDS), alternating(evaluations, ROUNDS)


def _per_image(evaluate: Callable[[], float], images: int) -> float:
    return evaluate() / images


def networks(spec: Spec, preset: str, given: Recipe, data: Data) -> Iterator[tuple[str, Ours]]:
    """Yield the networks of lth at the levels of a preset, in both precisions."""
    counts = counted(spec)
    for level in LEVELS[preset]:
        density = counts.levels[level] / counts.levels[0]
        kept = {kind: kept_of(spec, kind, level) for kind in counts.types}
        for precision in PRECISIONS:
            budget = replace(given.training, precision=precision)
            name = f"level {level}, {density:.1%}, {precision}"
            yield name, Ours(replace(given, training=budget), data, kept)


def kept_of(spec: Spec, kind: str, level: int) -> float:
    """Return the density of a type of layer at a level of layerwise pruning. Under global pruning
    layers differ; a step depends little on how."""
    return math.prod(1 - rule.rates[kind] / 100 for rule in rules(spec.pruning)[:level])


def random_data(spec: Spec) -> Data:
    """Return random images as bytes: 5,000 to train on, some to evaluate."""
    shift = torch.tensor([0.49, 0.48, 0.45]).view(1, 3, 1, 1)

    def part(count: int) -> Part:
        inputs = torch.randint(256, (count, *spec.dataset.shape), dtype=torch.uint8)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        examples = Examples(inputs, torch.randint(spec.dataset.classes, (count,)))
        return Part(examples, lambda x: x.float().div_(255).sub_(shift).div_(0.25))

    return Data(part(5000), part(OURS), part(OURS), [], [], {})


def rows(steps: dict[str, Times], evaluations: dict[str, Times]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: an iteration is a step and a hundredth of an evaluation."""

    def iteration(name: str) -> float:
        tested = 1.0 if name.startswith("baseline") else TESTED
        images = VALIDATION + tested * TEST
        return steps[name].median + images * evaluations[name].median / EVERY

    baseline = iteration("baseline, 0 workers")
    for name, times in steps.items():
        own = iteration(name)
        yield name, times.in_ms(), f"{1e3 * own:.3g}", f"{baseline / own:.2f}"


if __name__ == "__main__":
    main()
