"""Labels that depend on the other runs shown: options of an arm, short rates, experiment titles."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from lth.experiment.builtins import BUILTINS, IDS
from lth.experiment.config import option_target
from lth.experiment.settings import TYPES

SHA, HASH = "sha256:", 7
"""Characters that are shown of the hash of user code, as many as git shows of a commit."""
CRITERION, OPTIONS = "pruning.criterion.", "pruning.criterion.options."
REPLICATE = ("seed", "rewind.draw")
"""Settings that number the repetitions of one experiment."""
SPLIT, OWN = "split_seed", "own"
RATES = (
    "pruning.rate",
    "pruning.rates",
    "pruning.granularity",
    *(f"pruning.{kind}_rate" for kind in TYPES),
)
"""Settings that `rate` of run.json describes."""
ARM = (CRITERION, "pruning.at", "pruning.mode", "pruning.rounds", "pruning.settled",
       "pruning.update", "rewind.", "source")  # fmt: skip
"""Settings, or prefixes of their names, that `arm` of run.json describes."""


DETAILS = (
    "pruning.criterion.code",
    "pruning.rounds",
    "pruning.settled",
    "pruning.update",
    "source",
)
"""Prefixes of settings that the name of an arm does not always give."""


def code_label(group: str, option: str, name: str | None) -> str:
    """Return the name of the model or the dataset that ran. `option`: the option of its group;
    `name`: the id or the dotted path of the code, None in an old run.json.

    The option names a built-in only if it is the one that ran: `model._target_=...` replaces the
    code and keeps the option.
    """
    if name is None:
        return option
    if name not in BUILTINS:
        return name
    target = option_target(group, option)
    return option if target is None or IDS.get(target) == name else name


def shared_settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the runs of one experiment share: all except those that number
    repetitions and those that the arm and the rate describe, and the split (`split_labels`). The
    arm names the scopes `er` and `erk` too."""
    apart = (*REPLICATE, SPLIT, *RATES)
    shared = {k: v for k, v in identity.items() if k not in apart and not k.startswith(ARM)}
    by_arm = shared.get("pruning.scope") in ("er", "erk")
    return shared | ({"pruning.scope": "layerwise"} if by_arm else {})


def split_labels(runs: pd.DataFrame) -> list[list[str]]:
    """Return how each run's validation split was chosen, by the columns `seed`, `split_seed` and
    `setting`: OWN if each seed has its own, which makes it a trial of its own, else the split that
    all seeds share.

    A run whose seed and split have the same number may be either. It belongs to the runs of its
    setting that share its split, if there are any, and to those that have their own, if there are
    others.
    """
    own = runs["seed"] == runs[SPLIT]
    shared = {setting: {*rows[SPLIT]} for setting, rows in runs[~own].groupby("setting")}
    trials = runs[own].groupby("setting")["seed"].nunique()
    labels = []
    for setting, split, is_own in zip(runs["setting"], runs[SPLIT], own, strict=True):
        is_shared = split in shared.get(setting, ())
        alone = is_shared and trials.get(setting, 0) == 1
        labels.append([f"{split:g}"] * is_shared + [OWN] * (is_own and not alone))
    return labels


def arm_labels(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the arm of each run, followed by the options of its criterion if one experiment
    (`setting`) has that criterion with different options, and by the settings in DETAILS that
    differ between runs with this arm in one experiment."""
    options: dict[tuple[object, ...], set[str]] = {}
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        options.setdefault(_criterion(run), set()).add(_options(run))
        alike.setdefault((run["setting"], run["arm"]), []).append(run)
    differ = {arm: _differing_details(of_arm) for arm, of_arm in alike.items()}
    labels = []
    for run in runs:
        parts = [run["arm"], _options(run) if len(options[_criterion(run)]) > 1 else ""]
        names = differ[run["setting"], run["arm"]]
        parts += [f"{_short_name(name)} {_short_value(name, run)}" for name in names]
        labels.append(", ".join(filter(None, parts)))
    return labels


def _differing_details(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in DETAILS that differ between some runs."""
    names = sorted({name for run in runs for name in run if name.startswith(DETAILS)})
    return [name for name in names if len({str(run.get(name)) for run in runs}) > 1]


def _criterion(run: Mapping[str, Any]) -> tuple[object, ...]:
    named = {k: v for k, v in run.items() if k.startswith(CRITERION) and not k.startswith(OPTIONS)}
    return run["setting"], *sorted(named.items())


def _options(run: Mapping[str, Any]) -> str:
    own = {k.removeprefix(OPTIONS): v for k, v in run.items() if k.startswith(OPTIONS)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in own.items())


def rate_labels(rates: Iterable[str]) -> list[str]:
    """Return the rates, with long lists shortened unless that would make two of them equal."""
    rates = list(rates)
    short = {rate: _shortened(rate) for rate in set(rates)}
    counts = Counter(short.values())
    return [short[rate] if counts[short[rate]] == 1 else rate for rate in rates]


def numerically(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return the key by which `sort_values` sorts a column: rates by their numbers."""
    if column.name != "rate":
        return column
    numbers = {rate: re.findall(r"\d+(?:\.\d+)?", rate) for rate in column.unique()}
    ordered = sorted(numbers, key=lambda rate: ([float(n) for n in numbers[rate]], rate))
    return column.map({rate: place for place, rate in enumerate(ordered)})


def _shortened(rate: str) -> str:
    numbers, percent, rest = rate.partition(" %")
    first, *others = numbers.split(", ")
    shown = ", ".join([first, others[0], "...", others[-1]]) if len(others) > 3 else numbers
    return f"{shown}{percent}{rest}"


def experiment_titles(levels: pd.DataFrame) -> "pd.Series[str]":
    """Return the title of each row's experiment: the network, and the settings that differ between
    the experiments with this network."""
    titles: dict[str, str] = {}
    for network, rows in levels.groupby("network"):
        settings = {setting: json.loads(setting) for setting in rows["setting"].unique()}
        names = sorted({name for values in settings.values() for name in values})
        differ = [n for n in names if len({str(v.get(n, "unset")) for v in settings.values()}) > 1]
        for setting, values in settings.items():
            parts = [f", {_short_name(name)} {_short_value(name, values)}" for name in differ]
            titles[setting] = f"{network}{''.join(parts)}"
    return levels["setting"].map(titles)


def _short_value(setting: str, values: Mapping[str, Any]) -> str:
    """Return the value of a setting, "unset" where there is no such setting; of code, the start of
    the hash of its source."""
    value = str(values.get(setting, "unset"))
    return value.removeprefix(SHA)[:HASH] if value.startswith(SHA) else value


def _short_name(setting: str) -> str:
    """Return the last part of a setting's name; `optimizer` for optimizer.name, and so on."""
    *groups, last = setting.split(".")
    if last == "code":
        return f"{groups[-1]} code"
    return groups[-1] if last == "name" and groups[-1] != "options" else last
