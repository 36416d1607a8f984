"""The table of built-ins against the code that it names."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest
from torch import nn

from lth import datasets, models, probes, pruning, trackers
from lth.experiment import builtins
from lth.experiment.builtins import BUILTINS, IDS
from lth.experiment.nodes import Measurement
from lth.experiment.targets import canonical, load
from lth.training.data import LoadedData
from lth.training.selection import Scores

FAMILIES = ("MODELS", "CRITERIA", "LOADERS", "OPTIMIZERS", "PROBES", "TRACKERS")


def defined_in(module: ModuleType) -> Iterator[object]:
    """Yield the public classes and functions of a module, without those that it imports."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            yield value


def is_model(value: object) -> bool:
    """Return whether this is a whole network, called with a shape and a number of classes."""
    if not (inspect.isclass(value) and issubclass(value, nn.Module)):
        return False
    return list(inspect.signature(value).parameters)[:2] == ["shape", "classes"]


def returns(value: object, expected: object) -> bool:
    return inspect.isfunction(value) and get_type_hints(value).get("return") == expected


def is_criterion(value: object) -> bool:
    return returns(value, Scores)


def is_loader(value: object) -> bool:
    return returns(value, LoadedData)


def is_probe(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Measurement) and hasattr(value, "tag")


def is_tracker(value: object) -> bool:
    methods = ("begin", "log", "end")
    return value is not trackers.Tracker and all(hasattr(value, name) for name in methods)


OFFERED = {
    "MODELS": (models, is_model), "CRITERIA": (pruning, is_criterion),
    "LOADERS": (datasets, is_loader), "PROBES": (probes, is_probe),
    "TRACKERS": (trackers, is_tracker),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILTINS)
def test_every_id_can_be_imported(name: str) -> None:
    assert callable(load(name))
    module, _, attribute = BUILTINS[name].path.rpartition(".")
    assert load(name).__name__ == attribute
    assert load(name).__module__.startswith(module)


@pytest.mark.parametrize("family", OFFERED)
def test_everything_that_is_offered_has_an_id(family: str) -> None:
    module, belongs = OFFERED[family]
    offered = {value for value in defined_in(module) if belongs(value)}
    assert offered
    assert offered == {load(name) for name in getattr(builtins, family)}


def test_ids_are_unique_over_families_and_so_are_paths() -> None:
    families = [getattr(builtins, family) for family in FAMILIES]
    assert sum(map(len, families)) == len(BUILTINS) == len(IDS)
    assert {name for family in families for name in family} == BUILTINS.keys()
    assert all("." not in name for name in BUILTINS)  # dotted paths are user code


@pytest.mark.parametrize("name", [name for name, builtin in BUILTINS.items() if builtin.neutral])
def test_neutral_values_are_the_defaults_of_the_signature(name: str) -> None:
    """Options that other versions of torch lack may be missing from the signature."""
    parameters = inspect.signature(load(name)).parameters
    neutral = {k: v for k, v in BUILTINS[name].neutral.items() if k in parameters}
    defaults = {option: parameters[option].default for option in neutral}
    assert repr(canonical(neutral)) == repr(canonical(defaults))


@pytest.mark.parametrize("name", builtins.MODELS)
def test_every_option_of_a_model_with_a_default_is_neutral_at_it(name: str) -> None:
    """So that a configuration may leave it out."""
    parameters = inspect.signature(load(name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert canonical(BUILTINS[name].neutral) == canonical(defaults)


def test_every_option_in_conf_names_a_built_in() -> None:
    """No option that lth offers may depend on a path."""
    conf = Path(__file__).parents[1] / "conf"
    named = [
        line.split()[1]
        for file in conf.glob("*/*.yaml")
        for line in file.read_text().splitlines()
        if line.strip().startswith("_target_:")
    ]
    assert len(named) > 20
    assert {name for name in named if name != "???"} <= {*BUILTINS, *IDS}
