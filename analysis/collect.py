"""Read run folders into tidy tables: one row per level, or per point of a curve, with settings.

Works while a sweep is still running. Runs that cannot be used are reported, never silently dropped.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.labels import (
    REPLICATE,
    SPLIT,
    arm_labels,
    code_label,
    experiment_titles,
    numerically,
    rate_labels,
    shared_settings,
    split_labels,
)
from lth.errors import LotteryError
from lth.experiment.recipe import with_neutral_options
from lth.probes import Connectivity, Flops, GradientFlow, LevelConnectivity, MaskDistance
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS, PROBE_COLUMNS, RUN_COLUMNS
from lth.runs.status import Status, find_runs, read_status, read_whole, state_of
from lth.runs.superseded import superseded
from lth.store.files import checksum

CURVE_NAMES = ("experiment", "arm", "rate", "density", "final_iteration")
"""Columns that name the points of a curve, beside run and level."""
RESULT = ["setting", "arm", "rate", "level"]
"""Columns that name what is measured; repetitions differ in REPLICATE."""
LEVELS, METRICS = "levels.csv", "metrics.csv"
PROBES = {
    probe.table: (*PROBE_COLUMNS, *probe.columns)
    for probe in (Connectivity, LevelConnectivity, MaskDistance, GradientFlow, Flops)
}
"""Table of a built-in probe -> columns that it must have."""


@dataclass(frozen=True)
class Runs:
    """The tables of all runs, each result once.

    `levels` and each of `probes` (by probe) have the columns of the CSVs, then `run`, `arm`, `rate`
    and `experiment` (the network, and the settings that differ between experiments with it).
    `levels` also has `model`, `network`, `preset`, every setting by its dotted name, and
    `censored`: whether the early stop is the last iteration, so that the minimum of validation loss
    may come later.
    `identities`: run -> its settings as run.json holds them. `problems`: each run that was left
    out or is incomplete, and why.
    """

    levels: pd.DataFrame
    probes: Mapping[str, pd.DataFrame]
    identities: Mapping[str, Mapping[str, Any]]
    problems: list[str]

    def pages(self, column: str) -> Iterator["Runs"]:
        """Yield the runs of each experiment or network (`column`)."""
        for _, levels in self.levels.groupby(column, sort=False):
            titles = set(levels["experiment"])
            own = {name: of[of["experiment"].isin(titles)] for name, of in self.probes.items()}
            probes = {name: table for name, table in own.items() if len(table)}
            yield replace(self, levels=levels, probes=probes)

    def curves(self, levels: pd.DataFrame) -> pd.DataFrame:
        """Return `iteration` and `test_accuracy` of every test evaluation of the trainings behind
        some rows of `levels`. Reads only these: the curves of a large sweep may exceed memory."""
        named = levels[["run", "level", *CURVE_NAMES]]
        columns = ["level", "iteration", "test_accuracy"]
        parts = [
            read_csv(Path(str(run)) / METRICS, usecols=columns)
            .dropna(subset=["test_accuracy"])
            .merge(rows, on="level")
            for run, rows in named.groupby("run", sort=False)
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


class Run(NamedTuple):
    """The settings and the tables of one run."""

    settings: dict[str, Any]
    identity: dict[str, Any]
    levels: pd.DataFrame
    probes: dict[str, pd.DataFrame]


def collect(folders: Iterable[Path]) -> Runs:
    """Read every run at or below `folders`; each result once, however often it was run."""
    runs, problems = list[Run](), list[str]()
    paths = sorted({run for root in folders for run in find_runs(root)})
    completed = superseded((path, read_status(path)) for path in paths)
    for folder in paths:
        try:
            run = read_run(folder)
        except (LotteryError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).removeprefix(f"{folder}: ")  # a LotteryError names the folder
            if folder not in completed:
                problems.append(f"{folder}: left out ({reason})")
            continue
        runs.append(run)
        if run.settings["state"] != "finished" and folder not in completed:
            problems.append(
                f"{folder}: {run.settings['state']}, with {len(run.levels)} levels so far"
            )
    if not runs:
        return Runs(pd.DataFrame(), {}, {}, problems)
    settings = _settings(runs)
    levels = pd.concat([run.levels for run in runs]).merge(settings, on="run")
    levels = _without_repeats(levels, problems)
    identities = {run.settings["run"]: run.identity for run in runs}
    return Runs(levels, _probes(runs, settings, levels), identities, problems)


def read_run(folder: Path) -> Run:
    """Read the records of a run. Raises LotteryError or ValueError if they are missing or
    damaged."""
    status, state = read_whole(folder), state_of(folder)
    check_tables(folder, status, state)
    if state != "finished" and "tables" not in status and not (folder / LEVELS).exists():
        raise ValueError(f"{state}, no level yet: {status.get('error', 'it has just started')}")
    if "identity" not in status:
        raise ValueError(f"{state} before it started: {status.get('error', 'no reason recorded')}")
    if missing := [name for name in ("groups", "arm", "rate") if name not in status]:
        raise ValueError(f"run.json has no {', '.join(missing)}; another version wrote it")
    levels = _table(folder / LEVELS, LEVEL_COLUMNS)
    levels = levels.drop(columns=[*RUN_COLUMNS], errors="ignore")  # run.json has them as well
    _table(folder / METRICS, METRIC_COLUMNS, nrows=0)  # only the header is checked here
    identity = with_neutral_options(status["identity"])
    settings = {name: _scalar(value) for name, value in identity.items()}
    settings |= _derived(folder, status | {"identity": identity}, state)
    names = [Path(name).stem for name in status.get("tables", {}) if name not in (LEVELS, METRICS)]
    probes = {name: _table(folder / f"{name}.csv", PROBES.get(name, ("level",))) for name in names}
    probes = {name: table.assign(run=str(folder)) for name, table in probes.items()}
    censored = levels["early_stop_iteration"] >= levels["final_iteration"]
    return Run(settings, identity, levels.assign(run=str(folder), censored=censored), probes)


def _derived(folder: Path, status: Status, state: str) -> dict[str, Any]:
    groups, identity = status["groups"], status["identity"]
    model = code_label("model", groups["model"], identity.get("model.name"))
    loader = identity.get("dataset.loader.name")
    smoke = status.get("spec", {}).get("smoke")
    dataset = groups["dataset"] if smoke else code_label("dataset", groups["dataset"], loader)
    return {
        "run": str(folder),
        "state": state,
        "started": status.get("started", 0.0),
        "arm": status["arm"],
        "rate": status["rate"],
        "preset": status.get("preset"),
        "model": model,
        "dataset": dataset,
        "network": f"{model} on {dataset}{' (smoke: made-up data)' * bool(smoke)}",
        "setting": json.dumps({k: _scalar(v) for k, v in shared_settings(identity).items()}),
    }


def check_tables(folder: Path, status: Status, state: str) -> None:
    """Raise ValueError if a run's tables do not have the checksums in its run.json."""
    for name, written in status.get("tables", {}).items():
        # while a run is in progress, its tables may be newer than run.json
        if state != "running" and checksum((folder / name).read_bytes()) != written:
            raise ValueError(f"{name} is not as it was written; run the same command again")


