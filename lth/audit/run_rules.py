"""What has to be true of finished work. Each rule reads what was written, computes the rest anew,
and says what is not so.

Rules of a run read its folder and the store's records; those of a training read its stored files,
and with `data` evaluate its weights again.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load
from torch import Tensor

from lth.engine.build import Inputs
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Final, Training
from lth.experiment.results import (
    Evaluation,
    Outcome,
    Point,
    Row,
    early_stop,
    to_csv,
)
from lth.experiment.settings import Spec
from lth.runs import status as runs_status
from lth.runs.records import TIMING_COLUMNS, level_row
from lth.store import cleanup
from lth.store.files import checksum
from lth.store.store import Store


@dataclass(frozen=True)
class Run:
    """A run's folder, its settings, and the store with its trainings."""

    path: Path
    status: dict[str, Any]
    spec: Spec
    store: Store

    def inputs(self) -> Inputs:
        """What its trainings start from, on the fastest device there is."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Inputs(self.store, Path(self.spec.dataset.root), device)

    def tensors(self, level: int) -> dict[str, tuple[Any, Any, Any, Any]]:
        """Each prunable tensor of a level, as arrays: its values at the start and at the end, which
        survive, and which at the next level (None at the last). Empty without the weights."""
        training, after = self.trainings[level], self.trainings.get(level + 1)
        network = training.recipe.network
        if not self.store.has_weights(training):
            return {}
        inputs = self.inputs()
        start = inputs.weights(training.weights, network)
        end = inputs.weights(Final(training), network)
        mask = inputs.mask_of(training)
        later = inputs.mask_of(after) if after and self.store.exists(after) else {}
        return {
            name: (start[name].numpy(), end[name].numpy(), kept.numpy(),
                   later[name].numpy() if later else None)
            for name, kept in mask.items()
        }  # fmt: skip

    @cached_property
    def trainings(self) -> dict[int, Training]:
        return dict(lottery.levels(self.spec))

    @cached_property
    def levels(self) -> list[dict[str, str]]:
        file = self.path / "levels.csv"
        begun = file.exists() or self.status["state"] == "finished"
        return rows(file) if begun else []

    @cached_property
    def curves(self) -> dict[int, list[Evaluation]]:
        found: dict[int, list[Evaluation]] = {}
        for row in rows(self.path / "metrics.csv"):
            values = [float(row[name] or "nan") for name in Evaluation._fields]
            found.setdefault(int(row["level"]), []).append(Evaluation(int(values[0]), *values[1:]))
        return found


def opened(path: Path) -> Run:
    """The run in a folder. Raises LotteryError where it cannot be read, or not by this version."""
    written = runs_status.read_whole(path)
    try:
        return Run(path, written, runs_status.spec_of(written), Store(_store(path, written)))
    except (ValidationError, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise LotteryError(
            f"{path}: these are not the settings of a run of this version ({why})."
        ) from error


def _store(path: Path, status: Mapping[str, Any]) -> Path:
    """That of a run: where its settings say, seen from a folder above the run, or from here."""
    stated = Path(status["spec"]["store"])
    places = [*(above / stated for above in path.resolve().parents), stated]
    return next((place for place in places if cleanup.is_store(place)), stated)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def tables_are_as_written(run: Run) -> Iterator[str]:
    for name, written in run.status.get("tables", {}).items():
        if checksum((run.path / name).read_bytes()) != written:
            yield f"{name} was changed after the run"


def levels_are_complete(run: Run) -> Iterator[str]:
    found = [int(row["level"]) for row in run.levels]
    if run.status["state"] == "finished" and found != list(run.trainings):
        yield f"levels {found}, where {list(run.trainings)} were asked for"


def levels_are_those_described(run: Run) -> Iterator[str]:
    for row in run.levels:
        training = run.trainings.get(int(row["level"]))
        if training is None or row["training"] != training.digest:
            yield f"level {row['level']} reports training {row['training'][:12]}, not {training}"


def early_stops_are_minima(run: Run) -> Iterator[str]:
    for row in run.levels:
        curve = run.curves.get(int(row["level"]), [])
        if not curve:
            yield f"level {row['level']} has no curve"
            continue
        stop, end = early_stop(curve), curve[-1]
        expected = {
            "early_stop_iteration": stop.iteration, "early_stop_val_loss": stop.val_loss,
            "early_stop_test_accuracy": stop.test_accuracy, "final_iteration": end.iteration,
            "final_test_accuracy": end.test_accuracy,
        }  # fmt: skip
        for name, value in expected.items():
            if repr(float(row[name] or "nan")) != repr(float(value)):  # nan is nan
                yield f"level {row['level']}: {name} is {row[name]}, by its curve {value}"


def rows_are_those_stored(run: Run) -> Iterator[str]:
    for row in run.levels:
        training = run.trainings.get(int(row["level"]))
        if training is None or not run.store.exists(training):
            continue
        stored = run.store.outcome(training)
        expected = level_row(int(row["level"]), training.digest, stored, cached=True)
        for name, value in _as_text(expected).items():
            if name not in TIMING_COLUMNS and row.get(name) != value:
                yield f"level {row['level']}: {name} is {row.get(name)}, in the store {value}"
        if run.curves.get(int(row["level"])) and not _same(run, int(row["level"]), stored):
            yield f"level {row['level']}: its curve is not the stored one"


def _as_text(row: Row) -> dict[str, str]:
    return next(csv.DictReader(to_csv([row], list(row)).decode().splitlines()))


def _same(run: Run, level: int, stored: Outcome) -> bool:
    return repr(run.curves[level]) == repr(stored.curve)  # nan is nan


def controls_have_the_tickets_masks(run: Run) -> Iterator[str]:
    """As many weights in each tensor where the mask is shuffled; else the same ones."""
    ticket = replace(run.spec.rewind, survivors="rewind", pruned="zero", shuffle=False, draw=0)
    for level, own in dict(lottery.levels(replace(run.spec, rewind=ticket))).items():
        control = run.trainings[level]
        if control == own or not (run.store.exists(control) and run.store.exists(own)):
            continue
        packed, tickets = (load(run.store.read(t, "mask.safetensors")) for t in (control, own))
        counted = run.spec.rewind.shuffle
        same = _bits(packed) == _bits(tickets) if counted else _equal(packed, tickets)
        if not same:
            yield f"level {level}: the mask is not that of its ticket {own}"


def lines_are_those_stored(run: Run) -> Iterator[str]:
    """Where copies of the levels' networks were compared."""
    file = run.path / "connectivity.csv"
    recorded = rows(file) if "connectivity.csv" in run.status.get("tables", {}) else []
    for level, line in lottery.lines(run.spec):
        own = [row for row in recorded if int(row["level"]) == level]
        if own and run.store.exists(line):
            stored = [point._asdict() for point in run.store.line(line)]
            told = [{name: float(row[name] or "nan") for name in Point._fields} for row in own]
            if repr(told) != repr(stored):
                yield f"level {level}: its line is not the stored one"


def _bits(packed: dict[str, Tensor]) -> dict[str, int]:
    return {name: sum(byte.bit_count() for byte in t.tolist()) for name, t in packed.items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


RUN_RULES = (
    tables_are_as_written, levels_are_complete, levels_are_those_described,
    early_stops_are_minima, rows_are_those_stored, controls_have_the_tickets_masks,
    lines_are_those_stored,
)  # fmt: skip
