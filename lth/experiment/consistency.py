"""Refuse invalid combinations of settings. No torch."""

from collections.abc import Iterator

from lth.errors import LotteryError
from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.recipe import PRUNES, rules, source_recipe
from lth.experiment.settings import TYPES, Pruning, Schedule, Spec

CHANGES = ("movement", "magnitude_increase")
"""Criteria that compare final with initial weights: before training, they score every weight 0."""


def check_consistency(spec: Spec) -> None:
    """Raise LotteryError naming every invalid combination of settings."""
    complaints = [
        *_rates(spec.pruning), *_settled(spec), *_criterion(spec), *_continue(spec),
        *_budget(spec), *_controls(spec), *_units(spec), *_updates(spec), *_iterations(spec),
        *_source(spec),
    ]  # fmt: skip
    if complaints:
        raise LotteryError("\n".join(complaints))


def _rates(pruning: Pruning) -> Iterator[str]:
    """Yield faults of the rates of layer types."""
    if pruning.rates and pruning.final_density:
        yield (
            f"pruning.rates={list(pruning.rates)} and pruning.final_density="
            f"{pruning.final_density}: only one of the two can be set. Set the other to null."
        )
    for kind in TYPES:
        rate = getattr(pruning, f"{kind}_rate")
        if rate:
            yield from _type_rate(pruning, kind, rate)


def _type_rate(pruning: Pruning, kind: str, rate: float) -> Iterator[str]:
    remedy = f"Set pruning.{kind}_rate=null, or 0 to leave that type alone"
    other = f"rates={list(pruning.rates)}" if pruning.rates else None
    if pruning.final_density:
        other = f"final_density={pruning.final_density}"
    if other:
        yield (
            f"pruning.{kind}_rate={rate:g} cannot be set with pruning.{other}, which gives the "
            f"rate of all types. {remedy}."
        )
    elif pruning.scope != "layerwise" and rate != pruning.rate:
        yield (
            f"pruning.{kind}_rate={rate:g} cannot be set with pruning.scope={pruning.scope}: "
            f"weights of all types compete under one rate. {remedy}, or use "
            "pruning.scope=layerwise."
        )


def _settled(spec: Spec) -> Iterator[str]:
    """Yield faults of pruning once masks have settled."""
    pruning = spec.pruning
    if pruning.at == "early" and not pruning.settled:
        yield "pruning.settled must be set with pruning.at=early: use pruning=early_bird."
    if pruning.at != "early" and pruning.settled:
        yield (
            f"pruning.settled must be null with pruning.at={pruning.at}: set pruning.settled=null, "
            "or use pruning=early_bird."
        )
    if pruning.settled and pruning.mode != "one_shot":
        yield "pruning.at=early needs pruning.mode=one_shot: the dense network alone is scored."
    found, prefix = source_recipe(spec), "source." if spec.source else ""
    total = found.training.iterations
    if pruning.settled and pruning.settled.every * pruning.settled.window >= total:
        yield (
            f"pruning.settled.every * pruning.settled.window must be below {prefix}"
            f"training.iterations={total}, got {pruning.settled.every} * {pruning.settled.window}: "
            "otherwise no window of masks is full, and no mask can settle."
        )


def _criterion(spec: Spec) -> Iterator[str]:
    """Yield a fault of what is scored and when."""
    pruning, criterion = spec.pruning, spec.pruning.criterion.name
    if pruning.at == "init" and criterion in CHANGES:
        yield (
            f"pruning.criterion={criterion} cannot be used with pruning.at=init: it scores the "
            "change of weights in training. Use pruning.at=end."
        )


def _continue(spec: Spec) -> Iterator[str]:
    """Yield a fault of training that continues."""
    pruning, rewind = spec.pruning, spec.rewind
    if rewind.kind == "continue" and (pruning.at, pruning.mode) != ("end", "iterative"):
        yield (
            "rewind.kind=continue needs pruning.mode=iterative pruning.at=end, got "
            f"pruning.mode={pruning.mode} pruning.at={pruning.at}: continued weights would never "
            "be pruned."
        )


