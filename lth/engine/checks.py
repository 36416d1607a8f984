"""Refuse runs that cannot be built, before anything is trained; count the survivors of each level.

Combinations of settings are refused earlier (`lth.experiment.consistency`).
"""

import inspect
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from lth import models
from lth.engine.build import build_model
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Fresh
from lth.experiment.recipe import level_rate, recipe, rules
from lth.experiment.settings import TYPES, Optimizer, Pruning, Spec
from lth.experiment.targets import Target, load
from lth.training import selection, units

UNBUILDABLE = (TypeError, ValueError, RuntimeError, LookupError, AssertionError)
"""Exceptions that constructors raise for unsuitable arguments."""
Pools = dict[selection.Pool, int]
"""Surviving weights of each pool."""


def check(spec: Spec) -> None:
    """Raise LotteryError if a part cannot be built, if parts do not fit each other, or if a level
    would prune no weight or all remaining ones."""
    _check_arguments("dataset.loader", spec.dataset.loader, Path())
    _check_arguments("pruning.criterion", spec.pruning.criterion, object())
    model = _fitting_model(spec)
    _check_optimizer("optimizer", spec.optimizer, model)
    if spec.source:
        _check_arguments("source.dataset.loader", spec.source.dataset.loader, Path())
        _check_optimizer("source.optimizer", spec.source.optimizer, model)
    _check_chain(model, spec.pruning)
    _check_types(spec.pruning, set(models.prunable(model).values()))
    _check_levels(spec.pruning, survivor_counts(spec, model))
    list(lottery.nodes(spec))  # raises if the probe does not accept its options


class Counted(NamedTuple):
    """Numbers of weights of a run. `types`: of each type of layer that the network has. `levels`:
    those that survive, at each level from 0."""

    types: dict[str, int]
    levels: list[int]


def counted(spec: Spec) -> Counted:
    """Return the numbers of weights of a run, which do not depend on seeds."""
    model = build_model(Fresh(recipe(spec).network, seed=0))
    found = models.prunable(model).items()
    sizes: dict[str, int] = {kind: 0 for kind in TYPES if kind in dict(found).values()}
    for name, kind in found:
        sizes[kind] += model.get_parameter(name).numel()
    return Counted(sizes, survivor_counts(spec, model))


def survivor_counts(spec: Spec, model: nn.Module) -> list[int]:
    """Return the surviving weights at each level from 0. They follow from shapes and rates, before
    any training."""
    types = models.prunable(model)
    shapes = {name: model.get_parameter(name).shape for name in types}
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    if spec.pruning.granularity != "weight":
        return _unit_counts(spec, shapes, types)
    left: Pools = {(name,): size for name, size in sizes.items()}
    dense = left
    totals = [sum(sizes.values())]
    for rule in rules(spec.pruning):
        rates = {name: rule.rates[kind] for name, kind in types.items()}
        pools = selection.pools(rates, rule.scope)
        base = dense if spec.pruning.mode == "one_shot" else left
        before = _pooled(base, pools)
        left = selection.left(before, pools, rule.times, rule.scope, shapes)
        totals.append(sum(left.values()))
    return totals


def _unit_counts(
    spec: Spec, shapes: Mapping[str, torch.Size], types: Mapping[str, models.LayerType]
) -> list[int]:
    """Return the surviving weights at each level if units are pruned."""
    dense = left = {link.into: link.units for link in units.links(shapes)}
    totals = [sum(units.weights_left(shapes, dense).values())]
    for rule in rules(spec.pruning):
        base = dense if spec.pruning.mode == "one_shot" else left
        left = {
            name: selection.survivors(count, rule.rates[types[name]], rule.times)
            for name, count in base.items()
        }
        totals.append(sum(units.weights_left(shapes, left).values()))
    return totals


def _check_chain(model: nn.Module, pruning: Pruning) -> None:
    if pruning.granularity != "weight" and not units.is_chain(model):
        raise LotteryError(
            f"pruning.granularity={pruning.granularity} needs a network that passes its inputs "
            "through one module after the other (nn.Sequential): a unit of a ResNet, for example, "
            "has weights into several layers. Use another model, or granularity=weight."
        )


