"""What can be refused before anything is trained, and what can be known then."""

import inspect
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from lth import models, pruning
from lth.engine.build import build_model
from lth.errors import LotteryError
from lth.experiment.nodes import Fresh
from lth.experiment.settings import TYPES, Pruning, Spec, Target, load, per_level, recipe, rules
from lth.training import selection

UNBUILDABLE = (TypeError, ValueError, RuntimeError, LookupError, AssertionError)
"""What constructors raise that are given what they cannot use."""
Pools = dict[selection.Pool, int]
"""Surviving weights of each pool."""


def check(spec: Spec) -> None:
    """Raise LotteryError where a piece cannot be built, pieces do not fit each other, or a level
    would prune nothing, or everything that is left."""
    complaints = [*_of_rates(spec.pruning), *_of_arms(spec), *_of_iterations(spec)]
    if complaints:
        raise LotteryError("\n".join(complaints))
    _check_arguments("dataset.loader", spec.dataset.loader, Path())
    _check_arguments("pruning.criterion", spec.pruning.criterion, object())
    model = _fitting_model(spec)
    _check_optimizer(spec, model)
    _check_types(spec.pruning, set(models.prunable(model).values()))
    _check_levels(spec.pruning, ladder(spec, model))


def ladder(spec: Spec, model: nn.Module) -> list[int]:
    """Surviving weights at each level from 0: known before any training, as they follow from shapes
    and rates."""
    types = models.prunable(model)
    sizes = {name: model.get_parameter(name).numel() for name in types}
    left: Pools = {(name,): size for name, size in sizes.items()}
    dense = left
    totals = [sum(sizes.values())]
    for rule in rules(spec.pruning):
        rates = {name: rule.rates[kind] for name, kind in types.items()}
        pools = selection.pools(rates, rule.scope)
        base = dense if spec.pruning.mode == "one_shot" else left
        before = _pooled(base, pools)
        left = {p: selection.survivors(before[p], rate, rule.times) for p, rate in pools.items()}
        totals.append(sum(left.values()))
    return totals


def _pooled(counts: Pools, pools: Iterable[selection.Pool]) -> Pools:
    """The counts of single tensors, or of the same pools, by pool."""
    return {p: counts[p] if p in counts else sum(counts[(name,)] for name in p) for p in pools}


def _of_rates(how: Pruning) -> Iterator[str]:
    own = {kind: getattr(how, f"{kind}_rate") for kind in TYPES}
    given = {kind: rate for kind, rate in own.items() if rate}
    if how.rates and how.final_density:
        yield (
            f"pruning.rates={list(how.rates)} and pruning.final_density={how.final_density}: one "
            "of the two says how much goes. Leave the other at null."
        )
    whole = "rates" if how.rates else "final_density" if how.final_density else None
    for kind, rate in given.items():
        null = f"Set pruning.{kind}_rate=null, or 0 to leave that type alone"
        if whole:
            yield (
                f"pruning.{kind}_rate={rate:g} with pruning.{whole}={getattr(how, whole)}, which "
                f"says what all types lose. {null}."
            )
        elif how.scope == "global" and rate != how.rate:
            yield (
                f"pruning.{kind}_rate={rate:g} with pruning.scope=global: weights of all types "
                f"compete under one rate. {null}, or use pruning.scope=layerwise."
            )


def _of_arms(spec: Spec) -> Iterator[str]:
    how, rewind = spec.pruning, spec.rewind
    path = how.criterion.path
    if how.at == "init" and load(path) in pruning.CHANGES:
        yield (
            f"pruning.criterion={path} with pruning.at=init: nothing has changed yet. Use "
            "pruning.at=end."
        )
    if rewind.kind == "continue" and (how.at, how.mode) != ("end", "iterative"):
        yield (
            f"rewind.kind=continue with pruning.mode={how.mode} pruning.at={how.at}: no weights "
            "that went on are ever pruned. Use pruning.mode=iterative pruning.at=end."
        )
    settings = {
        "rewind.shuffle=true": rewind.shuffle,
        "rewind.pruned=frozen": rewind.pruned == "frozen",
        "rewind.survivors=constant_sign": rewind.survivors == "constant_sign",
    }
    for setting in (name for name, is_set in settings.items() if is_set):
        if rewind.kind in ("lr", "finetune"):
            yield (
                f"{setting} with rewind.kind={rewind.kind}: trained weights have zeros where they "
                "were pruned before, and this control would use them. Use it with rewind.kind=init "
                "or late."
            )


