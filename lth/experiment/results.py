"""Results of nodes: curves, outcomes and rows, and their CSV form. No torch, no files."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]
"""One row of a table, by column."""
Read = Callable[[str], bytes]
"""A function that returns the content of a stored node's file, by name."""


class Evaluation(NamedTuple):
    """One point of a curve, measured before step `iteration`.

    Losses are mean cross-entropies in nats, accuracies fractions in [0, 1]. `train_loss` is the
    mean over the batches since the last evaluation, nan before the first step. Test loss and
    accuracy are nan where they were not measured; they are measured wherever the validation loss
    is lowest so far.
    """

    iteration: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float


class Outcome(NamedTuple):
    """Record of a training. `weights`: for each prunable tensor, (survivors, all weights)."""

    curve: list[Evaluation]
    early_stop_train_accuracy: float
    final_train_accuracy: float
    weights: dict[str, tuple[int, int]]
    seconds: float


def read_outcome(read: Read) -> Outcome:
    """Return the outcome of a stored training."""
    summary = json.loads(read("summary.json"))
    return Outcome(
        curve_from_csv(read("curve.csv")),
        summary["early_stop_train_accuracy"],
        summary["final_train_accuracy"],
        {name: (kept, total) for name, (kept, total) in summary["weights"].items()},
        json.loads(read("provenance.json"))["seconds"],
    )


def early_stop(curve: Sequence[Evaluation]) -> Evaluation:
    """Return the first evaluation of lowest validation loss; nan counts as the highest.

    The early stop is recorded, never acted on. Test accuracy is reported there, and plays no part
    in the choice.
    """
    return min(curve, key=lambda e: math.inf if math.isnan(e.val_loss) else e.val_loss)


def density(weights: Mapping[str, tuple[int, int]]) -> float:
    """Return surviving weights / all weights, from counts."""
    return sum(kept for kept, _ in weights.values()) / sum(total for _, total in weights.values())


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return rows as CSV. Floats are written in full, so that they read back exactly; nan is an
    empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value


def rows_from_csv(content: bytes) -> list[dict[str, str]]:
    """Return the rows of a CSV; cells stay text."""
    return list(csv.DictReader(io.StringIO(content.decode())))


def numbers(row: Mapping[str, str]) -> list[float]:
    """Return the cells of a row as numbers, integers as they were written; an empty cell is nan."""
    return [_number(cell) for cell in row.values()]


def _number(cell: str) -> float:
    try:
        return int(cell)
    except ValueError:
        return float(cell or "nan")


def curve_to_csv(curve: Iterable[Evaluation]) -> bytes:
    return to_csv((evaluation._asdict() for evaluation in curve), Evaluation._fields)


def curve_from_csv(content: bytes) -> list[Evaluation]:
    cells = map(numbers, rows_from_csv(content))
    return [Evaluation(int(iteration), *others) for iteration, *others in cells]