def _budget(spec: Spec) -> Iterator[str]:
    """Yield faults of controls that train as long as all trainings that led to the ticket."""
    rewind = spec.rewind
    if rewind.budget == "lineage" and rewind.kind in ("lr", "finetune"):
        yield (
            f"rewind.budget=lineage cannot be used with rewind.kind={rewind.kind}, which goes on "
            "from trained weights. Use rewind.kind=init or late."
        )
    if rewind.budget == "lineage" and spec.source:
        yield (
            "rewind.budget=lineage cannot be used with a source, whose trainings have another "
            "budget. Set source=none or rewind.budget=level."
        )


def _controls(spec: Spec) -> Iterator[str]:
    """Yield faults of the controls, which keep masks and replace weights."""
    pruning, rewind = spec.pruning, spec.rewind
    measures = spec.probe and spec.probe.name in ("flops", "gradient_flow")
    if rewind.pruned == "frozen" and (measures or pruning.granularity != "weight"):
        yield (
            "rewind.pruned=frozen cannot be used with pruning.granularity other than weight, or "
            "with probe=flops or gradient_flow: frozen weights act like others. Use another rewind."
        )
    controls = {
        "rewind.shuffle=true": rewind.shuffle,
        "rewind.pruned=frozen": rewind.pruned == "frozen",
        "rewind.survivors=constant_sign": rewind.survivors == "constant_sign",
    }
    for control in (name for name, is_set in controls.items() if is_set):
        if rewind.kind in ("lr", "finetune"):
            yield (
                f"{control} cannot be used with rewind.kind={rewind.kind}: trained weights are 0 "
                "where they were pruned before, and this control would use those zeros. Use "
                "rewind.kind=init or late."
            )


def _units(spec: Spec) -> Iterator[str]:
    """Yield faults of pruning units instead of weights."""
    pruning = spec.pruning
    if pruning.granularity == "weight":
        return
    named = f"pruning.granularity={pruning.granularity}"
    needed = {
        "pruning.scope=layerwise": pruning.scope == "layerwise",
        "pruning.rounds=1": pruning.rounds == 1,
        "pruning.final_density=null": pruning.final_density is None,
        "pruning.update=null": pruning.update is None,
        "rewind.shuffle=false": not spec.rewind.shuffle,
    }
    for setting in (name for name, holds in needed.items() if not holds):
        yield f"{named} needs {setting}: units are removed from each layer at once."
    for kind in TYPES:
        if getattr(pruning, f"{kind}_rate") and kind not in PRUNES[pruning.granularity]:
            yield f"pruning.{kind}_rate must be null with {named}, which prunes none of this type."


def _updates(spec: Spec) -> Iterator[str]:
    """Yield faults of masks that move while a network trains."""
    pruning, rewind, update = spec.pruning, spec.rewind, spec.pruning.update
    if update is None:
        return
    named, found = f"pruning.update.kind={update.kind}", source_recipe(spec)
    total, prefix = found.training.iterations, "source." if spec.source else ""
    if (pruning.at, pruning.mode) != ("init", "one_shot"):
        yield (
            f"{named} needs pruning.at=init pruning.mode=one_shot, got pruning.at={pruning.at} "
            f"pruning.mode={pruning.mode}: each level starts from the initial weights."
        )
    if not (update.learns_scores or update.iterations(total)):
        yield (
            f"pruning.update.every must be at most pruning.update.until={update.until:g} of "
            f"{prefix}training.iterations={total}, got {update.every}: the mask would never move."
        )
    if found.optimizer.name not in ELEMENTWISE:
        yield (
            f"{named} needs an optimiser that treats each weight by itself, got "
            f"{prefix}optimizer={found.optimizer.name}. Use one of "
            f"{', '.join(sorted(ELEMENTWISE))}."
        )
    if update.kind == "supermask" and len(rules(pruning)) > 1:
        yield (
            f"{named} needs pruning.levels=1, got {len(rules(pruning))}: a supermask finds its own "
            "number of weights."
        )
    scored = (pruning.criterion.name, pruning.rounds)
    if update.kind not in ("set", "rigl") and scored != ("magnitude", 1):
        yield (
            f"{named} needs pruning.criterion=magnitude pruning.rounds=1, got "
            f"pruning.criterion={scored[0]} pruning.rounds={scored[1]}: the mask is found while "
            "the network trains."
        )
    if update.ticket:
        return
    if spec.probe and spec.probe.name == "connectivity":
        yield f"probe=connectivity cannot be used with {named}: copies would not have its mask."
    kept = (rewind.kind, rewind.pruned, rewind.shuffle, rewind.budget)
    if kept != ("init", "zero", False, "level") or spec.source:
        yield (
            f"{named} reports the training in which the mask moves. It can be combined with "
            "rewind=init, reinit, reinit_sign and constant_sign, and with no source. Set "
            "pruning.update.ticket=true to train the ticket of its last mask."
        )


