"""Shrink any experiment to seconds on synthetic data (`smoke=true`), to try everything from the
command to the figures. Only sizes and the data change."""

from dataclasses import replace

from lth.experiment.settings import Dataset, Pruning, Spec
from lth.experiment.targets import Target

ITERATIONS = 8
BATCH = 10
LEVELS = 2
EXAMPLES = 60
SET_ASIDE = 10


def for_smoke(spec: Spec) -> Spec:
    """Return the same experiment with 8 iterations on 60 examples of noise, and two levels."""
    total = spec.training.iterations

    def scaled(iteration: int) -> int:
        return max(1, iteration * ITERATIONS // total) if iteration else 0

    parts = [spec.dataset, *([spec.source.dataset] if spec.source else [])]
    batch = min(BATCH, *(part.train or BATCH for part in parts))
    budget = replace(spec.training, iterations=ITERATIONS, batch_size=batch, evaluate_every=4)
    schedule = spec.optimizer.schedule
    milestones = tuple(sorted({scaled(iteration) for iteration in schedule.milestones}))
    schedule = replace(schedule, milestones=milestones, warmup=scaled(schedule.warmup))
    probe = spec.probe
    if probe:
        given = {name: probe.options.get(name) for name in ("iteration", "every")}
        durations: dict[str, object] = {n: scaled(at) for n, at in given.items() if type(at) is int}
        several = probe.options.get("iterations")
        if isinstance(several, list):
            durations["iterations"] = sorted({scaled(at) for at in several})
        probe = replace(probe, options=probe.options | durations)
    source = spec.source and replace(
        spec.source,
        dataset=_dataset(spec.source.dataset),
        training=replace(budget, iterations=ITERATIONS),
        optimizer=replace(spec.source.optimizer, schedule=schedule),
    )
    return replace(
        spec,
        dataset=_dataset(spec.dataset),
        training=budget,
        optimizer=replace(spec.optimizer, schedule=schedule),
        source=source,
        pruning=_pruning(spec.pruning),
        rewind=replace(spec.rewind, iteration=scaled(spec.rewind.iteration)),
        probe=probe,
    )


def _dataset(dataset: Dataset) -> Dataset:
    own_test = 0 if dataset.test else SET_ASIDE
    options = {
        "shape": list(dataset.shape), "classes": dataset.classes, "examples": EXAMPLES,
        "test": own_test,
    }  # fmt: skip
    return replace(
        dataset,
        loader=Target("noise", options, None),
        examples=EXAMPLES,
        validation=SET_ASIDE,
        test=SET_ASIDE if dataset.test else 0,
        train=dataset.train and min(dataset.train, EXAMPLES // 2),
    )


def _pruning(pruning: Pruning) -> Pruning:
    """Return the first levels, at the rates that they would have in the whole experiment."""
    levels, density = min(pruning.levels, LEVELS), pruning.final_density
    return replace(
        pruning,
        rates=pruning.rates and pruning.rates[:LEVELS],
        final_density=density ** (levels / pruning.levels) if density and levels else density,
        levels=levels,
        rounds=min(pruning.rounds, LEVELS),
        settled=pruning.settled and replace(pruning.settled, every=1),
        update=pruning.update
        and replace(pruning.update, every=1, until=max(pruning.update.until, 1 / 2)),
    )