def read_csv(file: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401 - pandas' own
    """Read a table with the floats exactly as written: the default of pandas before version 3.1
    rounds the last digit."""
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    exact = {} if version >= (3, 1) else {"float_precision": "round_trip"}
    return pd.read_csv(file, **exact, **options)


def _table(file: Path, columns: tuple[str, ...], **options: Any) -> pd.DataFrame:  # noqa: ANN401
    """Read a table. Raises ValueError if it lacks one of these columns."""
    table = read_csv(file, **options)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{file.name} has no column {', '.join(missing)}")
    return table


def _scalar(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value that a table can hold: lists become text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _settings(runs: list[Run]) -> pd.DataFrame:
    """Return the settings of each run, with labels of arm and rate that tell all runs apart."""
    settings = pd.DataFrame([run.settings for run in runs])
    if SPLIT in settings:
        settings["split"] = split_labels(settings)
        chosen = zip(settings["setting"], settings["split"], strict=True)
        settings["setting"] = [json.dumps(json.loads(of) | {SPLIT: split}) for of, split in chosen]
    named = zip(runs, settings["setting"], strict=True)
    settings["arm"] = arm_labels([run.settings | {"setting": setting} for run, setting in named])
    settings["rate"] = rate_labels(settings["rate"])
    # of two runs with the same settings only one is kept, and it may not name the preset
    named = settings.groupby("setting")["preset"].transform("first")
    return settings.assign(preset=settings["preset"].fillna(named))


def _without_repeats(levels: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    """Return each result once, with its `experiment`.

    Trainings are repeated by a command that is run again, by the draws of an arm without random
    draws, and by level 0 of all draws. Different results of the same settings are reported.
    """
    order = [*RESULT, *REPLICATE, "started", "run"]
    levels = levels.sort_values(order, key=numerically, ignore_index=True)
    key = [*RESULT, *REPLICATE]
    found = levels.groupby(key, dropna=False)[["training", "early_stop_val_loss"]].nunique()
    problems += [
        f"{dict(zip(key[1:], where[1:], strict=True))}: runs disagree; the newest is used"
        for where in found[(found > 1).any(axis=1)].index
    ]
    levels = levels.drop_duplicates(key, keep="last").drop_duplicates([*RESULT, "training"])
    return levels.assign(experiment=experiment_titles(levels))


def _probes(
    runs: list[Run], settings: pd.DataFrame, levels: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the tables of each probe, under the labels of `levels`, each result once."""
    titles = levels[["setting", "experiment"]].drop_duplicates()
    named = settings[["run", "setting", "arm", "rate", *REPLICATE]].merge(titles, on="setting")
    names = dict.fromkeys(name for run in runs for name in run.probes)
    tables = {name: pd.concat([r.probes[name] for r in runs if name in r.probes]) for name in names}
    return {name: _each_line_once(table.merge(named, on="run")) for name, table in tables.items()}


def _each_line_once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a probe without repeated lines. Runs that were repeated, and draws, repeat
    lines (the line of the dense network is the same for all draws): their losses are equal."""
    if not {"fraction", "test_loss"} <= {*rows.columns}:
        apart = ("run", "rewind.draw")
        return rows.drop_duplicates([n for n in rows.columns if n not in apart], keep="last")
    line = [*RESULT, *(["iteration"] if "iteration" in rows else [])]
    rows = rows.drop_duplicates([*line, "fraction", *REPLICATE], keep="last")
    losses = rows.groupby([*line, *REPLICATE])["test_loss"].transform("sum")
    return rows.loc[~rows.assign(losses=losses).duplicated([*line, "fraction", "seed", "losses"])]
