"""Selections of runs that a figure needs: an empty one is an error that says what is missing."""

from collections.abc import Iterable, Set

import pandas as pd

from lth.errors import LotteryError


class Lacking(LotteryError):
    """The runs lack what a figure shows."""


def needed(levels: pd.DataFrame, column: str, values: Set[str]) -> pd.DataFrame:
    """Return the rows with one of these values. Raises Lacking if there are none."""
    rows = levels[levels[column].isin(values)]
    there = ", ".join(sorted(levels[column].astype(str).unique()))
    return some(rows, f"runs with the {column} {_any(values)}, and there are {there}")


def with_all_arms(levels: pd.DataFrame, arms: Set[str]) -> pd.DataFrame:
    """Return the rows of the experiments that have all these arms. Raises Lacking if there are
    none."""
    there = levels.groupby("experiment")["arm"].agg(set)
    whole = there[there.map(set(arms).issubset)].index
    found = ", ".join(f"{name} ({', '.join(sorted(own))})" for name, own in there.items())
    return some(
        levels[levels["experiment"].isin(whole)],
        f"an experiment with all of the arms {' and '.join(sorted(arms))}, and there are {found}",
    )


def some(rows: pd.DataFrame, need: str) -> pd.DataFrame:
    """Return these rows. Raises Lacking, which says what is needed, if there are none."""
    if rows.empty:
        raise Lacking(f"it needs {need}")
    return rows


def _any(values: Iterable[str]) -> str:
    *others, last = sorted(values)
    return f"{', '.join(others)} or {last}" if others else last