def _pooled(counts: Pools, pools: Iterable[selection.Pool]) -> Pools:
    """Sum the counts of single tensors by pool; counts of the same pools stay."""
    return {p: counts[p] if p in counts else sum(counts[(name,)] for name in p) for p in pools}


def _fitting_model(spec: Spec) -> nn.Module:
    """Return the network, after a forward pass of two inputs of the dataset's shape."""
    shape, classes = spec.dataset.shape, spec.dataset.classes
    try:
        model = build_model(Fresh(recipe(spec).network, spec.seed))
        with torch.no_grad():
            returned = model.eval()(torch.zeros(2, *shape))
    except UNBUILDABLE as error:
        options = " ".join(f"{name}={value}" for name, value in spec.model.options.items())
        remedy = (
            f"Correct its options, {options}"
            if isinstance(error, TypeError) and options
            else "Choose another model or dataset"
        )
        if spec.model.code is not None:
            remedy = "Your own class is called as Model(shape, classes, **options) (docs/extend.md)"
        raise LotteryError(
            f"model={spec.model.name} cannot be built for inputs of shape {list(shape)}, the shape "
            f"of this dataset ({error}). {remedy}; conf/model/ has the options of each "
            "model."
        ) from error
    is_tensor = isinstance(returned, torch.Tensor)
    outputs = list(returned.shape) if is_tensor else type(returned).__name__
    if outputs != [2, classes]:
        raise LotteryError(
            f"model={spec.model.name} must return one logit per class, a tensor of shape "
            f"[2, {classes}] for two inputs, got {outputs}"
        )
    if not models.prunable(model):
        raise LotteryError(
            f"model={spec.model.name} must have a torch.nn.Linear or Conv2d layer, and has none: "
            "there is nothing to prune."
        )
    return model


def _check_types(pruning: Pruning, present: set[models.LayerType]) -> None:
    for kind in TYPES:
        rate = getattr(pruning, f"{kind}_rate")
        if rate is not None and kind not in present:
            raise LotteryError(
                f"pruning.{kind}_rate must be null for a model without weights of type {kind}, got "
                f"{rate:g}; this model has {', '.join(sorted(present))}"
            )


def _check_arguments(group: str, target: Target, *arguments: object) -> None:
    try:
        inspect.signature(load(target.name)).bind(*arguments, **target.options)
    except (TypeError, ValueError) as error:
        raise _uncallable(group, target, error) from error


def _check_optimizer(group: str, optimizer: Optimizer, model: nn.Module) -> None:
    try:
        optimizer(model.parameters())
    except UNBUILDABLE as error:
        raise _uncallable(group, optimizer, error) from error


def _uncallable(group: str, target: Target, error: Exception) -> LotteryError:
    return LotteryError(
        f"{group}: {target.name} cannot be called with these options ({error}). The files in conf/"
        f"{group.removeprefix('source.').split('.')[0]}/ list the options of the built-in ones."
    )


def _check_levels(pruning: Pruning, counts: list[int]) -> None:
    """Raise LotteryError unless each level of an iterative run has fewer weights than the one
    before, and each level of one-shot pruning fewer than the dense network; none may have 0."""
    one_shot = pruning.mode == "one_shot"
    steps = ((counts[0], n) for n in counts[1:]) if one_shot else pairwise(counts)
    for level, (before, after) in enumerate(steps, start=1):
        if after in (before, 0):
            removed = "the last" if after == 0 else "none"
            setting, remedy = _setting_of_levels(pruning, level)
            raise LotteryError(
                f"{setting}: level {level} would remove {removed} of the {before:,} weights left. "
                f"{remedy}"
            )


def _setting_of_levels(pruning: Pruning, level: int) -> tuple[str, str]:
    if pruning.rates:
        return f"pruning.rates={list(pruning.rates)}", "Choose other rates."
    if pruning.final_density:
        setting = f"pruning.final_density={pruning.final_density} pruning.levels={pruning.levels}"
        return setting, "Choose another density or number of levels."
    setting = f"pruning.levels={pruning.levels} with pruning.rate={level_rate(pruning):g}"
    return setting, f"Set pruning.levels={level - 1} or lower, or another rate."
