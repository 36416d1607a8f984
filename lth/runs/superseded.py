"""Find unfinished runs that another run completed later."""

import json
from collections.abc import Iterable
from pathlib import Path

from lth.experiment.recipe import with_neutral_options
from lth.runs.status import Status

UNFINISHED = ("failed", "interrupted", "killed")
"""States in which a run has ended without all of its levels."""


def superseded(runs: Iterable[tuple[Path, Status]]) -> set[Path]:
    """Return the folders of runs that failed, were interrupted or killed, and whose levels have all
    been reported since by a finished run with the same settings."""
    runs = list(runs)
    finished: dict[str, list[Status]] = {}
    for _, status in runs:
        if status["state"] == "finished":
            finished.setdefault(_described(status), []).append(status)
    return {
        path
        for path, status in runs
        if status["state"] in UNFINISHED
        and any(_completes(later, status) for later in finished.get(_described(status), ()))
    }


def _described(status: Status) -> str:
    """Return what a run makes, except its number of levels."""
    identity = with_neutral_options(status.get("identity", {}))
    return json.dumps([identity, status.get("spec", {}).get("probe")], sort_keys=True)


def _completes(later: Status, attempt: Status) -> bool:
    """Return whether a finished run with the same settings makes up for an attempt. One that was
    refused before it started has no settings."""
    return (
        "identity" in attempt
        and later.get("levels", 0) >= attempt.get("levels", 0)
        and later.get("finished", 0) > attempt.get("started", 0)
    )
