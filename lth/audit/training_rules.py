"""Rules about trainings: what must hold of a stored training, given its description.

Each rule compares stored files with what it computes from the description, and yields a message
for every violation. If the Case has `data`, weights are evaluated again.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import load
from torch import Tensor

from lth import models
from lth.engine.build import Builder, NoData
from lth.experiment.node import Node
from lth.experiment.nodes import Ended, Final, Pruned, Shuffled, Training
from lth.experiment.results import (
    Evaluation,
    curve_from_csv,
    early_stop,
)
from lth.store import cleanup
from lth.store.store import Store
from lth.training import masks, selection, units
from lth.training.data import Data, Part
from lth.training.eager import evaluate
from lth.training.loop import not_finite
from lth.training.masks import Mask

TOLERANCE = 2e-3
"""Relative tolerance of losses and accuracies: devices and backends sum in different orders."""
OF_GRADIENTS = {"snip", "grasp"}
"""Criteria that sum gradients, in an order that depends on the device."""
ROUGHLY = 0.02
"""Fraction of a tensor's survivors that may differ for such criteria."""


@dataclass(frozen=True)
class Case:
    """A stored training and the content of its files; `data` is None if it is not available."""

    training: Training
    store: Store
    build: Builder
    data: Data | None

    def file(self, name: str) -> bytes:
        return (self.store.path(self.training) / name).read_bytes()

    @cached_property
    def curve(self) -> list[Evaluation]:
        return curve_from_csv(self.file("curve.csv"))

    @cached_property
    def mask(self) -> Mask:
        """The stored mask: that at the end."""
        return self.build.stored_mask(self.training)

    @cached_property
    def first_mask(self) -> Mask:
        """The mask at the start: the stored one, unless it has moved."""
        training = self.training
        moved = training.update is not None
        return self.build.mask(training.mask, training.recipe.network) if moved else self.mask

    @cached_property
    def previous(self) -> Mask | None:
        """The mask before the last pruning; None for dense and shuffled masks, and for those that
        move."""
        node = None if self.training.update else self.training.mask
        if not isinstance(node, Pruned):
            return None
        if isinstance(node.weights, Final) and node.has_own_mask():
            return self.build.stored_mask(node.weights.of)
        return self.build.mask(node.previous, self.training.recipe.network)

    def can_make(self, node: Node) -> bool:
        """Return whether the weights that `node` is built from are still stored."""
        return all(map(self.store.has_weights, node.needs()))

    @cached_property
    def final(self) -> dict[str, Tensor] | None:
        """Final weights; None if they were dropped from the store."""
        has_them = self.store.has_weights(self.training)
        return load(self.file("final.safetensors")) if has_them else None

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """Starting weights, built from the description."""
        weights = self.build.weights(self.training.weights, self.training.recipe.network)
        frozen = self.training.pruned == "frozen"
        return weights if frozen else masks.apply(weights, self.first_mask)

    def measured(self, state: dict[str, Tensor], part: Part) -> tuple[float, float]:
        model = self.build.model(self.training)
        models.load(model, state)
        return evaluate(model, part, self.training.recipe.training.precision)


def files_are_whole(case: Case) -> Iterator[str]:
    yield from cleanup.faults_of_files(cleanup.entry(case.store.path(case.training)))


def descriptions_have_their_digests(case: Case) -> Iterator[str]:
    yield from cleanup.faults_of_description(cleanup.entry(case.store.path(case.training)))


def curves_are_complete(case: Case) -> Iterator[str]:
    budget, start = case.training.recipe.training, case.training.evaluated_from
    regular = range(0, budget.iterations, budget.evaluate_every)
    expected = sorted({start, budget.iterations, *(i for i in regular if i >= start)})
    found = [point.iteration for point in case.curve]
    if found != expected:
        wrong = sorted({*found} ^ {*expected}) or "their order"
        yield f"evaluations from {start} to {budget.iterations}: wrong at {wrong}"


