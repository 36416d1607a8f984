"""The experiment of the paper, as a description: which trainings make a run.

Section 2 of the paper: (1) initialise a network at random; (2) train it; (3) prune a share of what
survives, the weights that ended smallest; (4) reset the rest to their initial values: the winning
ticket. Each level repeats (2) to (4). Controls have the ticket's mask and other weights.
"""

import inspect
from collections.abc import Iterator
from dataclasses import replace

from lth.errors import LotteryError
from lth.experiment.node import Mask, Stored, Weights
from lth.experiment.nodes import (
    Constant,
    Dense,
    Ended,
    Final,
    Fresh,
    Measurement,
    Pruned,
    Settled,
    Shuffled,
    Signed,
    Snapshot,
    Training,
)
from lth.experiment.recipe import Recipe, Rule, longer, recipe, rules, source_recipe
from lth.experiment.schedule import constant_at_end
from lth.experiment.settings import Settling, Spec, Update
from lth.experiment.targets import load


def nodes(spec: Spec) -> Iterator[tuple[int, Stored]]:
    """Yield (level, node) of everything that a run reports: the training of each level, then what
    its probe measures on them."""
    trainings = dict(levels(spec))
    yield from trainings.items()
    yield from measurements(spec, trainings)


def requested(spec: Spec) -> dict[Stored, list[int]]:
    """Return node -> levels for everything that a run reports, in order. Levels that share a
    training are in one entry."""
    found: dict[Stored, list[int]] = {}
    for level, node in nodes(spec):
        found.setdefault(node, []).append(level)
    return found


def levels(spec: Spec) -> Iterator[tuple[int, Training]]:
    """Yield (level, training) of each level from 0, the dense network.

    Level 0 is the same for every arm: there is nothing yet to rewind or to re-initialise. Tickets
    are found under the recipe of `spec.source`, and reported under the run's own.
    """
    yield 0, untouched(recipe(spec), spec.seed)
    dense = trained = untouched(source_recipe(spec), spec.seed)
    for level, rule in enumerate(rules(spec.pruning), start=1):
        mask, ended = pruned(spec, dense, trained, rule), trained
        if spec.pruning.update:
            found = moving(spec.pruning.update, replace(dense, mask=mask), rule)
            if not spec.pruning.update.ticket:
                yield level, arm(spec, found, level)
                continue
            mask, ended = Ended(found), found
        ticket = rewound(spec, dense, ended, mask)
        if spec.pruning.mode == "iterative":
            continued = spec.rewind.kind == "continue"  # appendix B resets only what is reported
            trained = replace(ticket, weights=Final(trained)) if continued else ticket
        yield level, arm(spec, transferred(spec, ticket), level)


def untouched(recipe: Recipe, seed: int) -> Training:
    """Return the training of the dense network."""
    return Training(recipe, seed, Fresh(recipe.network, seed), Dense())


def transferred(spec: Spec, ticket: Training) -> Training:
    """Return a ticket under the run's own recipe (Morcos et al. 2019)."""
    if spec.source is None:
        return ticket
    ticket = replace(ticket, recipe=recipe(spec))
    if isinstance(ticket.weights, Snapshot) and spec.source.weights == "own":
        own = Snapshot(untouched(recipe(spec), spec.seed), ticket.weights.iteration)
        return replace(ticket, weights=own)
    return ticket


def pruned(spec: Spec, dense: Training, trained: Training, rule: Rule) -> Mask:
    """Return the survivors of `trained`, scored by its final weights, by the initial ones, or by
    those of the dense network at the iteration at which its mask has settled."""
    scored: Weights = Final(trained) if spec.pruning.at == "end" else dense.weights
    if spec.pruning.settled:
        scored = settled(dense, rule, spec.pruning.settled)
    return Pruned(scored, trained.mask, rule, dense.recipe, dense.weights, spec.seed)


def moving(update: Update, static: Training, rule: Rule) -> Training:
    """Return the training in which a mask moves. SET and RigL start from the mask of the training
    `static`, the others from all weights. All end with as many survivors as `rule` leaves, except
    for supermasks, which find their own number."""
    if update.kind in ("set", "rigl"):
        return replace(static, update=update)
    target = None if update.kind == "supermask" else rule
    return replace(static, mask=Dense(), update=update, target=target)


