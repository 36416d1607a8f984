"""Run folders to tidy tables: a row per level, or per point of a curve, with the run's settings.

Works while a sweep is still running. What cannot be used is reported, never silently dropped.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lth.runs.records import LEVEL_COLUMNS, LINE_COLUMNS, METRIC_COLUMNS, is_whole
from lth.runs.status import find_runs, state_of
from lth.store.files import checksum

REPLICATE = ("seed", "rewind.draw")
"""Settings that number repetitions of the same thing."""
TYPES = ("conv", "linear", "output", "shortcut")
VARIANT = ("pruning.rate", "pruning.rates", *(f"pruning.{kind}_rate" for kind in TYPES))
"""Settings that are drawn in one picture, beside the arm."""

OF_CURVES = ("experiment", "arm", "rate", "density", "final_iteration")
"""What the points of a curve are named by, beside their run and level."""

ARMS = ("winning ticket", "random reinit", "random mask", "one-shot", "one-shot, random reinit")
"""Those that the paper draws, in the order in which they are shown; any others follow."""


def arm_name(settings: Mapping[str, Any], options: str = "") -> str:
    """What a run's arm is called: its departures from the winning ticket, in words. `options`: what
    tells its criterion apart from the same one with others."""
    criterion = settings["pruning.criterion.path"].removeprefix("lth.pruning.").replace("_", " ")
    at_init, one_shot = settings["pruning.at"] == "init", settings["pruning.mode"] == "one_shot"
    if criterion == "random":
        judged = [
            "random mask",
            "" if at_init else "at end",
            "one-shot" if one_shot else "",
        ]
    elif at_init:
        judged = [f"{criterion} at init", "" if one_shot else "level by level"]
    else:
        plain = "" if criterion == "magnitude" else criterion
        judged = [plain, "one-shot" if one_shot else ""]
    later = settings["rewind.iteration"] or settings["rewind.kind"] == "late"
    start = f" from {settings['rewind.iteration']}" if later else ""
    words = [
        *judged,
        options,
        f"{settings['pruning.rounds']} rounds" if settings["pruning.rounds"] > 1 else "",
        "shuffled" if settings["rewind.shuffle"] else "",
        REWINDS[settings["rewind.kind"]] + start,
        SURVIVORS[settings["rewind.survivors"]],
        "pruned weights frozen" if settings["rewind.pruned"] == "frozen" else "",
    ]
    return ", ".join(word for word in words if word) or ARMS[0]


def _options(settings: Mapping[str, Any]) -> str:
    """Those of a run's criterion."""
    prefix = "pruning.criterion.options."
    own = {name.removeprefix(prefix): v for name, v in settings.items() if name.startswith(prefix)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in own.items())


def _arm_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """That of each run; options are named where an experiment has a criterion with several."""

    def judge(settings: Mapping[str, Any]) -> tuple[str, str]:
        return settings["setting"], settings["pruning.criterion.path"]

    options: dict[tuple[str, str], set[str]] = {}
    for settings in runs:
        options.setdefault(judge(settings), set()).add(_options(settings))
    return [arm_name(s, _options(s) if len(options[judge(s)]) > 1 else "") for s in runs]


REWINDS = {
    "init": "",
    "late": "late rewinding",
    "lr": "learning-rate rewinding",
    "finetune": "fine-tuning",
    "continue": "continued training",
}
SURVIVORS = {
    "rewind": "",
    "reinit": "random reinit",
    "reinit_sign": "reinit with signs",
    "constant_sign": "constant with signs",
}