def accuracies_are_there(case: Case) -> Iterator[str]:
    """Accuracies are in [0, 1], and the test set was evaluated at the early stop and the end."""
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
            yield f"{back} pruned weights of {name} came back"


def counts_are_exact(case: Case) -> Iterator[str]:
    node = case.training.mask
    if case.previous is None or not isinstance(node, Pruned):
        return
    if node.rule.granularity != "weight":
        yield from _counts_of_units(case, node, case.previous)
        return
    expected = case.build.survivors(node.rule, case.previous, case.training.recipe.network)
    before = selection.counts(case.previous, expected)
    for pool, found in selection.counts(case.mask, expected).items():
        if found != expected[pool]:
            yield f"{', '.join(pool)}: {found} of {before[pool]} survive, expected {expected[pool]}"


def _counts_of_units(case: Case, node: Pruned, previous: Mask) -> Iterator[str]:
    rates = case.build.rates(node.rule, case.training.recipe.network)
    for link in units.links({name: kept.shape for name, kept in case.mask.items()}):
        before, after = (int(units.alive(mask, link).sum()) for mask in (previous, case.mask))
        expected = selection.survivors(before, rates[link.into], node.rule.times)
        if after != expected:
            yield f"{link.into}: {after} of {before} units survive, expected {expected}"


def counts_of_moving_masks_are_exact(case: Case) -> Iterator[str]:
    """SET and RigL keep the number of survivors of each tensor; gradual pruning and edge-popup end
    with those of their target. Supermasks find their own number."""
    update = case.training.update
    if update is None or not case.can_make(case.training.mask):
        return
    replaces = update.kind in ("set", "rigl")
    expected = case.build.counts(case.training)
    if replaces:
        expected = selection.counts(case.first_mask, [(name,) for name in case.mask])
    for pool, found in selection.counts(case.mask, expected).items():
        if found != expected[pool]:
            yield f"{', '.join(pool)}: {found} survive, expected {expected[pool]}"


def masks_are_what_the_rule_selects(case: Case) -> Iterator[str]:
    """The mask has exactly the weights that the rule selects, or nearly for OF_GRADIENTS; a ticket
    of a mask that has moved has the last one. Without data, criteria that read examples are not
    checked."""
    node = case.training.mask
    if case.training.update or not isinstance(node, Pruned | Shuffled | Ended):
        return
    if not (isinstance(node, Ended) and case.store.exists(node.of)) and not case.can_make(node):
        return
    rough = isinstance(node, Pruned) and node.rule.criterion.name in OF_GRADIENTS
    try:
        selected = case.build.mask(node, case.training.recipe.network)
    except NoData:
        return
    for name, kept in selected.items():
        wrong = int((case.mask[name] ^ kept).sum())
        if wrong > (ROUGHLY * int(kept.sum()) if rough else 0):
            yield f"{wrong} weights of {name} are not those that {node} selects"


def densities_are_those_of_the_mask(case: Case) -> Iterator[str]:
    for name, stated in case.store.results(case.training).weights.items():
        counted = int(case.mask[name].sum()), case.mask[name].numel()
        if stated != counted:
            yield f"{name}: {stated} weights are recorded, the mask has {counted}"


def pruned_weights_are_zero(case: Case) -> Iterator[str]:
    """Pruned weights are 0, or at their starting values if they are frozen."""
    frozen = case.training.pruned == "frozen"
    if frozen and not case.can_make(case.training.weights):
        return
    start = case.start if frozen else {}
    for name, kept in case.mask.items() if case.final else ():
        gone = (case.final or {})[name][~kept]
        moved = int((gone != (start[name][~kept] if start else 0)).sum())
        if moved:
            yield f"{moved} pruned weights of {name} are not 0, or not as they were frozen"


def weights_are_finite(case: Case) -> Iterator[str]:
    for name, tensor in (case.final or {}).items():
        if not tensor.isfinite().all():
            yield f"{name} has weights that are not finite"


