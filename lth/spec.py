"""What a run is: frozen values, their types and ranges checked at the door.

Only this file and `run.py` know Hydra; below the door there is no configuration, only these.
"""

import dataclasses
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from lth.errors import LotteryError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Percent = Annotated[float, Field(gt=0, lt=100)]
"""Percent of the surviving weights that one level removes, in (0, 100)."""


@dataclass(frozen=True, config=STRICT)
class Target:
    """Any importable callable, by its dotted path, and the keyword arguments it is to get."""

    path: str
    options: dict[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it returns
        return load(self.path)(*args, **self.options, **kwargs)


def load(path: str) -> Any:  # noqa: ANN401 - whatever lies there
    """The object at a dotted path. Raises LotteryError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LotteryError(
            f"{path}: nothing can be imported from there ({error}). Give the dotted path of a "
            "class or function, e.g. lth.models.LeNet."
        ) from error


def _to_target(value: object) -> object:
    """Hydra's form, `_target_` beside the options, to ours."""
    if isinstance(value, Mapping) and "_target_" in value:
        return {
            "path": value["_target_"],
            "options": {key: option for key, option in value.items() if key != "_target_"},
        }
    return value


def _optimizer_ranges(value: object) -> object:
    options = value if isinstance(value, Mapping) else {}
    for name, lowest in (("lr", "more than 0"), ("weight_decay", "0 or more")):
        given = options.get(name, 1.0)
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or given < 0 or (given == 0 and name == "lr"):
            raise ValueError(f"{name}={given}: a number is wanted, {lowest}")
    return value


ModelTarget = Annotated[Target, BeforeValidator(_to_target)]
Optimizer = Annotated[Target, BeforeValidator(_to_target), BeforeValidator(_optimizer_ranges)]


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """A loader and what is made of its examples (`lth.data`)."""

    loader: ModelTarget
    root: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Of one input: channels, height, width; checked against what the loader returns."""
    classes: PositiveInt
    validation: PositiveInt
    """Examples set aside from training for the choice of the early-stop iteration."""
    test: NonNegativeInt
    """Examples set aside for testing where the dataset has no test set of its own; else 0."""
    split: Literal["stratified", "random"]
    preprocessing: Literal["standardize", "unit", "raw"]


@dataclass(frozen=True, config=STRICT)
class Budget:
    """The budget of every training; always run to its end."""

    iterations: PositiveInt
    batch_size: PositiveInt
    evaluate_every: PositiveInt


@dataclass(frozen=True, config=STRICT)
class Pruning:
    """What goes at each level (`lth.pruning`)."""

    criterion: str
    """A score function: a name in `lth.pruning`, or the dotted path of your own."""
    at: Literal["end", "init"]
    """Score the weights that the previous level's training ended with, or the initial ones."""
    scope: Literal["layerwise"]
    levels: NonNegativeInt
    rate: Percent
    conv_rate: Percent | None
    """None: `rate`."""
    output_rate: Percent | None
    """None: half of the rate, as in the paper."""


@dataclass(frozen=True, config=STRICT)
class Rewind:
    """Where the surviving weights start from at each level."""

    kind: Literal["init", "reinit"]
    """`init`: their initial values: the winning ticket. `reinit`: its mask with fresh weights."""
    draw: NonNegativeInt
    """Which of the possible re-initialisations."""


@dataclass(frozen=True, config=STRICT)
class Spec:
    """One run: one point of a sweep."""

    seed: NonNegativeInt
    split_seed: NonNegativeInt
    model: ModelTarget
    dataset: Dataset
    training: Budget
    optimizer: Optimizer
    pruning: Pruning
    rewind: Rewind
    device: Literal["auto", "cpu", "cuda"]
    threads: PositiveInt
    store: str
    checkpoint_seconds: PositiveFloat


NOT_IDENTITY = {
    "dataset.root": "where the data lies, not what it is",
    "pruning.levels": "how far a run goes; each training knows only what came before it",
    "device": "where it is computed; recorded in provenance.json",
    "threads": "how fast it is computed; recorded in provenance.json",
    "store": "where results lie",
    "checkpoint_seconds": "how much a killed process loses",
}
"""Fields of a Spec that are in no digest, each with its reason."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A model for inputs of one shape: what initial weights are drawn for."""

    model: Target
    shape: tuple[int, int, int]
    classes: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, whatever its weights and mask: part of a training's identity."""

    model: Target
    dataset: Dataset
    optimizer: Target
    training: Budget
    split_seed: int

    @property
    def network(self) -> Network:
        return Network(self.model, self.dataset.shape, self.dataset.classes)


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one level prunes: percent of the survivors of each type of layer."""

    criterion: str
    scope: str
    rates: dict[str, float]


def identity(spec: Spec) -> dict[str, Any]:
    """The settings of a run by dotted name, defaults resolved, without those of NOT_IDENTITY: two
    runs with the same ones have the same results."""
    how = rule(spec.pruning)
    resolved = {
        "pruning.criterion": how.criterion,
        "pruning.conv_rate": how.rates["conv"],
        "pruning.output_rate": how.rates["output"],
    }
    settings = dict(_flat(dataclasses.asdict(spec))) | resolved
    return {name: whole(value) for name, value in settings.items() if name not in NOT_IDENTITY}


def whole(value: Any) -> Any:  # noqa: ANN401 - any scalar
    """A whole float as the integer: 10.0 and 10 are the same rate."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", item


def recipe(spec: Spec) -> Recipe:
    return Recipe(spec.model, spec.dataset, spec.optimizer, spec.training, spec.split_seed)


def rule(pruning: Pruning) -> Rule:
    """Every default resolved, so that identity holds what happens and not how it was spelt."""
    path = pruning.criterion if "." in pruning.criterion else f"lth.pruning.{pruning.criterion}"
    rates = {
        "conv": pruning.conv_rate or pruning.rate,
        "linear": pruning.rate,
        "output": pruning.output_rate or pruning.rate / 2,
    }
    return Rule(path, pruning.scope, rates)


def from_config(config: DictConfig) -> Spec:
    """The Spec of a composed configuration.

    Raises LotteryError naming each key at fault, the value given and what is allowed.
    """
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return from_dict(plain)


def from_dict(plain: object) -> Spec:
    """The Spec of plain mappings, lists and scalars, as in run.json. Raises as `from_config`."""
    for name, value in _flat({"": plain}):
        if isinstance(value, float) and not math.isfinite(value):
            raise LotteryError(f"{name.lstrip('.')}={value}: a finite number is wanted.")
    try:
        return TypeAdapter(Spec).validate_json(json.dumps(plain))
    except ValidationError as error:
        raise LotteryError("\n".join(_complaint(fault) for fault in error.errors())) from error


def _complaint(fault: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    where = ".".join(str(part) for part in fault["loc"])
    given = "" if isinstance(fault["input"], Mapping) else f"={fault['input']}"
    return f"{where}{given}: {fault['msg']}. See conf/ for what each group takes."
