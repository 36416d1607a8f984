"""Estimate the time that runs in progress still need."""

from collections.abc import Iterable
from statistics import mean

from lth.runs.status import Status


def seconds_left(runs: Iterable[Status], unstarted: float = 0.0) -> float | None:
    """Return the estimated seconds until the running ones of these runs end; None before one of
    them has trained for a second. Trainings that several runs need count once.

    `unstarted`: the work of runs that have not started, in the unit of `left` in run.json.
    """
    running = [status for status in runs if status["state"] == "running"]
    paces = [status["pace"] for status in running if status.get("pace")]
    if not paces:
        return None
    seconds: dict[str, float] = {}
    for status in running:
        pace = status.get("pace") or mean(paces)
        for training, work in status.get("left", {}).items():
            seconds[training] = min(work / pace, seconds.get(training, work / pace))
    return float(sum(seconds.values()) + unstarted / mean(paces)) / len(running)
