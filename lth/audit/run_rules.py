"""Rules about runs: what must hold of a finished run's folder, given its settings and the store.

Each rule yields a message for every violation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load
from torch import Tensor

from lth.engine.build import Builder
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.node import Stored
from lth.experiment.nodes import Final, Measurement, Training
from lth.experiment.results import (
    Evaluation,
    Outcome,
    Row,
    early_stop,
    numbers,
    rows_from_csv,
    to_csv,
)
from lth.experiment.settings import Spec
from lth.runs import status
from lth.runs.records import TIMING_COLUMNS, level_row, names_of
from lth.store import cleanup
from lth.store.files import checksum
from lth.store.store import Store


def fastest_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Run:
    """A run's folder, the content of its run.json, its settings, and its store."""

    path: Path
    status: dict[str, Any]
    spec: Spec
    store: Store

    def builder(self) -> Builder:
        """Return a Builder for the run's trainings, on the fastest device available."""
        return Builder(self.store, Path(self.spec.dataset.root), fastest_device())

    def tensors(self, level: int) -> dict[str, tuple[Any, Any, Any, Any]]:
        """Return, for each prunable tensor of a level, arrays of its values at the start and at the
        end, of its mask, and of the mask of the next level (None at the last). Empty if its weights
        are not stored, or those from which it starts."""
        training, after = self.trainings[level], self.trainings.get(level + 1)
        network = training.recipe.network
        if not all(map(self.store.has_weights, (training, *training.weights.needs()))):
            return {}
        build = self.builder()
        start = build.weights(training.weights, network)
        end = build.weights(Final(training), network)
        mask = build.stored_mask(training)
        later = build.stored_mask(after) if after and self.store.exists(after) else {}
        return {
            name: (start[name].numpy(), end[name].numpy(), kept.numpy(),
                   later[name].numpy() if later else None)
            for name, kept in mask.items()
        }  # fmt: skip

    @cached_property
    def nodes(self) -> list[tuple[int, Stored]]:
        """Everything that the run reports, with its level."""
        return list(lottery.nodes(self.spec))

    @cached_property
    def trainings(self) -> dict[int, Training]:
        return {level: node for level, node in self.nodes if isinstance(node, Training)}

    @cached_property
    def measurements(self) -> list[tuple[int, Measurement]]:
        return [(level, node) for level, node in self.nodes if isinstance(node, Measurement)]

    @cached_property
    def levels(self) -> list[dict[str, str]]:
        """Rows of levels.csv; none if no level of an unfinished run is recorded yet."""
        expected = (self.path / "levels.csv").exists() or self.status["state"] == "finished"
        return self.table("levels.csv") if expected else []

    @cached_property
    def curves(self) -> dict[int, list[Evaluation]]:
        """Curve of each level, from metrics.csv."""
        found: dict[int, list[Evaluation]] = {}
        for row in self.table("metrics.csv"):
            iteration, *values = numbers({name: row[name] for name in Evaluation._fields})
            found.setdefault(int(row["level"]), []).append(Evaluation(int(iteration), *values))
        return found

    def table(self, name: str) -> list[dict[str, str]]:
        return rows_from_csv((self.path / name).read_bytes())