@dataclass(frozen=True)
class Runs:
    """`levels`, `lines`: rows of all runs under the columns of `lth.runs.records`, then `run`, `arm`,
    `rate` (as shown), `experiment` (the network, and what else tells them apart) and, of levels,
    `model`, `network` and every setting by name. `problems`: what was left out, and why."""

    levels: pd.DataFrame
    lines: pd.DataFrame
    problems: list[str]

    def curves(self, levels: pd.DataFrame) -> pd.DataFrame:
        """Where the networks behind some rows of `levels` were tested on their way: `iteration` and
        `test_accuracy`. Read anew, and only this, as all curves of a large sweep would not fit into
        memory."""
        named = levels[["run", "level", *OF_CURVES]]
        parts = [
            read_csv(
                Path(str(run)) / "metrics.csv", usecols=["level", "iteration", "test_accuracy"]
            )
            .dropna(subset=["test_accuracy"])
            .merge(rows, on="level")
            for run, rows in named.groupby("run", sort=False)
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def collect(folders: Iterable[Path]) -> Runs:
    """Every run at or below `folders`; each result once, however often it was run."""
    runs, problems = list[Run](), list[str]()
    for folder in sorted({run for root in folders for run in find_runs(root)}):
        try:
            runs.append(read_run(folder))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{folder}: left out ({error})")
            continue
        state, count = runs[-1].settings["state"], len(runs[-1].levels)
        if state != "finished":
            problems.append(f"{folder}: {state}, with {count} levels so far")
    if not runs:
        return Runs(pd.DataFrame(), pd.DataFrame(), problems)
    settings = pd.DataFrame([run.settings for run in runs])
    settings["arm"] = _arm_names([run.settings for run in runs])
    settings["rate"] = _rate_names(settings["rate"])
    levels = pd.concat([run.levels for run in runs]).merge(settings, on="run")
    levels = _without_repeats(levels, problems)
    probed = [run.lines for run in runs if len(run.lines)]
    lines = _without_repeated_lines(pd.concat(probed), settings, levels) if probed else None
    return Runs(levels, pd.DataFrame() if lines is None else lines, problems)


def in_order(arms: set[str]) -> list[str]:
    """Arms in the order in which they are shown."""
    return sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))


class Run(NamedTuple):
    """The settings and the tables of one run; `lines` is empty without a probe."""

    settings: dict[str, Any]
    levels: pd.DataFrame
    lines: pd.DataFrame


def read_run(folder: Path) -> Run:
    """What a run has recorded. Raises where that is missing or not whole."""
    status = json.loads((folder / "run.json").read_bytes())
    check_whole(folder, status)
    state = state_of(folder)
    if state != "finished" and "tables" not in status and not (folder / "levels.csv").exists():
        raise ValueError(f"{state}, no level yet: {status.get('error', 'it has just begun')}")
    if "identity" not in status:
        raise ValueError(f"{status['state']} before it began: {status.get('error', 'no reason')}")
    identity = {name: _plain(value) for name, value in status["identity"].items()}
    levels = _table(folder / "levels.csv", LEVEL_COLUMNS)
    _header(folder / "metrics.csv", METRIC_COLUMNS)
    probed = "connectivity.csv" in status.get("tables", {})
    lines = (
        _table(folder / "connectivity.csv", LINE_COLUMNS)
        if probed
        else pd.DataFrame(columns=[*LINE_COLUMNS])
    )
    groups = status["groups"]
    noise = " (smoke: made-up data)" if status.get("spec", {}).get("smoke") else ""
    derived = {
        "run": str(folder),
        "state": state,
        "started": status.get("started", 0.0),
        "model": groups["model"],
        "network": f"{groups['model']} on {groups['dataset']}{noise}",
        "rate": _rates(identity),
        "setting": json.dumps({k: v for k, v in identity.items() if not _tells_arms_apart(k)}),
    }
    levels, lines = (table.assign(run=str(folder)) for table in (levels, lines))
    arm_name(identity)  # raises where a setting is missing, as in runs of other versions
    return Run({**identity, **derived}, levels, lines)


def check_whole(folder: Path, status: dict[str, Any]) -> None:
    """Raise ValueError where a run's files are not as they were written."""
    if not is_whole(status):
        raise ValueError("run.json is not as it was written")
    for name, written in status.get("tables", {}).items():
        # while a run writes, its tables may be newer than what run.json says of them
        if state_of(folder) != "running" and checksum((folder / name).read_bytes()) != written:
            raise ValueError(f"{name} is not as it was written: run it once more")


