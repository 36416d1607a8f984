"""Read the records of one run folder, and check them."""

import csv
import io
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.labels import code_label, shared_settings
from lth.errors import LotteryError
from lth.experiment.recipe import with_neutral_options
from lth.probes import Connectivity, Flops, GradientFlow, LevelConnectivity, MaskDistance
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS, PROBE_COLUMNS, RUN_COLUMNS
from lth.runs.status import Status, read_whole
from lth.store.files import checksum

LEVELS, METRICS = "levels.csv", "metrics.csv"
TEXTS = ("cached", "training", *RUN_COLUMNS)
"""Columns of levels.csv that need not be numbers."""
ORIGIN = ("commit", "dirty", "python", "host", "machine")
"""Fields of run.json, besides `versions`, that say where a run was made."""
UNUSABLE = (LotteryError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""Errors that a damaged or foreign run may raise."""
PROBES = {
    probe.table: (*PROBE_COLUMNS, *probe.columns)
    for probe in (Connectivity, LevelConnectivity, MaskDistance, GradientFlow, Flops)
}
"""Table of a built-in probe -> columns that it must have."""


class Run(NamedTuple):
    """The settings and the tables of one run."""

    settings: dict[str, Any]
    identity: dict[str, Any]
    levels: list[str]
    """The lines of levels.csv, below its header."""
    header: str
    probes: dict[str, pd.DataFrame]


def read_run(folder: Path, state: str, *, curves: bool = True) -> Run:
    """Read the records of a run in this state. Raises LotteryError or ValueError if they are
    missing or damaged. `curves`: whether metrics.csv is checked as well, by far the largest."""
    status = read_whole(folder)
    check_tables(folder, status, state, () if curves else (METRICS,))
    if state != "finished" and "tables" not in status and not (folder / LEVELS).exists():
        raise ValueError(f"{state}, no level yet: {status.get('error', 'it has just started')}")
    if "identity" not in status:
        raise ValueError(f"{state} before it started: {status.get('error', 'no reason recorded')}")
    if missing := [name for name in ("groups", "arm", "rate") if name not in status]:
        raise ValueError(f"run.json has no {', '.join(missing)}; another version wrote it")
    header, *levels = (folder / LEVELS).read_text().splitlines() or [""]
    columns, *rows = csv.reader([header, *levels])
    _check_columns(LEVELS, columns, LEVEL_COLUMNS)
    _check_cells(columns, rows)
    with (folder / METRICS).open() as lines:
        _check_columns(METRICS, lines.readline().rstrip().split(","), METRIC_COLUMNS)
    identity = with_neutral_options(status["identity"])
    settings = {name: scalar(value) for name, value in identity.items()}
    settings |= _derived(folder, status | {"identity": identity}, state)
    names = [Path(name).stem for name in status.get("tables", {}) if name not in (LEVELS, METRICS)]
    probes = {name: _probe(folder, name) for name in names}
    return Run(settings, identity, levels, header, probes)


def tables_of_levels(runs: Iterable[Run]) -> Iterator[pd.DataFrame]:
    """Yield the levels of all runs, with `run` and `censored`. Runs with equal columns are parsed
    at once: one by one takes a thousand runs two seconds."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(run.header, []).append(run)
    for header, group in alike.items():
        text = "\n".join([header, *(line for run in group for line in run.levels)])
        # run.json has the columns of RUN_COLUMNS as well
        levels = read_csv(io.StringIO(text), usecols=lambda name: name not in RUN_COLUMNS)
        names = [run.settings["run"] for run in group]
        levels["run"] = np.repeat(names, [len(run.levels) for run in group])
        yield levels.assign(censored=levels["early_stop_iteration"] >= levels["final_iteration"])


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
        "setting": json.dumps({k: scalar(v) for k, v in shared_settings(identity).items()}),
    }


def check_tables(folder: Path, status: Status, state: str, but: Container[str] = ()) -> None:
    """Raise ValueError if a run's tables, `but` these, do not have the checksums in its
    run.json."""
    if state == "running":  # its tables may be newer than run.json
        return
    for name, written in status.get("tables", {}).items():
        if name not in but and checksum((folder / name).read_bytes()) != written:
            raise ValueError(f"{name} is not as it was written; run the same command again")


def read_csv(file: Path | io.StringIO, **options: Any) -> pd.DataFrame:  # noqa: ANN401 - pandas' own
    """Read a table with the floats exactly as written: the default of pandas before version 3.1
    rounds the last digit."""
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    exact = {} if version >= (3, 1) else {"float_precision": "round_trip"}
    return pd.read_csv(file, **exact, **options)


def _probe(folder: Path, name: str) -> pd.DataFrame:
    table = read_csv(folder / f"{name}.csv")
    _check_columns(f"{name}.csv", table.columns, PROBES.get(name, ("level",)))
    return table.assign(run=str(folder))


def _check_columns(table: str, found: Container[str], expected: Iterable[str]) -> None:
    """Raise ValueError if a table lacks one of these columns."""
    if missing := [name for name in expected if name not in found]:
        raise ValueError(f"{table} has no column {', '.join(missing)}")


def _check_cells(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Raise ValueError unless each row of levels.csv has a number, or nothing, in each column of
    numbers: a table that is parsed with those of other runs must not change their types."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{LEVELS} has a row with more or fewer cells than columns")
        for name, cell in zip(columns, row, strict=True):
            if name not in TEXTS and cell:
                try:
                    float(cell)
                except ValueError:
                    raise ValueError(f"{LEVELS}: {name} must be a number, got {cell}") from None


def scalar(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value that a table can hold: lists become text."""
    return json.dumps(value) if isinstance(value, list | dict) else value
