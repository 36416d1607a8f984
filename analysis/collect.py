"""Read run folders into tidy tables: one row per level, or per point of a curve, with settings.

Works while a sweep is still running. Runs that cannot be used are reported, never silently dropped.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from analysis.labels import (
    REPLICATE,
    SPLIT,
    arm_labels,
    experiment_titles,
    numerically,
    rate_labels,
    split_labels,
)
from analysis.reading import UNUSABLE, Run, read_run, tables_of_levels
from analysis.runs import Runs
from lth.runs.records import LEVEL_COLUMNS, RUN_COLUMNS
from lth.runs.status import Status, find_runs, read_status
from lth.runs.superseded import superseded

RESULT = ["setting", "arm", "rate", "level"]
"""Columns that name what is measured; repetitions differ in REPLICATE."""
RETRY_SECONDS = 30.0
"""Seconds after which a run.json that could not be read is read again, which may take seconds."""
NO_LEVELS = pd.DataFrame(
    columns=[*LEVEL_COLUMNS, *RUN_COLUMNS, *REPLICATE[1:], "run", "censored", "experiment", "model",
             "dataset", "network", "preset", "state", "started", "split", "setting"]
)  # fmt: skip
"""The table of levels before there is one."""
Key = tuple[int, int, int]
"""Time, size and inode of a file: a file that is written anew has another."""


def collect(folders: Iterable[Path]) -> Runs:
    """Read every run at or below `folders`; each result once, however often it was run."""
    return Collector(folders).collect()


class Collector:
    """Reads the runs at or below some folders, again and again while a sweep is running: finished
    runs that have not changed are read once. `curves`: whether metrics.csv is checked as well."""

    def __init__(self, folders: Iterable[Path], *, curves: bool = True) -> None:
        self.folders, self._curves = list(folders), curves
        self._statuses: dict[Path, tuple[Key | None, float, Status]] = {}
        """Key of run.json, when it was read, and what it said, of each run but running ones."""
        self._read: dict[Path, tuple[Status, Run]] = {}
        """Finished runs, and the status with which they were read."""
        self.unread: set[Path] = set()
        """Finished runs that could not be read."""

    def collect(self) -> Runs:
        """Return the runs as they are now."""
        return self.merged(self.statuses())

    def statuses(self) -> dict[Path, Status]:
        """Return the folder of each run with its status, in order."""
        paths = sorted({run for root in self.folders for run in find_runs(root)})
        found = {path: self._status(path) for path in paths}
        for known in (self._statuses, self._read):
            for gone in known.keys() - found.keys():
                del known[gone]
        return found

    def _status(self, folder: Path) -> Status:
        key, now = _key(folder / "run.json"), time.monotonic()
        before, when, status = self._statuses.get(folder, (None, -math.inf, {}))
        late = status.get("state") == "unreadable" and now - when > RETRY_SECONDS
        if status and before == key and not late:
            return status
        status = read_status(folder)
        if status["state"] != "running":
            self._statuses[folder] = key, now, status
        return status

    def merged(self, statuses: Mapping[Path, Status]) -> Runs:
        """Return the runs that had these statuses just now."""
        runs, problems = list[Run](), list[str]()
        completed = superseded(statuses.items())
        self.unread = set()
        for folder, status in statuses.items():
            try:
                run = self._run(folder, status)
            except UNUSABLE as error:
                reason = str(error).removeprefix(f"{folder}: ")  # a LotteryError names the folder
                if folder not in completed:
                    problems.append(f"{folder}: left out ({reason})")
                if status["state"] == "finished":
                    self.unread.add(folder)
                continue
            runs.append(run)
            if run.settings["state"] != "finished" and folder not in completed:
                problems.append(
                    f"{folder}: {run.settings['state']}, with {len(run.levels)} levels so far"
                )
        return _merged(runs, problems)

    def _run(self, folder: Path, status: Status) -> Run:
        before, run = self._read.get(folder, ({}, None))
        if run is None or before is not status:
            run = read_run(folder, status["state"], curves=self._curves)
            if run.settings["state"] == "finished":
                self._read[folder] = status, run
        return run


def _key(file: Path) -> Key | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _merged(runs: list[Run], problems: list[str]) -> Runs:
    """Return the tables of all runs, with labels that tell them apart; adds to `problems`."""
    if not runs:
        return Runs(NO_LEVELS, {}, {}, problems)
    settings = _settings(runs)
    levels = pd.concat(tables_of_levels(runs)).merge(settings, on="run")
    levels = _without_repeats(levels, problems)
    identities = {run.settings["run"]: run.identity for run in runs}
    return Runs(levels, _probes(runs, settings, levels), identities, problems)


def _settings(runs: list[Run]) -> pd.DataFrame:
    """Return the settings of each run, with labels of arm and rate that tell all runs apart."""
    settings = pd.DataFrame([run.settings for run in runs])
    if SPLIT in settings:
        settings["split"] = split_labels(settings)
        settings = settings.explode("split", ignore_index=True)  # some runs belong to two
        chosen = zip(settings["setting"], settings["split"], strict=True)
        settings["setting"] = [json.dumps(json.loads(of) | {SPLIT: split}) for of, split in chosen]
    of_run = {run.settings["run"]: run.settings for run in runs}
    named = zip(settings["run"], settings["setting"], strict=True)
    settings["arm"] = arm_labels([of_run[run] | {"setting": setting} for run, setting in named])
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
    return levels.assign(experiment=experiment_titles(levels)).copy()  # pandas warns of many blocks


def _probes(
    runs: list[Run], settings: pd.DataFrame, levels: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the tables of each probe, under the labels of `levels`, each result once."""
    titles = levels[["setting", "experiment"]].drop_duplicates()
    named = settings[["run", "setting", "arm", "rate", *REPLICATE]].merge(titles, on="setting")
    runs = sorted(runs, key=lambda run: (run.settings["started"], str(run.settings["run"])))
    names = dict.fromkeys(name for run in runs for name in run.probes)
    tables = {name: pd.concat([r.probes[name] for r in runs if name in r.probes]) for name in names}
    return {name: _each_line_once(table.merge(named, on="run")) for name, table in tables.items()}


def _each_line_once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a probe without repeated lines: of runs that were repeated, those of the
    newest one, and of draws, which repeat the line of the dense network, those that differ."""
    line = [*RESULT, *(["iteration"] if "iteration" in rows else [])]
    of_line = rows.groupby([*line, *REPLICATE], dropna=False)
    rows = rows[rows["run"] == of_line["run"].transform("last")]
    if not {"fraction", "test_loss"} <= {*rows.columns}:
        apart = ("run", "rewind.draw")
        return rows.drop_duplicates([n for n in rows.columns if n not in apart], keep="last")
    losses = rows.groupby([*line, *REPLICATE], dropna=False)["test_loss"].transform("sum")
    return rows.loc[~rows.assign(losses=losses).duplicated([*line, "fraction", "seed", "losses"])]
