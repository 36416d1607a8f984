"""Derive the recipe of a run's trainings, and the pruning rule of each level, from its settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from lth.experiment.builtins import BUILTINS
from lth.experiment.settings import (
    NOT_IDENTITY,
    TYPES,
    Budget,
    Dataset,
    Optimizer,
    Pruning,
    Spec,
)
from lth.experiment.targets import Settings, Target, flat, whole

PRUNES = {
    "weight": TYPES, "filter": ("conv",), "neuron": ("linear",), "unit": ("conv", "linear"),
}  # fmt: skip
"""Granularity -> types of layers that are pruned."""


@dataclasses.dataclass(frozen=True)
class Network(Settings):
    """A model for inputs of one shape. Initial weights depend on this and a seed alone."""

    model: Target
    shape: tuple[int, int, int]
    classes: int

    def deciding(self) -> dict[str, Any]:
        return {"model": self.model, "shape": self.shape, "classes": self.classes}


@dataclasses.dataclass(frozen=True)
class Recipe(Settings):
    """Everything that decides how a network is trained, except its seed, weights and mask."""

    model: Target
    dataset: Dataset
    optimizer: Optimizer
    training: Budget
    split_seed: int

    @property
    def network(self) -> Network:
        return Network(self.model, self.dataset.shape, self.dataset.classes)

    def deciding(self) -> dict[str, Any]:
        return {
            "model": self.model, "dataset": self.dataset, "optimizer": self.optimizer,
            "training": self.training, "split_seed": self.split_seed,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rule(Settings):
    """The rule by which one mask is pruned. `rates`: type of layer -> percent of its survivors to
    remove, applied `times` times at once, in `rounds` rounds of scoring."""

    criterion: Target
    scope: str
    rates: dict[str, float]
    times: int
    rounds: int
    granularity: str = "weight"

    NEUTRAL: ClassVar = {"granularity": "weight"}

    def deciding(self) -> dict[str, Any]:
        return {
            "criterion": self.criterion, "scope": self.scope, "rates": self.rates,
            "times": self.times, "rounds": self.rounds, "granularity": self.granularity,
        }  # fmt: skip


def recipe(spec: Spec) -> Recipe:
    """Return the recipe of what a run reports."""
    return Recipe(spec.model, spec.dataset, spec.optimizer, spec.training, spec.split_seed)


def source_recipe(spec: Spec) -> Recipe:
    """Return the recipe under which a run finds its tickets."""
    found = spec.source or spec
    return Recipe(spec.model, found.dataset, found.optimizer, found.training, spec.split_seed)


def longer(recipe: Recipe, times: int) -> Recipe:
    """Return a recipe with `times` as many iterations. The milestones of its schedule move along;
    its warmup stays."""
    schedule = recipe.optimizer.schedule
    milestones = tuple(times * milestone for milestone in schedule.milestones)
    schedule = dataclasses.replace(schedule, milestones=milestones)
    iterations = times * recipe.training.iterations
    return dataclasses.replace(
        recipe,
        optimizer=dataclasses.replace(recipe.optimizer, schedule=schedule),
        training=dataclasses.replace(recipe.training, iterations=iterations),
    )


def level_rate(pruning: Pruning) -> float:
    """Return the rate of every level in percent, if `rates` is None: `rate`, or the rate that leads
    to the final density. Rounded, because machines differ in the last bit of a power."""
    if pruning.final_density is None:
        return pruning.rate
    kept: float = pruning.final_density ** (1 / max(pruning.levels, 1))
    return round(100 * (1 - kept), 10)


def rules(pruning: Pruning) -> list[Rule]:
    """Return the rule of each level from 1, every default resolved."""

    def rule(rate: float, times: int = 1) -> Rule:
        rates = type_rates(pruning, rate)
        return Rule(
            pruning.criterion, pruning.scope, rates, times, pruning.rounds, pruning.granularity
        )

    if pruning.rates is not None:
        return [rule(rate) for rate in pruning.rates]
    times = range(1, pruning.levels + 1) if pruning.mode == "one_shot" else [1] * pruning.levels
    return [rule(level_rate(pruning), n) for n in times]


def type_rates(pruning: Pruning, rate: float) -> dict[str, float]:
    """Return the rate of each type of layer at a level with this rate, every default resolved."""
    defaults = default_rates(pruning, rate)
    if pruning.final_density is not None:
        defaults["output"] = rate
    given = {kind: getattr(pruning, f"{kind}_rate") for kind in TYPES}
    return {kind: rate if given[kind] is None else given[kind] for kind, rate in defaults.items()}


def default_rates(pruning: Pruning, rate: float) -> dict[str, float]:
    """Return the paper's rate of each type of layer. If the scope is layerwise, the output layer is
    pruned at half the rate (figure 2); shortcuts are never pruned (section 4). Where units are
    pruned, those of the output layer stay, and so do units of other kinds."""
    output = rate / 2 if pruning.scope == "layerwise" else rate
    rates = {"conv": rate, "linear": rate, "output": output, "shortcut": 0}
    return {kind: of if kind in PRUNES[pruning.granularity] else 0 for kind, of in rates.items()}


def identity(spec: Spec) -> dict[str, Any]:
    """Return the settings that decide the results of a run, by dotted name, defaults resolved.

    Two runs with equal identities have equal results. As in digests, 1.0 is 1 except in options of
    user code.
    """
    settings = dict(flat(dataclasses.asdict(spec)))
    rate = level_rate(spec.pruning)
    rates = {f"pruning.{kind}_rate": r for kind, r in type_rates(spec.pruning, rate).items()}
    settings |= {"pruning.rate": rate, "pruning.final_density": None, **rates}
    user_code = tuple(
        name.removesuffix("code") + "options."
        for name, value in settings.items()
        if name.endswith(".code") and value is not None
    )
    decided = {
        name: value if name.startswith(user_code) else whole(value)
        for name, value in settings.items()
        if not _is_excluded(name)
    }
    return with_neutral_options(decided)


def with_neutral_options(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with all options of built-ins and all settings of the budget: one that is
    not given has its neutral value."""
    filled = {
        f"{name.removesuffix('name')}options.{option}": whole(neutral)
        for name, value in identity.items()
        if name.endswith(".name") and value in BUILTINS
        for option, neutral in BUILTINS[value].neutral.items()
    }
    filled |= {f"training.{name}": neutral for name, neutral in Budget.NEUTRAL.items()}
    filled |= {"rewind.budget": "level", "dataset.train": None, "dataset.subset": "random",
               "pruning.granularity": "weight"}  # fmt: skip
    if not any(name.startswith("pruning.settled.") for name in identity):
        filled["pruning.settled"] = None
    if not any(name.startswith("pruning.update.") for name in identity):
        filled["pruning.update"] = None
    if not any(name.startswith("source.") for name in identity):
        filled["source"] = None
    return {**identity, **{name: v for name, v in filled.items() if name not in identity}}


def _is_excluded(name: str) -> bool:
    return any(f"{name}.".startswith(f"{excluded}.") for excluded in NOT_IDENTITY)
