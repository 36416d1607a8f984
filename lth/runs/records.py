"""Rows of a run's CSVs under declared headers: the contract with `analysis`. No torch.

    levels.csv    one row per level; after the declared columns, those that name the run, then
                  density/<tensor> for each prunable tensor; `collapsed`: number of tensors with no
                  weight left
    metrics.csv   one row per evaluation
    <probe>.csv   the rows that the run's probe measured, after level and density (`lth.probes`)

Accuracies and densities are fractions in [0, 1], losses mean cross-entropies in nats, iterations
optimiser steps; an evaluation at iteration i is made before step i.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lth.experiment.results import Evaluation, Outcome, Row, density, early_stop
from lth.store.files import checksum

LEVEL_COLUMNS = (
    "level",
    "density",
    "weights_remaining",
    "early_stop_iteration",
    "early_stop_val_loss",
    "early_stop_val_accuracy",
    "early_stop_test_accuracy",
    "early_stop_train_accuracy",
    "final_iteration",
    "final_val_accuracy",
    "final_test_accuracy",
    "final_train_accuracy",
    "collapsed",
    "seconds",
    "cached",
    "training",
)
RUN_COLUMNS = ("seed", "arm", "rate")
"""Columns of levels.csv with values of run.json, the same in each row. Older runs have none."""
METRIC_COLUMNS = ("level", "density", *Evaluation._fields)
PROBE_COLUMNS = ("level", "density")
"""First columns of every probe's table."""
TIMING_COLUMNS = ("seconds", "cached")
"""Columns that may differ between two runs of the same experiment; all others are equal."""


def names_of(status: Mapping[str, Any]) -> Row:
    """Return the cells of RUN_COLUMNS, from the content of run.json."""
    seed = status.get("identity", {}).get("seed")
    return dict(zip(RUN_COLUMNS, (seed, status.get("arm"), status.get("rate")), strict=True))


def level_row(
    level: int, digest: str, outcome: Outcome, *, cached: bool, names: Mapping[str, Any]
) -> Row:
    """Return the row of a level in levels.csv. `cached`: it was in the store already. `names`: the
    cells of RUN_COLUMNS."""
    stop, final = early_stop(outcome.curve), outcome.curve[-1]
    values = (
        level,
        density(outcome.weights),
        sum(kept for kept, _ in outcome.weights.values()),
        stop.iteration,
        stop.val_loss,
        stop.val_accuracy,
        stop.test_accuracy,
        outcome.early_stop_train_accuracy,
        final.iteration,
        final.val_accuracy,
        final.test_accuracy,
        outcome.final_train_accuracy,
        sum(kept == 0 for kept, _ in outcome.weights.values()),
        round(outcome.seconds, 3),
        cached,
        digest,
    )
    layers = {f"density/{name}": kept / total for name, (kept, total) in outcome.weights.items()}
    return {**dict(zip(LEVEL_COLUMNS, values, strict=True)), **names, **layers}


def metric_rows(level: int, outcome: Outcome) -> list[Row]:
    """Return the rows of a level in metrics.csv."""
    place = {"level": level, "density": density(outcome.weights)}
    return [place | evaluation._asdict() for evaluation in outcome.curve]


def probe_rows(level: int, density: float, measured: Sequence[Row]) -> list[Row]:
    """Return the rows of a level in a probe's table."""
    return [{"level": level, "density": density, **row} for row in measured]


def sealed(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of run.json with its checksum, by which damage and edits are detected."""
    rest = {name: value for name, value in status.items() if name != "checksum"}
    content: dict[str, Any] = json.loads(json.dumps(rest))  # as it will be read
    return content | {"checksum": checksum(json.dumps(content, sort_keys=True).encode())}


def is_whole(status: Mapping[str, Any]) -> bool:
    """Return whether the content of run.json is as it was written. A run.json without a checksum
    was written by hand, and counts as whole."""
    return "checksum" not in status or sealed(status)["checksum"] == status["checksum"]
