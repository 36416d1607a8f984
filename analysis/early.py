"""Early stops at the first evaluation that comes near the lowest validation loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.reading import METRICS, read_csv
from analysis.runs import Runs
from lth.errors import LotteryError

READ = ("iteration", "val_loss", "val_accuracy", "test_accuracy")
"""Columns of metrics.csv that have an `early_stop_` column in levels.csv."""


def near_minimum(runs: Runs, tolerance: float) -> Runs:
    """Return the runs with other early stops: the first evaluation whose validation loss is at most
    `tolerance` (a fraction) above the lowest.

    The curve of validation losses is flat and noisy at its minimum, so that the lowest loss is
    found early or late by chance. The first loss near it varies less between seeds. As no earlier
    loss is as low, the test accuracy was measured there. The training accuracy was not: it is nan.
    Reads the metrics.csv of each run. Raises LotteryError if `tolerance` is not in [0, 1).
    """
    if not 0 <= tolerance < 1:
        raise LotteryError(
            f"--tolerance must be in [0, 1), a fraction, got {tolerance:g}; 0.05 is 5 %"
        )
    if not tolerance or runs.levels.empty:
        return runs
    stops = pd.concat([_stops(run, tolerance) for run in runs.levels["run"].unique()])
    levels = runs.levels.drop(columns=stops.columns.difference(["run", "level"]), errors="ignore")
    title = f" (early stop: loss within {100 * tolerance:g} % of the lowest)"
    levels = levels.assign(
        early_stop_train_accuracy=np.nan, experiment=levels["experiment"] + title
    )
    probes = {
        name: table.assign(experiment=table["experiment"] + title)
        for name, table in runs.probes.items()
    }
    return replace(runs, levels=levels.merge(stops, on=["run", "level"]), probes=probes)


def _stops(run: str, tolerance: float) -> pd.DataFrame:
    """Return the early stop of each level of a run."""
    curves = read_csv(Path(run) / METRICS, usecols=["level", *READ])
    lowest = curves.groupby("level")["val_loss"].transform("min")
    near = curves[curves["val_loss"] <= lowest * (1 + tolerance)]
    first = near.groupby("level", as_index=False).first()
    return first.rename(columns={name: f"early_stop_{name}" for name in READ}).assign(run=run)