def read_csv(file: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401 - pandas' own
    """A table whose floats are those that were written: before 3.1, pandas has to be asked for the
    last digit."""
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    exact = {} if version >= (3, 1) else {"float_precision": "round_trip"}
    return pd.read_csv(file, **exact, **options)


def _header(file: Path, columns: tuple[str, ...]) -> None:
    """Raise where a table does not have these columns, without reading it."""
    _table(file, columns, nrows=0)


def _table(file: Path, columns: tuple[str, ...], **options: Any) -> pd.DataFrame:  # noqa: ANN401
    table = read_csv(file, **options)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{file.name} has no column {', '.join(missing)}")
    return table


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return json.dumps(value) if isinstance(value, list | dict) else value


def _tells_arms_apart(name: str) -> bool:
    own = ("pruning.criterion.", "pruning.at", "pruning.mode", "pruning.rounds")
    return name.startswith((*own, "rewind.")) or name in (*REPLICATE, *VARIANT)


def _rates(identity: dict[str, Any]) -> str:
    """The rate, and those of other types of layer where they are not its defaults."""
    rate, rates = identity["pruning.rate"], identity["pruning.rates"]
    layerwise = identity["pruning.scope"] == "layerwise"
    usual = {"conv": rate, "linear": rate, "output": rate / 2 if layerwise else rate, "shortcut": 0}
    own = {kind: identity[f"pruning.{kind}_rate"] for kind in TYPES}
    named = [f", {kind} {own[kind]:.4g} %" for kind in TYPES if own[kind] != usual[kind]]
    told = ", ".join(f"{each:.4g}" for each in (json.loads(rates) if rates else [rate]))
    return f"{told} %{''.join(named)}"


def _rate_names(rates: Sequence[str]) -> list[str]:
    """Long lists by their ends, where that tells them apart."""
    short = {rate: _by_its_ends(rate) for rate in set(rates)}
    counts = Counter(short.values())
    return [short[rate] if counts[short[rate]] == 1 else rate for rate in rates]


def _by_its_ends(rate: str) -> str:
    numbers, percent, rest = rate.partition(" %")
    first, *others = numbers.split(", ")
    shown = ", ".join([first, others[0], "...", others[-1]]) if len(others) > 3 else numbers
    return f"{shown}{percent}{rest}"


def _without_repeats(levels: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    """Each result once for (experiment, arm, rate, level), with `experiment` for a title.

    The same command run again gives the same trainings; so do draws of an arm that draws nothing,
    and level 0 of all draws. Different results under the same settings are reported.
    """
    result = ["setting", "arm", "rate", "level"]
    levels = levels.sort_values([*result, *REPLICATE, "started", "run"], ignore_index=True)
    key = [*result, *REPLICATE]
    found = levels.groupby(key, dropna=False)[["training", "early_stop_val_loss"]].nunique()
    problems += [
        f"{dict(zip(key[1:], where[1:], strict=True))}: runs disagree; the newest is used"
        for where in found[(found > 1).any(axis=1)].index
    ]
    levels = levels.drop_duplicates(key, keep="last").drop_duplicates([*result, "training"])
    return levels.assign(experiment=_experiments(levels))


def _without_repeated_lines(
    lines: pd.DataFrame, settings: pd.DataFrame, levels: pd.DataFrame
) -> pd.DataFrame:
    """The rows of lines under the names of their levels, each once."""
    titles = levels[["setting", "experiment"]].drop_duplicates()
    named = settings[["run", "setting", "arm", "rate", *REPLICATE]].merge(titles, on="setting")
    place = ["setting", "arm", "rate", "level", "iteration", "share", *REPLICATE]
    lines = lines.merge(named, on="run")
    lines.loc[lines["level"] == 0, "rewind.draw"] = 0  # the dense network is one for all draws
    return lines.drop_duplicates(place, keep="last")


def _experiments(levels: pd.DataFrame) -> "pd.Series[str]":
    """The network, and the settings that tell experiments with the same network apart."""
    titles: dict[str, str] = {}
    for network, rows in levels.groupby("network"):
        settings = {setting: json.loads(setting) for setting in rows["setting"].unique()}
        names = sorted({name for values in settings.values() for name in values})
        differ = [n for n in names if len({str(v.get(n)) for v in settings.values()}) > 1]
        for setting, values in settings.items():
            told = [f", {name.rpartition('.')[2]} {values.get(name)}" for name in differ]
            titles[setting] = f"{network}{''.join(told)}"
    return levels["setting"].map(titles)
