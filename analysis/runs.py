"""The tables of many runs, ready for questions: `analysis.load` returns them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.paired import paired
from analysis.points import LINE, points
from analysis.reading import METRICS, read_csv, scalar
from lth.errors import LotteryError
from lth.experiment.spelling import did_you_mean, similar_settings
from lth.runs.records import METRIC_COLUMNS

CURVE_NAMES = ("experiment", "arm", "rate", "density", "final_iteration")
"""Columns that name the points of a curve, beside run and level."""


@dataclass(frozen=True)
class Runs:
    """The tables of all runs, each result once.

    `levels` has a row for each level of each run: the columns of levels.csv (`lth.runs.records`),
    `run` (its folder), `experiment` (the network, and the settings that differ between experiments
    with it), `arm`, `rate`, `model`, `network`, `preset`, every setting by its dotted name, and
    `censored`: whether the early stop is the last iteration, so that the minimum of validation loss
    may come later.

    `probes` has the table of each probe by its name: the columns of its CSV, then `run`, `arm`,
    `rate` and `experiment`.

    `identities`: run -> its settings as run.json holds them. `problems`: each run that was left
    out or is incomplete, and why.
    """

    levels: pd.DataFrame
    probes: Mapping[str, pd.DataFrame]
    identities: Mapping[str, Mapping[str, Any]]
    problems: list[str]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row for each evaluation of each training: the columns of metrics.csv, then `run`,
        `seed` and those that name a curve. It is read when it is first asked for: the curves of a
        large sweep take gigabytes, so select runs with `where` first."""
        columns = [name for name in METRIC_COLUMNS if name != "density"]  # as in CURVE_NAMES
        return _curves(self.levels, columns)

    def where(self, settings: Mapping[str, Any] | None = None, /, **more: object) -> "Runs":
        """Return the runs whose levels have these values in these columns of `levels`.

        A list stands for any of its values, None for a missing one. A setting that is a list itself
        is given as one. Settings with dots in their names are given as a mapping:
        `runs.where({"training.iterations": 5000}, arm="winning ticket", seed=[0, 1])`. Rows of
        probes stay if their level does. Raises LotteryError if there is no such column.
        """
        chosen, levels = {**(settings or {}), **more}, self.levels
        self._check(chosen)
        for name, value in chosen.items():
            levels = levels[_has(levels[name], value)]
        kept = levels[[*LINE, "level", "seed"]].drop_duplicates()
        probes = {name: of.merge(kept, on=[*kept.columns]) for name, of in self.probes.items()}
        identities = {run: self.identities[run] for run in levels["run"].unique()}
        return replace(self, levels=levels, probes=probes, identities=identities)

    def _check(self, columns: Iterable[str]) -> None:
        """Raise LotteryError if `levels` lacks one of some columns."""
        for name in columns:
            if name not in self.levels.columns:
                close = did_you_mean(similar_settings(name, self.levels.columns)) or "."
                raise LotteryError(f"no column {name} in levels{close} levels.columns lists them")

    def points(self, quantity: str, *, interval: bool = False) -> pd.DataFrame:
        """Return mean, spread and n of a column of `levels` for each line and level; see
        `analysis.points`. Raises LotteryError if there is no such column."""
        self._check([quantity])
        return points(self.levels, quantity, interval=interval)

    def paired(self) -> pd.DataFrame:
        """Return the differences within each seed: accuracy from the dense network and the winning
        ticket, early stop as a multiple of the dense network's; see `analysis.paired`."""
        return paired(self.levels)

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
        return _curves(levels, ("level", "iteration", "test_accuracy"), needed="test_accuracy")


def _curves(levels: pd.DataFrame, columns: Iterable[str], needed: str = "level") -> pd.DataFrame:
    """Return these columns of the evaluations behind some rows of `levels` which have a value of
    `needed`, with the names of their curves."""
    named = levels[["run", "level", "seed", *CURVE_NAMES]]
    parts = [
        read_csv(Path(str(run)) / METRICS, usecols=[*columns])
        .dropna(subset=[needed])
        .merge(rows, on="level")
        for run, rows in named.groupby("run", sort=False)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _has(column: "pd.Series[Any]", value: object) -> "pd.Series[bool]":
    """Return which rows of a column have a value, or one of several."""
    if value is None:
        return column.isna()
    as_text = column == scalar(value) if isinstance(value, list) else column != column
    if as_text.any():  # a setting that is a list stands in the table as text
        return as_text
    values = list(value) if isinstance(value, list | tuple | set | range) else [value]
    return column.isin(values) | (column.isna() if None in values else False)
