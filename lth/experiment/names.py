"""Name the arm and the rates of a run, as figures and tables show them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lth.experiment.recipe import default_rates, level_rate, type_rates
from lth.experiment.settings import TYPES, Pruning, Rewind, Spec
from lth.experiment.targets import flat

TICKET = "winning ticket"
REWINDS = {
    "init": "",
    "late": "late rewinding",
    "lr": "learning-rate rewinding",
    "finetune": "fine-tuning",
    "continue": "continued training",
}
UPDATES = {
    "set": "SET",
    "rigl": "RigL",
    "gradual": "gradual pruning",
    "edge_popup": "edge-popup",
    "supermask": "supermask",
}
SURVIVORS = {
    "rewind": "",
    "reinit": "random reinit",
    "reinit_sign": "reinit with signs",
    "constant_sign": "constant with signs",
}


def arm_name(spec: Spec) -> str:
    """Return how the run differs from a winning ticket, in words; "winning ticket" if it is one."""
    parts = [*_pruning_words(spec.pruning), *_rewind_words(spec.rewind), *_source_words(spec)]
    return ", ".join(part for part in parts if part) or TICKET


def _source_words(spec: Spec) -> list[str]:
    """Return how the recipe under which tickets are found differs from the run's own."""
    if spec.source is None:
        return []
    groups = ("dataset", "optimizer", "training")
    own, found = (
        dict(flat({group: dataclasses.asdict(getattr(of, group)) for group in groups}))
        for of in (spec, spec.source)
    )
    other = {name: value for name, value in found.items() if own.get(name) != value}
    if "optimizer.name" in other:  # the options of two optimisers do not compare, but for the rate
        options = [name for name in other if name.startswith("optimizer.options.")]
        other = {n: v for n, v in other.items() if n not in options or n.endswith(".lr")}
    words = [word for name, value in other.items() if (word := _source_word(name, value))]
    weights = ["its weights"] if spec.source.weights == "source" else []
    return [f"found with {', '.join([*words, *weights]) or 'the same recipe'}"]


def _source_word(name: str, value: object) -> str:
    """Return a setting of the source, "" for one that follows from others."""
    if name in ("dataset.root", "dataset.examples"):
        return ""
    if name.startswith("dataset.loader.options."):
        return f"{value}" if name.endswith(".name") else f"{name.rpartition('.')[2]} {value}"
    if name in ("dataset.loader.name", "optimizer.name"):
        return f"{value}"
    if name == "training.iterations":
        return f"{value:,} iterations"
    number = f"{value:.6g}" if isinstance(value, float) else value
    return f"{name.rpartition('.')[2]} {number}"


def _pruning_words(pruning: Pruning) -> list[str]:
    name = pruning.criterion.name
    criterion = name if "." in name else name.replace("_", " ")  # a path of your own stays
    scope = pruning.scope.upper() if pruning.scope in ("er", "erk") else ""
    if pruning.update:
        start = criterion if pruning.update.kind in ("set", "rigl") else "random"
        ticket = "its ticket" if pruning.update.ticket else ""
        other = f"from {criterion}" if start != "random" else ""
        return [UPDATES[pruning.update.kind], scope, other, ticket]
    at_init, one_shot = pruning.at == "init", pruning.mode == "one_shot"
    rounds = f"{pruning.rounds} rounds" if pruning.rounds > 1 else ""
    if criterion == "random":
        return [
            "random mask",
            scope,
            "" if at_init else "at end",
            "one-shot" if one_shot else "",
            rounds,
        ]
    if at_init:
        return [f"{criterion} at init", scope, "" if one_shot else "level by level", rounds]
    if pruning.at == "early":
        return ["early-bird", scope, "" if criterion == "magnitude" else criterion, rounds]
    named = "" if criterion == "magnitude" else criterion
    return [named, scope, "one-shot" if one_shot else "", rounds]


def _rewind_words(rewind: Rewind) -> list[str]:
    later = rewind.iteration or rewind.kind == "late"
    start = f" from {rewind.iteration}" if later else ""
    return [
        "shuffled" if rewind.shuffle else "",
        REWINDS[rewind.kind] + start,
        SURVIVORS[rewind.survivors],
        "pruned weights frozen" if rewind.pruned == "frozen" else "",
        "longer training" if rewind.budget == "lineage" else "",
    ]


def rate_name(pruning: Pruning) -> str:
    """Return the rate of each level in percent, and of each layer type that departs from the
    paper's defaults, e.g. `20 %` or `20 %, conv 10 %`."""
    rates = _rates(pruning)
    usual, own = default_rates(pruning, rates[0]), type_rates(pruning, rates[0])
    departures = [f", {kind} {own[kind]:.4g} %" for kind in TYPES if own[kind] != usual[kind]]
    units = "" if pruning.granularity == "weight" else f" of {pruning.granularity}s"
    return f"{_percent(rates)}{units}{''.join(departures)}"


def layers_of(pruning: Pruning, weights: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Return, for each type of layer that a network has, its number of weights and its rate: that
    of every level, or a list if levels have rates of their own."""
    rates = [type_rates(pruning, rate) for rate in _rates(pruning)]
    found = {}
    for kind, count in weights.items():
        own = [of_level[kind] for of_level in rates]
        rate = _percent(own if len({*own}) > 1 else own[:1])
        if pruning.granularity != "weight":
            rate = f"{rate} of the units"
        elif pruning.scope != "layerwise" and any(own):
            rate = f"{rate} (all types together)"
        found[kind] = {"weights": count, "rate": rate}
    return found


def layers_text(layers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return `layers` of run.json in words, e.g. `linear 20 % of 265,200 weights, output 10 % of
    1,000`."""
    parts = [f"{kind} {layer['rate']} of {layer['weights']:,}" for kind, layer in layers.items()]
    return ", ".join([f"{parts[0]} weights", *parts[1:]])


def _rates(pruning: Pruning) -> Sequence[float]:
    return pruning.rates or (level_rate(pruning),)


def _percent(rates: Sequence[float]) -> str:
    return f"{', '.join(f'{rate:.4g}' for rate in rates)} %"