def _of_iterations(spec: Spec) -> Iterator[str]:
    total, rewind, schedule = spec.training.iterations, spec.rewind, spec.optimizer.schedule
    if rewind.iteration and rewind.kind not in ("late", "lr", "finetune"):
        yield (
            f"rewind.iteration={rewind.iteration} with rewind.kind={rewind.kind}, which goes back "
            "to the start. Use rewind=late, or rewind.iteration=0."
        )
    if rewind.iteration >= total:
        yield (
            f"rewind.iteration={rewind.iteration} is past the end of a training of "
            f"training.iterations={total}: nothing would be left to train. Use a smaller one."
        )
    if spec.probe.iteration >= total:
        yield (
            f"probe.iteration={spec.probe.iteration} is past the end of a training of "
            f"training.iterations={total}: there is nothing left to part in. Use a smaller one."
        )
    if rewind.kind == "finetune" and schedule.kind == "cosine":
        yield (
            "rewind.kind=finetune with optimizer.schedule.kind=cosine, which ends at a rate of 0. "
            "Use rewind=lr, or another schedule."
        )
    milestones = list(schedule.milestones)
    told = f"optimizer.schedule: kind={schedule.kind} warmup={schedule.warmup} {milestones=}"
    if bool(milestones) != (schedule.kind == "multistep"):
        yield f"{told}: multistep needs milestones, and nothing else does. Set both or neither."
    if milestones != sorted(set(milestones)):
        yield f"{told}: milestones have to increase. Sort them."
    if schedule.warmup > total or any(milestone >= total for milestone in milestones):
        yield (
            f"{told} reaches past the end of a training of training.iterations={total}. Use "
            "smaller ones, or a larger budget."
        )


def _fitting_model(spec: Spec) -> nn.Module:
    """The network, having taken two inputs of the dataset's shape."""
    shape, classes = spec.dataset.shape, spec.dataset.classes
    try:
        model = build_model(Fresh(recipe(spec).network, spec.seed))
        with torch.no_grad():
            outputs = tuple(model.eval()(torch.zeros(2, *shape)).shape)
    except UNBUILDABLE as error:
        raise LotteryError(
            f"model: it cannot be built for inputs of shape {list(shape)}, those of this dataset "
            f"({error}). Choose another model or dataset; conf/model/ has what each takes."
        ) from error
    if outputs != (2, classes):
        raise LotteryError(
            f"model: two inputs give outputs of shape {list(outputs)}; [2, {classes}] is wanted, "
            "one number for each class of the dataset."
        )
    return model


def _check_types(how: Pruning, there: set[models.LayerType]) -> None:
    for kind in TYPES:
        own = getattr(how, f"{kind}_rate")
        if own is not None and kind not in there:
            raise LotteryError(
                f"pruning.{kind}_rate={own:g}: this model has no weights of type {kind}, only "
                f"{', '.join(sorted(there))}. Leave it at pruning.{kind}_rate=null."
            )


def _check_arguments(group: str, target: Target, *arguments: object) -> None:
    try:
        inspect.signature(load(target.path)).bind(*arguments, **target.options)
    except (TypeError, ValueError) as error:
        raise _uncallable(group, target, error) from error


def _check_optimizer(spec: Spec, model: nn.Module) -> None:
    try:
        spec.optimizer(model.parameters())
    except UNBUILDABLE as error:
        raise _uncallable("optimizer", spec.optimizer, error) from error


def _uncallable(group: str, target: Target, error: Exception) -> LotteryError:
    return LotteryError(
        f"{group}: {target.path} cannot be called ({error}). conf/{group.split('.')[0]}/ has the "
        "options of those that are here."
    )


def _check_levels(how: Pruning, rungs: list[int]) -> None:
    """Each level of an iterative run has fewer weights than the one before; of one-shot pruning,
    fewer than the dense network."""
    steps = pairwise(rungs) if how.mode == "iterative" else ((rungs[0], n) for n in rungs[1:])
    if how.rates:
        told = f"pruning.rates={list(how.rates)}"
    elif how.final_density:
        told = f"pruning.final_density={how.final_density} pruning.levels={how.levels}"
    else:
        told = f"pruning.levels={how.levels} with pruning.rate={per_level(how):g}"
    for level, (before, after) in enumerate(steps, start=1):
        if after in (before, 0):
            taken = "the last" if after == 0 else "none"
            mend = f"Set pruning.levels={level - 1} or lower, or another rate."
            mend = mend if told.startswith("pruning.levels") else "Choose others."
            raise LotteryError(
                f"{told}: level {level} would take {taken} of the {before:,} weights left. {mend}"
            )
