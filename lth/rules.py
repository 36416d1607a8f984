"""What has to be true of finished work. Each rule reads what was written, computes the rest anew,
and says what is not so.

Rules of a run read its folder and the store's records; those of a training read its stored files,
and with `data` evaluate its weights again.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load
from torch import Tensor

from lth import care, graph, lottery, masks, pruning
from lth.data import Data, Part
from lth.eager import evaluate
from lth.errors import LotteryError
from lth.files import checksum
from lth.graph import Final, Fresh, Pruned, Shuffled, Training
from lth.inputs import Inputs, build_model
from lth.masks import Mask
from lth.records import (
    TIMING_COLUMNS,
    Evaluation,
    Outcome,
    Point,
    Row,
    curve_from_csv,
    early_stop,
    level_row,
    to_csv,
)
from lth.spec import Spec
from lth.store import Store

TOLERANCE = 2e-3
"""Relative, of losses and accuracies: devices and backends sum in other orders."""
OF_GRADIENTS = {"lth.pruning.snip", "lth.pruning.grasp"}
ROUGHLY = 0.02
"""The share of survivors that may be others where criteria sum gradients."""


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
    status = care.read_status(path)
    try:
        return Run(path, status, care.spec_of(status), Store(_store(path, status)))
    except (ValidationError, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise LotteryError(
            f"{path}: these are not the settings of a run of this version ({why})."
        ) from error


def _store(path: Path, status: Mapping[str, Any]) -> Path:
    """That of a run: where its settings say, seen from a folder above the run, or from here."""
    stated = Path(status["spec"]["store"])
    places = [*(above / stated for above in path.resolve().parents), stated]
    return next((place for place in places if care.is_store(place)), stated)


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


@dataclass(frozen=True)
class Case:
    """A stored training and what its files hold; `data` is None where it is not at hand."""

    training: Training
    store: Store
    inputs: Inputs
    data: Data | None

    def file(self, name: str) -> bytes:
        return (self.store.path(self.training) / name).read_bytes()

    @cached_property
    def curve(self) -> list[Evaluation]:
        return curve_from_csv(self.file("curve.csv"))

    @cached_property
    def mask(self) -> Mask:
        return self.inputs.mask_of(self.training)

    @cached_property
    def previous(self) -> Mask | None:
        """What the mask was pruned from; None for dense and shuffled ones."""
        node = self.training.mask
        if not isinstance(node, Pruned):
            return None
        if graph.has_own_mask(node) and isinstance(node.weights, Final):
            return self.inputs.mask_of(node.weights.of)
        return self.inputs.mask(node.previous, self.training.recipe.network)

    def can_make(self, node: graph.Node) -> bool:
        """Whether the weights that it is made from are still in the store."""
        return all(map(self.store.has_weights, graph.needs(node)))

    @cached_property
    def final(self) -> dict[str, Tensor] | None:
        """None where weights were dropped from the store."""
        has_them = self.store.has_weights(self.training)
        return load(self.file("final.safetensors")) if has_them else None

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The weights that the training is described to have started from."""
        weights = self.inputs.weights(self.training.weights, self.training.recipe.network)
        frozen = self.training.pruned == "frozen"
        return weights if frozen else masks.apply(weights, self.mask)

    def measured(self, state: dict[str, Tensor], part: Part) -> tuple[float, float]:
        network = self.training.recipe.network
        model = build_model(Fresh(network, self.training.seed)).to(self.inputs.device)
        model.load_state_dict(state)
        return evaluate(model, part)


def files_are_whole(case: Case) -> Iterator[str]:
    yield from care.faults_of_files(care.entry(case.store.path(case.training)))


def descriptions_have_their_digests(case: Case) -> Iterator[str]:
    yield from care.faults_of_description(care.entry(case.store.path(case.training)))


def curves_are_complete(case: Case) -> Iterator[str]:
    budget, start = case.training.recipe.training, case.training.start
    regular = range(0, budget.iterations, budget.evaluate_every)
    expected = sorted({start, budget.iterations, *(i for i in regular if i >= start)})
    found = [point.iteration for point in case.curve]
    if found != expected:
        wrong = sorted({*found} ^ {*expected}) or "their order"
        yield f"evaluations from {start} to {budget.iterations}: wrong at {wrong}"


def accuracies_are_there(case: Case) -> Iterator[str]:
    """In [0, 1], and of the test set at the early stop and the end."""
    for point in case.curve:
        tested = [] if math.isnan(point.test_accuracy) else [point.test_accuracy]
        if not all(0 <= accuracy <= 1 for accuracy in (point.val_accuracy, *tested)):
            yield f"an accuracy at iteration {point.iteration} is not in [0, 1]"
    for point in (early_stop(case.curve), case.curve[-1]):
        if math.isnan(point.test_accuracy):
            yield f"no test accuracy at iteration {point.iteration}"


def masks_nest(case: Case) -> Iterator[str]:
    for name, before in (case.previous or {}).items():
        back = int((case.mask[name] & ~before).sum())
        if back:
            yield f"{back} weights of {name} came back"


