"""Levels as a table to read in a terminal: one per experiment and rate, arms side by side."""

from collections.abc import Iterator

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from analysis.collect import in_order
from analysis.points import in_words, points

COLUMNS = {
    "early_stop_iteration": ("stop", 1.0, 0),
    "early_stop_test_accuracy": ("accuracy", 100.0, 2),
    "final_test_accuracy": ("at end", 100.0, 2),
}
"""Column of levels.csv -> its heading, the factor it is shown with, and decimals."""


def level_tables(levels: pd.DataFrame) -> Iterator[Table]:
    """For each experiment and rate, a few arms a table: density, then per arm the early-stop
    iteration and the test accuracies there and at the end; mean over the repetitions ± half of
    their range."""
    for (experiment, rate), group in levels.groupby(["experiment", "rate"], sort=False):
        arms = in_order(set(group["arm"]))
        abreast = 3 if _found(group)["n"].max() == 1 else 2  # what 80 columns hold
        for start in range(0, len(arms), abreast):
            shown = arms[start : start + abreast]
            title = f"{experiment}, {rate} pruned per level"
            yield _table(group[group["arm"].isin(shown)], shown, title)


def _table(group: pd.DataFrame, arms: list[str], title: str) -> Table:
    table = Table(
        title=title,
        caption=f"stop: early-stop iteration; accuracy: on test, there (%); {_spread(group)}",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    columns = [(arm, column) for arm in arms for column in COLUMNS]
    headings = [f"{arm.replace(' ', chr(10))}\n{COLUMNS[column][0]}" for arm, column in columns]
    for heading in ("level", "density", *headings):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for level, rows in group.groupby("level"):
        cells = (_cell(rows.loc[rows["arm"] == arm, column], column) for arm, column in columns)
        table.add_row(str(level), f"{100 * rows['density'].mean():.1f}", *cells)
    return table


def _cell(values: "pd.Series[float]", column: str) -> str:
    if values.empty:
        return "-"
    _, factor, digits = COLUMNS[column]
    mean = f"{factor * values.mean():.{digits}f}"
    half_range = factor * (values.max() - values.min()) / 2
    return mean if len(values) == 1 else f"{mean}±{half_range:.{digits}f}"


def _found(group: pd.DataFrame) -> pd.DataFrame:
    found = points(group, "early_stop_iteration")
    return found[(found["level"] > 0) | (found["level"].max() == 0)]


def _spread(group: pd.DataFrame) -> str:
    return in_words(_found(group), "mean ± half of the range")
