"""What can be refused before anything is trained, and what can be known then."""

import inspect
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import nn

from lth import models, pruning
from lth.errors import LotteryError
from lth.graph import Fresh
from lth.inputs import build_model
from lth.spec import Spec, Target, load, recipe, rules

Pools = dict[pruning.Pool, int]
"""Surviving weights of each pool."""


def check(spec: Spec) -> None:
    """Raise LotteryError where a piece cannot be built, pieces do not fit each other, or a level
    would prune nothing, or everything that is left."""
    _check_rates(spec)
    _check_iterations(spec)
    model = _fitting_model(spec)
    _check_types(spec, model)
    _check_arguments("optimizer", spec.optimizer, ())
    _check_arguments("pruning.criterion", spec.pruning.criterion, object())
    _check_levels(spec, ladder(spec, model))


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
        pools = pruning.pools(rates, rule.scope)
        base = dense if spec.pruning.mode == "one_shot" else left
        before = _pooled(base, pools)
        left = {p: pruning.survivors(before[p], rate, rule.times) for p, rate in pools.items()}
        totals.append(sum(left.values()))
    return totals


def _pooled(counts: Pools, pools: Iterable[pruning.Pool]) -> Pools:
    """The counts of single tensors, or of the same pools, by pool."""
    return {p: counts[p] if p in counts else sum(counts[(name,)] for name in p) for p in pools}


def _check_rates(spec: Spec) -> None:
    how = spec.pruning
    for kind in ("conv", "linear", "output", "shortcut"):
        own = getattr(how, f"{kind}_rate")
        if own and how.scope == "global" and (how.rates or own != how.rate):
            raise LotteryError(
                f"pruning.{kind}_rate={own:g} with pruning.scope=global: weights of all types "
                f"compete under one rate. Use pruning.scope=layerwise, or pruning.{kind}_rate=0 to "
                "leave that type alone."
            )


def _check_iterations(spec: Spec) -> None:
    total, rewind, schedule = spec.training.iterations, spec.rewind, spec.optimizer.schedule
    timed = ("late", "lr", "finetune")
    if rewind.iteration and rewind.kind not in timed:
        raise LotteryError(
            f"rewind.iteration={rewind.iteration} with rewind.kind={rewind.kind}, which goes back "
            "to the start. Use rewind=late, or rewind.iteration=0."
        )
    if rewind.iteration >= total:
        raise LotteryError(
            f"rewind.iteration={rewind.iteration} is past the end of a training of "
            f"training.iterations={total}: nothing would be left to train. Use a smaller one."
        )
    if schedule.warmup > total or any(m >= total for m in schedule.milestones):
        raise LotteryError(
            f"optimizer.schedule: warmup={schedule.warmup} milestones={list(schedule.milestones)} "
            f"reach past the end of a training of training.iterations={total}."
        )
    if list(schedule.milestones) != sorted(set(schedule.milestones)):
        raise LotteryError(
            f"optimizer.schedule.milestones={list(schedule.milestones)}: they have to increase."
        )


def _fitting_model(spec: Spec) -> nn.Module:
    """The network, having taken two inputs of the dataset's shape."""
    shape, classes = spec.dataset.shape, spec.dataset.classes
    try:
        model = build_model(Fresh(recipe(spec).network, spec.seed))
        with torch.no_grad():
            outputs = tuple(model.eval()(torch.zeros(2, *shape)).shape)
    except (TypeError, ValueError, RuntimeError) as error:
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


def _check_types(spec: Spec, model: nn.Module) -> None:
    there = set(models.prunable(model).values())
    for kind in ("conv", "linear", "output", "shortcut"):
        own = getattr(spec.pruning, f"{kind}_rate")
        if own is not None and kind not in there:
            raise LotteryError(
                f"pruning.{kind}_rate={own:g}: this model has no weights of type {kind}, only "
                f"{', '.join(sorted(there))}. Leave it at pruning.{kind}_rate=null."
            )


def _check_arguments(group: str, target: Target, *arguments: object) -> None:
    try:
        inspect.signature(load(target.path)).bind(*arguments, **target.options)
    except (TypeError, ValueError) as error:
        raise LotteryError(
            f"{group}: {target.path} cannot be called ({error}). conf/{group.split('.')[0]}/ has "
            "the options of those that are here."
        ) from error


def _check_levels(spec: Spec, rungs: list[int]) -> None:
    """Each level of an iterative run has fewer weights than the one before; of one-shot pruning,
    fewer than the dense network."""
    iterative = spec.pruning.mode == "iterative"
    steps = pairwise(rungs) if iterative else ((rungs[0], after) for after in rungs[1:])
    for level, (before, after) in enumerate(steps, start=1):
        if after in (before, 0):
            taken = "the last" if after == 0 else "none"
            raise LotteryError(
                f"pruning.levels={len(rungs) - 1}: with pruning.rate={spec.pruning.rate:g}, "
                f"level {level} would take {taken} of the {before:,} weights left. "
                f"Set pruning.levels={level - 1} or lower, or another rate."
            )