def counts_are_exact(case: Case) -> Iterator[str]:
    node = case.training.mask
    if case.previous is None or not isinstance(node, Pruned):
        return
    layers = case.inputs.layers(case.training.recipe.network)
    rates = {name: node.rule.rates[kind] for name, (kind, _) in layers.items()}
    pools = pruning.pools(rates, node.rule.scope)
    before, after = (pruning.counts(mask, pools) for mask in (case.previous, case.mask))
    for pool, rate in pools.items():
        expected = pruning.survivors(before[pool], rate, node.rule.times)
        if after[pool] != expected:
            yield f"{', '.join(pool)}: {after[pool]} of {before[pool]} survive, not {expected}"


def masks_are_what_the_rule_selects(case: Case) -> Iterator[str]:
    """The very weights; of criteria that sum gradients, which no two devices do alike, almost."""
    node = case.training.mask
    if not isinstance(node, Pruned | Shuffled) or not case.can_make(node):
        return
    rough = isinstance(node, Pruned) and node.rule.criterion.path in OF_GRADIENTS
    for name, kept in case.inputs.mask(node, case.training.recipe.network).items():
        wrong = int((case.mask[name] ^ kept).sum())
        if wrong > (ROUGHLY * int(kept.sum()) if rough else 0):
            yield f"{wrong} weights of {name} are not those that {node} selects"


def densities_are_those_of_the_mask(case: Case) -> Iterator[str]:
    for name, stated in case.store.outcome(case.training).weights.items():
        counted = int(case.mask[name].sum()), case.mask[name].numel()
        if stated != counted:
            yield f"{name}: {stated} is recorded, the mask has {counted}"


def pruned_weights_are_zero(case: Case) -> Iterator[str]:
    """Or, where they are frozen, what they were at the start."""
    frozen = case.training.pruned == "frozen"
    if frozen and not case.can_make(case.training.weights):
        return
    start = case.start if frozen else {}
    for name, kept in case.mask.items() if case.final else ():
        gone = (case.final or {})[name][~kept]
        moved = int((gone != (start[name][~kept] if start else 0)).sum())
        if moved:
            yield f"{moved} pruned weights of {name} are not what they should have stayed"


def weights_are_finite(case: Case) -> Iterator[str]:
    for name, tensor in (case.final or {}).items():
        if not tensor.isfinite().all():
            yield f"{name} has weights that are not finite"


def starts_are_as_described(case: Case) -> Iterator[str]:
    """The weights that were rewound, drawn or carried on, under the mask, give the first point."""
    can_start = case.can_make(case.training.weights)
    if case.data is not None and can_start and case.curve[0].iteration == case.training.start:
        found = case.measured(case.start, case.data.validation)
        yield from _differences(case, "validation", found, case.curve[0][3:5])


def ends_are_as_recorded(case: Case) -> Iterator[str]:
    """The stored weights give the last point."""
    if case.data is not None and case.final is not None:
        end = case.curve[-1]
        validated = case.measured(case.final, case.data.validation)
        yield from _differences(case, "validation", validated, end[3:5])
        yield from _differences(case, "test", case.measured(case.final, case.data.test), end[5:7])


def _differences(
    case: Case, name: str, found: tuple[float, float], recorded: tuple[float, ...]
) -> Iterator[str]:
    exact = case.training.recipe.training.precision == "highest"
    near = TOLERANCE if exact else 10 * TOLERANCE
    for what, ours, theirs in zip(("loss", "accuracy"), found, recorded, strict=True):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        if not both_nan and not math.isclose(ours, theirs, rel_tol=near, abs_tol=near / 10):
            yield f"these weights have a {name} {what} of {ours:.6g}, recorded is {theirs:.6g}"


def splits_are_as_described(case: Case) -> Iterator[str]:
    """Disjoint, as large as they should be, and those that the training saw: the statistics that
    it recorded of its training part are those of ours."""
    if case.data is None:
        return
    dataset, indices = case.training.recipe.dataset, case.data.indices
    together = torch.cat(list(indices.values()))
    if len(together.unique()) != len(together):
        yield "an example is in two parts"
    sizes = {name: len(part) for name, part in indices.items()}
    expected = {"validation": dataset.validation, "train": dataset.training_examples}
    if any(sizes[name] != size for name, size in expected.items()):
        yield f"the parts have {sizes} examples, where {expected} are described"
    recorded = json.loads(case.file("provenance.json"))
    if [recorded["input_mean"], recorded["input_std"]] != [case.data.mean, case.data.std]:
        yield "it was trained on other examples: mean and deviation of its inputs are others"


RUN_RULES = (
    tables_are_as_written, levels_are_complete, levels_are_those_described,
    early_stops_are_minima, rows_are_those_stored, controls_have_the_tickets_masks,
    lines_are_those_stored,
)  # fmt: skip
TRAINING_RULES = (
    files_are_whole, descriptions_have_their_digests, curves_are_complete, accuracies_are_there,
    masks_nest, counts_are_exact, masks_are_what_the_rule_selects,
    densities_are_those_of_the_mask, pruned_weights_are_zero, weights_are_finite,
    starts_are_as_described, ends_are_as_recorded, splits_are_as_described,
)  # fmt: skip