def open_run(path: Path) -> Run:
    """Return the run in a folder. Raises LotteryError if it cannot be read by this version."""
    written = status.read_whole(path)
    try:
        run = Run(path, written, status.spec_of(written), Store(_find_store(path, written)))
        assert run.nodes  # raises LotteryError if they cannot be described
        return run
    except (ValidationError, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise LotteryError(
            f"{path}: its settings are not those of a run of this version ({why})"
        ) from error


def _find_store(path: Path, written: Mapping[str, Any]) -> Path:
    """Return the store that a run names, relative to a folder above the run or to this one."""
    stated = Path(written["spec"]["store"])
    places = [*(above / stated for above in path.resolve().parents), stated]
    return next((place for place in places if cleanup.is_store(place)), stated)


def tables_are_as_written(run: Run) -> Iterator[str]:
    for name, written in run.status.get("tables", {}).items():
        if checksum((run.path / name).read_bytes()) != written:
            yield f"{name} was changed after the run"


def levels_are_complete(run: Run) -> Iterator[str]:
    found = [int(row["level"]) for row in run.levels]
    if run.status["state"] == "finished" and found != list(run.trainings):
        yield f"levels.csv has levels {found}, expected {list(run.trainings)}"


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
            if repr(float(row[name] or "nan")) != repr(float(value)):  # nan equals nan here
                yield f"level {row['level']}: {name} is {row[name]}, but {value} in its curve"


def rows_are_those_stored(run: Run) -> Iterator[str]:
    for row in run.levels:
        level = int(row["level"])
        training = run.trainings.get(level)
        if training is None or not run.store.exists(training):
            continue
        stored = run.store.results(training)
        expected = level_row(level, training.digest, stored, cached=True, names={})
        for name, value in _as_text(expected).items():
            if name not in TIMING_COLUMNS and row.get(name) != value:
                yield f"level {level}: {name} is {row.get(name)}, the store has {value}"
        if run.curves.get(level) and not _same_curve(run, level, stored):
            yield f"level {level}: its curve is not the stored one"


def rows_name_their_run(run: Run) -> Iterator[str]:
    expected = _as_text(names_of(run.status))
    for row in run.levels:
        for name, value in expected.items():
            if row.get(name, value) != value:  # runs of older versions have no such columns
                yield f"level {row['level']}: {name} is {row[name]}, but {value} in run.json"


def _as_text(row: Row) -> dict[str, str]:
    (text,) = rows_from_csv(to_csv([row], list(row)))
    return text


def _same_curve(run: Run, level: int, stored: Outcome) -> bool:
    return repr(run.curves[level]) == repr(stored.curve)  # nan equals nan here


def controls_have_the_tickets_masks(run: Run) -> Iterator[str]:
    """A control has the mask of its ticket or, if shuffled, as many weights in each tensor. Where
    masks move, each training finds its own."""
    ticket = replace(run.spec.rewind, survivors="rewind", pruned="zero", shuffle=False, draw=0)
    for level, own in lottery.levels(replace(run.spec, rewind=ticket)):
        control = run.trainings[level]
        if control == own or control.update:
            continue
        if not (run.store.exists(control) and run.store.exists(own)):
            continue
        packed, tickets = (load(run.store.read(t, "mask.safetensors")) for t in (control, own))
        shuffled = run.spec.rewind.shuffle
        same = _bits(packed) == _bits(tickets) if shuffled else _equal(packed, tickets)
        if not same:
            yield f"level {level}: its mask is not that of its ticket {own}"


def measurements_are_those_stored(run: Run) -> Iterator[str]:
    tables = run.status.get("tables", {})
    for level, node in run.measurements:
        name = f"{node.table}.csv"
        recorded = (
            [row for row in run.table(name) if int(row["level"]) == level] if name in tables else []
        )
        if recorded and run.store.exists(node):
            found = [
                dict(zip(node.columns, numbers(_columns(row, node)), strict=True))
                for row in recorded
            ]
            if repr(found) != repr(run.store.results(node)):
                yield f"level {level}: its rows in {name} are not the stored ones"


def _columns(row: Mapping[str, str], node: Measurement) -> dict[str, str]:
    return {name: row[name] for name in node.columns}


def _bits(packed: dict[str, Tensor]) -> dict[str, int]:
    return {name: sum(byte.bit_count() for byte in t.tolist()) for name, t in packed.items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


RUN_RULES = (
    tables_are_as_written, levels_are_complete, levels_are_those_described,
    early_stops_are_minima, rows_are_those_stored, rows_name_their_run,
    controls_have_the_tickets_masks,
    measurements_are_those_stored,
)  # fmt: skip
