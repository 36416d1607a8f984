"""The rows of a run's CSVs, under declared headers: the contract with `analysis`. No torch.

    levels.csv    one row per level; after the declared columns, density/<tensor> for each;
                  `collapsed`: how many of these have no weight left
    metrics.csv   one row per evaluation
    connectivity.csv  one row per place on a level's line (probe=connectivity); `iteration`: where
                  the two ends parted; `share`: how far from the one to the other

Accuracies and densities are fractions in [0, 1], losses mean cross-entropy in nats, iterations
optimiser steps; an evaluation at iteration i is made before step i.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lth.files import checksum


class Evaluation(NamedTuple):
    """One point of a curve. `train_loss`: mean over the batches since the last evaluation, nan
    before the first step. Test loss and accuracy: nan where they were not measured; where the
    validation loss is lowest so far they were."""

    iteration: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float


class Point(NamedTuple):
    """A network on the line between two: at 0 the one, at 1 the other."""

    share: float
    test_loss: float
    test_accuracy: float


class Outcome(NamedTuple):
    """What is recorded of a training: its curve, the training accuracies, and of each prunable
    tensor how many weights survive and how many there are."""

    curve: list[Evaluation]
    early_stop_train_accuracy: float
    final_train_accuracy: float
    weights: dict[str, tuple[int, int]]
    seconds: float


Row = dict[str, Any]
"""Of a table, by column."""


def outcome(read: Callable[[str], bytes]) -> Outcome:
    """That of a stored training, from the content of its files by name."""
    summary = json.loads(read("summary.json"))
    return Outcome(
        curve_from_csv(read("curve.csv")),
        summary["early_stop_train_accuracy"],
        summary["final_train_accuracy"],
        {name: (kept, total) for name, (kept, total) in summary["weights"].items()},
        json.loads(read("provenance.json"))["seconds"],
    )


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
METRIC_COLUMNS = ("level", "density", *Evaluation._fields)
LINE_COLUMNS = ("level", "density", "iteration", *Point._fields)
TIMING_COLUMNS = ("seconds", "cached")
"""Columns that differ between two runs of the same experiment; all others do not."""


def early_stop(curve: Sequence[Evaluation]) -> Evaluation:
    """The first evaluation of lowest validation loss; nan counts as the highest.

    Recorded, never acted on: test accuracy is *read* here and has no say in the choice.
    """
    return min(curve, key=lambda e: math.inf if math.isnan(e.val_loss) else e.val_loss)


def density(weights: Mapping[str, tuple[int, int]]) -> float:
    """Surviving weights / all weights, counted."""
    return sum(kept for kept, _ in weights.values()) / sum(total for _, total in weights.values())


def level_row(level: int, digest: str, outcome: Outcome, *, cached: bool) -> Row:
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
    return dict(zip(LEVEL_COLUMNS, values, strict=True)) | layers


def metric_rows(level: int, outcome: Outcome) -> list[Row]:
    at = {"level": level, "density": density(outcome.weights)}
    return [{**at, **evaluation._asdict()} for evaluation in outcome.curve]


def line_rows(level: int, density: float, iteration: int, line: Iterable[Point]) -> list[Row]:
    at = {"level": level, "density": density, "iteration": iteration}
    return [{**at, **point._asdict()} for point in line]


def line_from_csv(content: bytes) -> list[Point]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [Point(*(float(cell or "nan") for cell in row.values())) for row in rows]


def sealed(status: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json holds, with the checksum of all of it: a damaged or edited one shows."""
    rest = {name: value for name, value in status.items() if name != "checksum"}
    content: dict[str, Any] = json.loads(json.dumps(rest))  # as it will be read
    return content | {"checksum": checksum(json.dumps(content, sort_keys=True).encode())}


def is_whole(status: Mapping[str, Any]) -> bool:
    """Whether it is as it was sealed; one without a seal was written by hand."""
    return "checksum" not in status or sealed(status)["checksum"] == status["checksum"]


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Floats in full, so that they read back as they were; nan as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value


def curve_to_csv(curve: Iterable[Evaluation]) -> bytes:
    return to_csv((e._asdict() for e in curve), Evaluation._fields)


def curve_from_csv(content: bytes) -> list[Evaluation]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    numbers = ([float(cell or "nan") for cell in row.values()] for row in rows)
    return [Evaluation(int(iteration), *others) for iteration, *others in numbers]
