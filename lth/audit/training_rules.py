"""x"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import load
from torch import Tensor

from lth.engine.build import Inputs, build_model
from lth.experiment import nodes
from lth.experiment.nodes import Final, Fresh, Pruned, Shuffled, Training
from lth.experiment.results import (
    Evaluation,
    curve_from_csv,
    early_stop,
)
from lth.store import cleanup
from lth.store.store import Store
from lth.training import masks, selection
from lth.training.data import Data, Part
from lth.training.eager import evaluate
from lth.training.masks import Mask

TOLERANCE = 2e-3
"""Relative, of losses and accuracies: devices and backends sum in other orders."""
OF_GRADIENTS = {"lth.pruning.snip", "lth.pruning.grasp"}
ROUGHLY = 0.02
"""The share of survivors that may be others where criteria sum gradients."""


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
        if nodes.has_own_mask(node) and isinstance(node.weights, Final):
            return self.inputs.mask_of(node.weights.of)
        return self.inputs.mask(node.previous, self.training.recipe.network)

    def can_make(self, node: nodes.Node) -> bool:
        """Whether the weights that it is made from are still in the store."""
        return all(map(self.store.has_weights, nodes.needs(node)))

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
    yield from cleanup.faults_of_files(cleanup.entry(case.store.path(case.training)))


def descriptions_have_their_digests(case: Case) -> Iterator[str]:
    yield from cleanup.faults_of_description(cleanup.entry(case.store.path(case.training)))


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
    pools = selection.pools(rates, node.rule.scope)
    before, after = (selection.counts(mask, pools) for mask in (case.previous, case.mask))
    for pool, rate in pools.items():
        expected = selection.survivors(before[pool], rate, node.rule.times)
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


TRAINING_RULES = (
    files_are_whole, descriptions_have_their_digests, curves_are_complete, accuracies_are_there,
    masks_nest, counts_are_exact, masks_are_what_the_rule_selects,
    densities_are_those_of_the_mask, pruned_weights_are_zero, weights_are_finite,
    starts_are_as_described, ends_are_as_recorded, splits_are_as_described,
)  # fmt: skip
