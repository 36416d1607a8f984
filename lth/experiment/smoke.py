"""`smoke=true`: any experiment in seconds, on made-up data, to try the whole path from the command
to the figures. Every choice stays; sizes shrink."""

from dataclasses import replace

from lth.experiment.settings import Dataset, Pruning, Spec, Target

ITERATIONS = 8
LEVELS = 2
EXAMPLES = 60
SET_ASIDE = 10


def shrunk(spec: Spec) -> Spec:
    """The same experiment with 8 iterations on 60 examples of noise, and two levels."""
    total = spec.training.iterations

    def scaled(iteration: int) -> int:
        return max(1, iteration * ITERATIONS // total) if iteration else 0

    budget = replace(spec.training, iterations=ITERATIONS, batch_size=10, evaluate_every=4)
    schedule = replace(
        spec.optimizer.schedule,
        milestones=tuple(sorted({scaled(m) for m in spec.optimizer.schedule.milestones})),
        warmup=scaled(spec.optimizer.schedule.warmup),
    )
    return replace(
        spec,
        dataset=_dataset(spec.dataset),
        training=budget,
        optimizer=replace(spec.optimizer, schedule=schedule),
        pruning=_pruning(spec.pruning),
        rewind=replace(spec.rewind, iteration=scaled(spec.rewind.iteration)),
        probe=replace(spec.probe, iteration=scaled(spec.probe.iteration)),
    )


def _dataset(dataset: Dataset) -> Dataset:
    own_test = 0 if dataset.test else SET_ASIDE
    options = {
        "shape": list(dataset.shape), "classes": dataset.classes, "examples": EXAMPLES,
        "test": own_test,
    }  # fmt: skip
    return replace(
        dataset,
        loader=Target("lth.datasets.noise", options),
        examples=EXAMPLES,
        validation=SET_ASIDE,
        test=SET_ASIDE if dataset.test else 0,
    )


def _pruning(pruning: Pruning) -> Pruning:
    """The first levels, at the rates that all of them would have had."""
    levels, density = min(pruning.levels, LEVELS), pruning.final_density
    return replace(
        pruning,
        rates=pruning.rates and pruning.rates[:LEVELS],
        final_density=density and density ** (levels / max(pruning.levels, 1)),
        levels=levels,
        rounds=min(pruning.rounds, LEVELS),
    )