def frozen_parameters_do_not_move(case: Case) -> Iterator[str]:
    """Parameters that do not require gradients are at the end what they were at the start."""
    if case.final is None or not case.can_make(case.training.weights):
        return
    for name, parameter in case.build.model(case.training).named_parameters():
        moved = not parameter.requires_grad and int((case.final[name] != case.start[name]).sum())
        if moved:
            yield f"{moved} entries of {name} moved, which requires no gradient"


def losses_are_finite(case: Case) -> Iterator[str]:
    for number, point in enumerate(case.curve):
        for name, loss in not_finite(point, first=number == 0).items():
            yield f"the {name} loss at iteration {point.iteration} is {loss}"


def starts_are_as_described(case: Case) -> Iterator[str]:
    """The starting weights under the mask give the first point of the curve."""
    can_start = case.can_make(case.training.weights) and not _learns_scores(case)
    if case.data is not None and can_start and case.curve[0].iteration == case.training.start:
        found = case.measured(case.start, case.data.validation)
        yield from _differences(case, "validation", found, case.curve[0][3:5])


def _learns_scores(case: Case) -> bool:
    return case.training.update is not None and case.training.update.learns_scores


def learnt_masks_keep_weights(case: Case) -> Iterator[str]:
    """Where only scores are trained, survivors are at the end what they were at the start."""
    if not _learns_scores(case) or case.final is None or not case.can_make(case.training.weights):
        return
    start = case.build.weights(case.training.weights, case.training.recipe.network)
    for name, value in masks.apply(start, case.mask).items():
        moved = int((case.final[name] != value).sum())
        if name in dict(case.build.model(case.training).named_parameters()) and moved:
            yield f"{moved} entries of {name} moved, of which only scores are trained"


def ends_are_as_recorded(case: Case) -> Iterator[str]:
    """The stored weights give the last point of the curve."""
    if case.data is not None and case.final is not None:
        end = case.curve[-1]
        validated = case.measured(case.final, case.data.validation)
        yield from _differences(case, "validation", validated, end[3:5])
        yield from _differences(case, "test", case.measured(case.final, case.data.test), end[5:7])


def tolerance(case: Case) -> float:
    """Return the relative tolerance of losses and accuracies."""
    exact = case.training.recipe.training.precision == "float32"
    return TOLERANCE if exact else 10 * TOLERANCE


def _differences(
    case: Case, name: str, found: tuple[float, float], recorded: tuple[float, ...]
) -> Iterator[str]:
    near = tolerance(case)
    for what, ours, theirs in zip(("loss", "accuracy"), found, recorded, strict=True):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        if not both_nan and not math.isclose(ours, theirs, rel_tol=near, abs_tol=near / 10):
            yield f"{name} {what} is recorded as {theirs:.6g}, the weights give {ours:.6g}"


def splits_are_as_described(case: Case) -> Iterator[str]:
    """Parts are disjoint and of the stated sizes, and the recorded statistics of the training part
    are those of the part that is loaded now."""
    if case.data is None:
        return
    dataset, indices = case.training.recipe.dataset, case.data.indices
    together = torch.cat(list(indices.values()))
    if len(together.unique()) != len(together):
        yield "an example is in two parts"
    sizes = {name: len(part) for name, part in indices.items()}
    expected = {"validation": dataset.validation, "train": dataset.training_examples}
    if any(sizes[name] != size for name, size in expected.items()):
        yield f"the parts have {sizes} examples, expected {expected}"
    recorded = json.loads(case.file("provenance.json"))
    if [recorded["input_mean"], recorded["input_std"]] != [case.data.mean, case.data.std]:
        yield "it was trained on other examples: mean or standard deviation of the inputs differ"


TRAINING_RULES = (
    files_are_whole, descriptions_have_their_digests, curves_are_complete, accuracies_are_there,
    masks_nest, counts_are_exact, counts_of_moving_masks_are_exact, learnt_masks_keep_weights,
    masks_are_what_the_rule_selects,
    densities_are_those_of_the_mask, pruned_weights_are_zero, weights_are_finite,
    frozen_parameters_do_not_move, losses_are_finite,
    starts_are_as_described, ends_are_as_recorded, splits_are_as_described,
)  # fmt: skip