def settled(dense: Training, rule: Rule, when: Settling) -> Settled:
    """Return the weights of the dense network at the first iteration at which its mask has settled
    (early-bird tickets, You et al. 2020)."""
    return Settled(tuple(masks_of(dense, rule, when.every)), when.distance, when.window)


def masks_of(training: Training, rule: Rule, every: int) -> Iterator[Pruned]:
    """Yield the mask that `rule` would give at each multiple of `every` iterations of a
    training."""
    for iteration in range(every, training.recipe.training.iterations, every):
        weights = Snapshot(training, iteration)
        yield Pruned(weights, training.mask, rule, training.recipe, training.weights, training.seed)


def rewound(spec: Spec, dense: Training, trained: Training, mask: Mask) -> Training:
    """Return the ticket: the survivors with the values that `spec.rewind` gives them.

    `init` and `continue` (the paper, and its appendix B): their initial values. `late` (Frankle et
    al. 2020): the values at iteration k, where the schedule and the order of batches continue. `lr`
    and `finetune` (Renda et al. 2020): their final values, with the learning rates from iteration k
    on, or with the last one throughout.
    """
    ticket = replace(dense, mask=mask)
    start = spec.rewind.iteration
    match spec.rewind.kind:
        case "late" if start:
            return replace(ticket, weights=Snapshot(dense, start), start=start)
        case "lr":
            return replace(ticket, weights=Final(trained), start=start)
        case "finetune":
            slow = constant_at_end(dense.recipe.optimizer, dense.recipe.training.iterations)
            tuned = replace(dense.recipe, optimizer=slow)
            return replace(ticket, recipe=tuned, weights=Final(trained), start=start)
    return ticket


def arm(spec: Spec, ticket: Training, level: int) -> Training:
    """Return what is reported at a level: the ticket itself, or a control with as many survivors.

    Controls have fresh values from the same distribution (section 3); fresh values with the
    ticket's signs, one constant per tensor with the ticket's signs, or pruned weights frozen at
    their starting values (Zhou et al. 2019); or the mask shuffled within each tensor (Frankle et
    al. 2021). New weights train the whole budget, or as many iterations as all trainings that led
    to the ticket (Liu et al. 2019).
    """
    times = lineage(spec, level) if spec.rewind.budget == "lineage" else 1
    ticket = replace(ticket, recipe=longer(ticket.recipe, times), pruned=spec.rewind.pruned)
    draw = f"{level}/{spec.rewind.draw}"
    if spec.rewind.shuffle:
        ticket = replace(ticket, mask=Shuffled(ticket.mask, spec.seed, f"shuffle/{draw}"))
    fresh = Fresh(ticket.recipe.network, spec.seed, f"reinit/{draw}")
    match spec.rewind.survivors:
        case "rewind":
            return ticket
        case "reinit":
            weights: Weights = fresh
        case "reinit_sign":
            weights = Signed(fresh, ticket.weights)
        case "constant_sign":
            weights = Signed(Constant(ticket.weights), ticket.weights)
    return replace(ticket, recipe=longer(recipe(spec), times), weights=weights, start=0)


def lineage(spec: Spec, level: int) -> int:
    """Return the number of trainings that a ticket takes, its own included."""
    if spec.pruning.at == "init":
        return 2 if spec.pruning.update and spec.pruning.update.ticket else 1
    return level + 1 if spec.pruning.mode == "iterative" else 2


def measurements(spec: Spec, trainings: dict[int, Training]) -> Iterator[tuple[int, Measurement]]:
    """Yield (level, measurement) of the run's probe, if it has one. Raises LotteryError if it does
    not accept its options."""
    if spec.probe is None:
        return
    probe: type[Measurement] = load(spec.probe.name)
    try:
        inspect.signature(probe.plan).bind(trainings, **spec.probe.options)
    except TypeError as error:
        raise LotteryError(
            f"probe: {spec.probe.name} cannot be called with these options ({error}). The files in "
            "conf/probe/ list the options of the built-in probes."
        ) from error
    for level, measured in probe.plan(trainings, **spec.probe.options):
        yield level, replace(measured, code=spec.probe.code)
