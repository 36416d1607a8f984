"""Compare two runs: settings, origin, the iteration at which curves part, and results."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from analysis.reading import METRICS, ORIGIN, UNUSABLE, Run, read_csv, read_run, tables_of_levels
from lth.errors import LotteryError
from lth.runs.places import check_one_run
from lth.runs.status import read_status

MEASURED = ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
"""Columns of metrics.csv that may part."""
RESULTS = {
    "early_stop_iteration": ("early stop", 1, 0),
    "early_stop_test_accuracy": ("accuracy there, %", 100, 2),
    "final_test_accuracy": ("accuracy at the end, %", 100, 2),
}
"""Column of levels.csv -> heading, factor, decimals."""


@dataclass(frozen=True)
class Comparison:
    """The differences between two runs.

    `settings`, `origin`: rows of name, value in the one and in the other, where they differ.
    `levels`: a row for each level that both have: `level`; `parts_at`, the first iteration at which
    both evaluated and found different values (nan if there is none); `column`, what differs there,
    and its values `one` and `other`; and the columns of RESULTS of both, with the suffixes _one and
    _other.
    """

    settings: list[tuple[str, str, str]]
    origin: list[tuple[str, str, str]]
    levels: pd.DataFrame

    @property
    def contradictory(self) -> bool:
        """Whether equal settings gave different numbers."""
        return not self.settings and bool(self.levels["parts_at"].notna().any() or self._results())

    def _results(self) -> bool:
        """Whether a result of a level differs."""
        pairs = [(self.levels[f"{name}_one"], self.levels[f"{name}_other"]) for name in RESULTS]
        return any(bool(_unequal(*pair).any()) for pair in pairs)


def compare(one: str | Path, other: str | Path) -> Comparison:
    """Compare two runs, given by their folders. Raises LotteryError if one cannot be read."""
    folders = Path(one), Path(other)
    runs = [_read(folder) for folder in folders]
    settings = _differences(*(run.identity for run in runs))
    origin = _differences(*(dict(_origin(folder)) for folder in folders))
    curves = [read_csv(folder / METRICS) for folder in folders]
    levels = [pd.concat(tables_of_levels([run])) for run in runs]
    both = levels[0].merge(levels[1], on="level", suffixes=("_one", "_other"))
    parted = [_parting(*(c[c["level"] == level] for c in curves)) for level in both["level"]]
    columns = ["parts_at", "column", "one", "other"]
    found = pd.DataFrame(parted, columns=columns, index=both.index)
    shown = [f"{name}_{side}" for name in RESULTS for side in ("one", "other")]
    return Comparison(settings, origin, both[["level"]].join(found).join(both[shown]))


def _read(folder: Path) -> Run:
    check_one_run(folder, "compare")
    try:
        return read_run(folder, read_status(folder)["state"])
    except UNUSABLE as error:
        reason = str(error).removeprefix(f"{folder}: ")
        raise LotteryError(f"{folder}: {reason}") from error


def _origin(folder: Path) -> Iterator[tuple[str, object]]:
    status = read_status(folder)
    yield from ((name, status.get(name)) for name in ("state", *ORIGIN))
    yield from status.get("versions", {}).items()


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    names = dict.fromkeys((*one, *other))
    return [
        (name, _text(one, name), _text(other, name))
        for name in names
        if one.get(name) != other.get(name)
    ]


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "not set")
    return value if isinstance(value, str) else json.dumps(value)


def _parting(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, str, float, float]:
    """Return the first iteration at which two curves differ, the first column that differs there,
    and its values. Evaluations that one run lacks do not count: published curves have fewer."""
    both = one.merge(other, on="iteration", suffixes=("_one", "_other")).sort_values("iteration")
    first = (math.inf, "", math.nan, math.nan)
    for name in MEASURED:
        pairs = both[["iteration", f"{name}_one", f"{name}_other"]]
        if name.startswith("test_"):  # evaluated at some iterations only
            pairs = pairs.dropna()
        differ = pairs[_unequal(*(pairs[f"{name}_{side}"] for side in ("one", "other")))]
        if len(differ) and differ["iteration"].iloc[0] < first[0]:
            iteration, *values = differ.iloc[0]
            first = (iteration, name, *values)
    return first if first[1] else (math.nan, *first[1:])


def _unequal(one: "pd.Series[float]", other: "pd.Series[float]") -> "pd.Series[bool]":
    """Return where two columns differ; nan, of a loss that diverged, equals nan."""
    return (one != other) & ~(one.isna() & other.isna())


def command(arguments: argparse.Namespace) -> int:
    """Print what differs; return 1 if equal settings gave different numbers."""
    found = compare(*arguments.runs)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for what, rows in (("settings", found.settings), ("origin", found.origin)):
        if rows:
            console.print(_table(f"{what} that differ", ("", "first run", "second run"), rows))
        else:
            console.print(f"{what}: equal")
    if found.levels.empty:
        console.print("The runs have no level in common.")
        return 0
    heading = ("level", "curves part at", *(heading for heading, _, _ in RESULTS.values()))
    title = "levels: first run, second run, and their difference"
    console.print(_table(title, heading, _rows(found.levels)))
    console.print(_summary(found))
    return int(found.contradictory)


def _rows(levels: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for row in levels.to_dict("records"):
        parts = "nowhere" if math.isnan(row["parts_at"]) else f"{row['parts_at']:,.0f}"
        yield str(row["level"]), parts, *(_result(row, name) for name in RESULTS)


def _summary(found: Comparison) -> str:
    """Return where the curves part first, and what that means, in words."""
    parted = found.levels.dropna(subset=["parts_at"])
    if parted.empty:
        return "The curves are equal wherever both runs evaluated."
    first = parted.iloc[0]
    where = (
        f"Level {first['level']} is the first whose curves part: at iteration "
        f"{first['parts_at']:,.0f}, {first['column']} is {float(first['one'])!r} and "
        f"{float(first['other'])!r}."
    )
    if found.settings:
        return where
    return (
        f"{where}\nEqual settings gave different numbers. Equal commits and versions give equal "
        "numbers on one kind of device: python -m analysis verify checks each run."
    )


def _result(row: Mapping[Any, Any], name: str) -> str:
    """Return a result of both runs, and the second minus the first."""
    _, factor, digits = RESULTS[name]
    one, other = (factor * row[f"{name}_{side}"] for side in ("one", "other"))
    shown: Callable[[float], str] = f"{{:,.{digits}f}}".format
    if one == other:
        return shown(one)
    return f"{shown(one)}, {shown(other)} ({other - one:+,.{digits}f})"


def _table(title: str, heading: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in heading:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
