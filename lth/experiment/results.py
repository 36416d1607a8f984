"""What nodes come to: curves, outcomes, rows, and their CSV forms. No torch, no files."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


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


def early_stop(curve: Sequence[Evaluation]) -> Evaluation:
    """The first evaluation of lowest validation loss; nan counts as the highest.

    Recorded, never acted on: test accuracy is *read* here and has no say in the choice.
    """
    return min(curve, key=lambda e: math.inf if math.isnan(e.val_loss) else e.val_loss)


def density(weights: Mapping[str, tuple[int, int]]) -> float:
    """Surviving weights / all weights, counted."""
    return sum(kept for kept, _ in weights.values()) / sum(total for _, total in weights.values())


def line_from_csv(content: bytes) -> list[Point]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [Point(*(float(cell or "nan") for cell in row.values())) for row in rows]


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