def _source(spec: Spec) -> Iterator[str]:
    """Yield faults of the recipe under which tickets are found, if it is another one."""
    if spec.source is None:
        return
    for name in ("shape", "classes"):
        own, other = getattr(spec.dataset, name), getattr(spec.source.dataset, name)
        if own != other:
            yield (
                f"source.dataset.{name} must be dataset.{name}={own}, got {other}: a ticket fits "
                "one network. Choose datasets of one form, e.g. dataset=kmnist source=mnist."
            )
    if spec.source.dataset.root != spec.dataset.root:
        yield (
            f"source.dataset.root must be dataset.root={spec.dataset.root}, got "
            f"{spec.source.dataset.root}: a run reads all data from one folder. Set dataset.root."
        )
    yield from _schedule(
        spec.source.optimizer.schedule, spec.source.training.iterations, prefix="source."
    )
    if spec.rewind.kind not in ("init", "late"):
        yield (
            f"rewind.kind must be init or late with a source, got {spec.rewind.kind}: the others "
            "go on from weights at the end of training. Use rewind=init, or source=none."
        )
    total = spec.source.training.iterations
    if spec.rewind.iteration >= total:
        yield (
            f"rewind.iteration must be < source.training.iterations={total}, got "
            f"{spec.rewind.iteration}. Use a smaller iteration, or a longer source."
        )


def _iterations(spec: Spec) -> Iterator[str]:
    """Yield faults of the iterations of rewinding and of the schedule."""
    total, rewind, schedule = spec.training.iterations, spec.rewind, spec.optimizer.schedule
    if rewind.iteration and rewind.kind not in ("late", "lr", "finetune"):
        yield (
            f"rewind.iteration must be 0 with rewind.kind={rewind.kind}, which starts at iteration "
            f"0, got {rewind.iteration}. Use rewind=late, or rewind.iteration=0."
        )
    if rewind.iteration >= total:
        yield (
            f"rewind.iteration must be < training.iterations={total}, got {rewind.iteration}: "
            "nothing would be left to train."
        )
    if rewind.kind == "finetune" and schedule.kind == "cosine":
        yield (
            "rewind.kind=finetune cannot be used with optimizer.schedule.kind=cosine, which ends "
            "at a learning rate of 0. Use rewind=lr, or another schedule."
        )
    yield from _schedule(schedule, total)


def _schedule(schedule: Schedule, total: int, prefix: str = "") -> Iterator[str]:
    milestones = list(schedule.milestones)
    given = f"kind={schedule.kind} warmup={schedule.warmup} {milestones=}"
    if bool(milestones) != (schedule.kind == "multistep"):
        yield (
            f"{prefix}optimizer.schedule.milestones must be set with kind=multistep and only then, "
            f"got {given}. Set both or neither."
        )
    if milestones != sorted(set(milestones)):
        yield f"{prefix}optimizer.schedule.milestones must increase, got {given}"
    if schedule.warmup > total or any(milestone >= total for milestone in milestones):
        yield (
            f"{prefix}optimizer.schedule must end within {prefix}training.iterations={total}, got "
            f"{given}. Use smaller iterations, or a larger budget."
        )
