"""Compare the settings of a run with those of the preset that it follows."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal, NamedTuple

from analysis.paper import conditions
from lth.experiment.config import CONF, composed
from lth.experiment.recipe import identity

COPIES = {"cifar10_jpeg": "cifar10"}
"""Dataset -> dataset of which it is a recompressed copy. Claims are tested on both."""
DEEP = "resnet18*|vgg19*"

Effect = Literal["disqualifies", "is named", "is ignored"]


class Rule(NamedTuple):
    """The effect on claims of settings that differ from the preset's. `settings`, `presets`:
    patterns, separated by `|`; `unless`: a condition on the run under which the effect is `is
    ignored`; `on_off`: two different values other than 0 only have the effect `is named`."""

    settings: str
    presets: str
    effect: Effect
    reason: str
    unless: str = ""
    on_off: bool = False


RULES = (
    Rule("seed|split_seed|rewind.draw", "*", "is ignored", "numbers the repetitions"),
    Rule("rewind.*|source*|pruning.criterion.*|pruning.at|pruning.mode|pruning.rounds|"
         "pruning.settled*|pruning.update*", "*", "is ignored", "makes another arm, and claims "
         "name their arm"),
    Rule("pruning.rates", "*", "disqualifies", "the paper prunes at one rate, except in one-shot",
         unless="pruning.mode=one_shot"),
    Rule("pruning.*rate", "*", "disqualifies", "claims are about the paper's densities"),
    Rule("pruning.granularity", "*", "disqualifies", "the paper prunes weights"),
    Rule("pruning.scope", "*", "disqualifies", "the scope decides the densities of the layers"),
    Rule("model.options.init_scale", "*", "is named", "the network is the same (appendix G)"),
    Rule("model.options.dropout", "conv*", "disqualifies", "figure 6 has dropout as networks of "
         "their own", on_off=True),
    Rule("model.options.dropout", "*", "is named", "the network has the same weights"),
    Rule("model.*", "*", "disqualifies", "claims are about one network"),
    Rule("dataset.train|dataset.subset", "*", "disqualifies", "fewer examples give other "
         "accuracies"),
    Rule("dataset.loader.*", "*", "disqualifies", "accuracies of other data do not compare"),
    Rule("optimizer.name", "*", "disqualifies", "iterations and rates of another optimiser do not "
         "compare"),
    Rule("optimizer.options.lr", DEEP, "disqualifies", "figures 7 and 8 make a claim for each "
         "learning rate"),
    Rule("optimizer.schedule.warmup", DEEP, "disqualifies", "figures 7 and 8 have warmup as "
         "networks of their own", on_off=True),
    Rule("*", "*", "is named", "the claim may hold for other budgets and details of training"),
)  # fmt: skip
"""The first rule that matches a setting and a preset decides."""


class Departure(NamedTuple):
    """A setting that differs from the preset's; None where one of the two lacks it."""

    setting: str
    found: Any
    expected: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.setting} {_short(self.found)} for {_short(self.expected)}"


def departures(preset: str, dataset: str, settings: Mapping[str, Any]) -> Iterator[Departure]:
    """Compare the identity of a run with its preset, in the order of conf/. `dataset`: the option
    of the group `dataset` that the run was started with."""
    expected = protocol(preset)
    if dataset in COPIES and protocol(preset, f"dataset={COPIES[dataset]}") == expected:
        expected = protocol(preset, f"dataset={dataset}")
    for name in dict.fromkeys([*expected, *settings]):
        own, paper = settings.get(name), expected.get(name)
        differ = own != paper and bool(own or paper)  # absent, null, 0 and false all mean off
        if differ and not _belongs_to_another_choice(name, settings, expected):
            effect = _effect(name, preset, settings, both_on=bool(own and paper))
            if effect != "is ignored":
                yield Departure(name, own, paper, effect)


def has_preset(name: str) -> bool:
    """Return whether conf/ has a preset of this name."""
    return (CONF / "preset" / f"{name}.yaml").is_file()


@cache
def protocol(preset: str, *overrides: str) -> dict[str, Any]:
    """Return the identity settings of a preset, composed from conf/, as run.json holds them."""
    spec = composed(f"preset={preset}", *overrides)
    settings: dict[str, Any] = json.loads(json.dumps(identity(spec)))
    return settings


def _belongs_to_another_choice(
    name: str, settings: Mapping[str, Any], expected: Mapping[str, Any]
) -> bool:
    """Return whether a setting is an option that only one of two different models, optimisers or
    loaders has: then the choice itself is the departure."""
    choice, _, option = name.partition(".options.")
    other = settings.get(f"{choice}.name") != expected.get(f"{choice}.name")
    return bool(option) and other and (name not in settings or name not in expected)


def _effect(name: str, preset: str, settings: Mapping[str, Any], *, both_on: bool) -> Effect:
    rule = next(r for r in RULES if _matches(name, r.settings) and _matches(preset, r.presets))
    if rule.unless and all(condition.holds(settings) for condition in conditions(rule.unless)):
        return "is ignored"
    return "is named" if rule.on_off and both_on else rule.effect


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split("|"))


def _short(value: Any) -> str:  # noqa: ANN401 - any setting
    """Write a value as in a title."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "unset" if value is None else f"{value:.6g}" if number else str(value)
