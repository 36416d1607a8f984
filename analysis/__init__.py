"""Figures, claims and reports from stored runs; `load` returns their tables for questions of your
own.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.runs import Runs

__all__ = ["load"]


def load(*folders: str | Path) -> "Runs":
    """Read the runs at or below some folders into pandas tables.

    A run that cannot be used is left out and named in `problems`; so is one that has not finished,
    with the levels that it has. Needs no torch.

    Args:
        folders: folders of runs or sweeps, relative to the working directory; by default
            `multirun`. Published runs are read only if their folder, `multirun/reference`, or one
            below it is given.

    Raises:
        LotteryError: a folder does not exist, or has no runs.

    Examples:
        >>> runs = analysis.load("multirun")
        >>> runs.where(arm="winning ticket").points("early_stop_test_accuracy", interval=True)
    """
    from analysis.collect import collect  # imports pandas, which a quick command does not need
    from lth.runs.places import check_runs

    paths = [Path(folder) for folder in folders or ("multirun",)]
    check_runs(paths)
    return collect(paths)
