"""Levels as a table to read in a terminal: one per experiment and rate, arms side by side."""

from collections.abc import Iterator

import pandas as pd
from rich.table import Table
from rich.text import Text

COLUMNS = {
    "early_stop_iteration": ("early stop at", 1.0, 0),
    "early_stop_test_accuracy": ("accuracy there, %", 100.0, 2),
    "final_test_accuracy": ("at the end, %", 100.0, 2),
}
"""Column of levels.csv -> its heading, the factor it is shown with, and decimals."""


def level_tables(levels: pd.DataFrame) -> Iterator[Table]:
    """For each experiment and rate: density, then per arm the early-stop iteration and the test
    accuracies; mean over the repetitions ± half of their range."""
    for (_, network, rate), group in levels.groupby(["setting", "network", "rate"], sort=False):
        table = Table(
            title=f"{network}, {rate} pruned per level",
            caption=_caption(group),
            title_justify="left",
            caption_justify="left",
            header_style="bold",
        )
        arms = list(group["arm"].drop_duplicates())
        for heading in (
            "level",
            "density, %",
            *(_heading(arm, c) for arm in arms for c in COLUMNS),
        ):
            table.add_column(heading, justify="right", no_wrap=not heading.count("\n"))
        for level, rows in group.groupby("level"):
            cells = (_cell(rows[rows["arm"] == arm][c], c) for arm in arms for c in COLUMNS)
            table.add_row(str(level), f"{100 * rows['density'].mean():.1f}", *cells)
        yield table


def _heading(arm: str, column: str) -> str:
    return f"{arm}\n{COLUMNS[column][0]}"


def _cell(values: pd.Series, column: str) -> str:
    if values.empty:
        return "-"
    _, factor, digits = COLUMNS[column]
    mean = f"{factor * values.mean():,.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ±{factor * (values.max() - values.min()) / 2:,.{digits}f}"


def _caption(group: pd.DataFrame) -> Text:
    counts = group.groupby(["arm", "level"]).size()
    few, many = counts.min(), counts.max()
    spread = "" if many == 1 else ": mean ± half of the range from minimum to maximum"
    return Text(f"n = {many}{spread}" if few == many else f"n = {few} to {many}{spread}")
