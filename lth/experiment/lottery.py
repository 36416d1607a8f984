"""Which trainings make a run: the experiment of the paper, as a description.

Section 2 of the paper: (1) initialise a network at random; (2) train it; (3) prune a share of what
survives, the weights that ended smallest; (4) reset the rest to their initial values: the winning
ticket. Again from (2), level after level. Its controls have the same mask and other weights.
"""

from collections.abc import Iterator
from dataclasses import replace

from lth.experiment.nodes import (
    Constant,
    Dense,
    Final,
    Fresh,
    Line,
    Mask,
    Pruned,
    Shuffled,
    Signed,
    Snapshot,
    Stored,
    Training,
    Weights,
)
from lth.experiment.schedule import held_at_the_end
from lth.experiment.settings import Rule, Spec, recipe, rules


def levels(spec: Spec) -> Iterator[tuple[int, Training]]:
    """(level, training) of each level from 0, the dense network.

    Level 0 is the same for every arm: there is nothing yet to rewind or to re-initialise.
    """
    how = recipe(spec)
    dense = trained = Training(how, spec.seed, Fresh(how.network, spec.seed), Dense())
    yield 0, dense
    for level, rule in enumerate(rules(spec.pruning), start=1):
        mask = pruned(spec, dense, trained, rule)
        ticket = rewound(spec, dense, trained, mask)
        if spec.pruning.mode == "iterative":
            going_on = spec.rewind.kind == "continue"  # appendix B: reset is only what is reported
            trained = replace(ticket, weights=Final(trained)) if going_on else ticket
        yield level, arm(spec, ticket, level)


def pruned(spec: Spec, dense: Training, trained: Training, rule: Rule) -> Mask:
    """What survives of `trained`, judged by the weights it ended with or by the initial ones."""
    scored: Weights = Final(trained) if spec.pruning.at == "end" else dense.weights
    return Pruned(scored, trained.mask, rule, dense.recipe, dense.weights, spec.seed)


def rewound(spec: Spec, dense: Training, trained: Training, mask: Mask) -> Training:
    """The ticket: the survivors back where `spec.rewind` says.

    To their initial values (the paper; `continue` too, appendix B); to those of iteration k, with
    the schedule and the order of batches going on from there (Frankle et al. 2020); or left as they
    ended, with the learning rate of iteration k on, or that of the end (Renda et al. 2020).
    """
    ticket = replace(dense, mask=mask)
    start = spec.rewind.iteration
    match spec.rewind.kind:
        case "late" if start:
            return replace(ticket, weights=Snapshot(dense, start), start=start)
        case "lr":
            return replace(ticket, weights=Final(trained), start=start)
        case "finetune":
            held = held_at_the_end(dense.recipe.optimizer, dense.recipe.training.iterations)
            slow = replace(dense.recipe, optimizer=held)
            return replace(ticket, recipe=slow, weights=Final(trained), start=start)
    return ticket


def arm(spec: Spec, ticket: Training, level: int) -> Training:
    """What is reported at a level: the ticket itself, or a control with as many survivors.

    Fresh values from the same distribution (section 3), those with the ticket's signs, or one
    constant a tensor with the ticket's signs, pruned weights frozen where they are (Zhou et al.
    2019); or the mask shuffled within each tensor (Frankle et al. 2021). New weights train the
    whole budget.
    """
    ticket = replace(ticket, pruned=spec.rewind.pruned)
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
    return replace(ticket, recipe=recipe(spec), weights=weights, start=0)


def lines(spec: Spec) -> Iterator[tuple[int, Line]]:
    """(level, line) of each level from 0: between two copies of its network that part at iteration
    k of its training, where they are given different orders of batches (Frankle et al. 2020)."""
    if spec.probe.kind == "connectivity":
        for level, training in levels(spec):
            one, other = (branch(training, spec.probe.iteration, order) for order in (0, 1))
            yield level, Line(one, other, spec.probe.points)


def branch(training: Training, iteration: int, order: int) -> Training:
    """A copy that goes on from that iteration, with a fresh optimiser, in an order of its own."""
    if iteration > training.start:
        training = replace(training, weights=Snapshot(training, iteration), start=iteration)
    return replace(training, order=order)


def wanted(spec: Spec) -> list[Stored]:
    """Everything that a run reports."""
    trainings, between = ((node for _, node in of_run) for of_run in (levels(spec), lines(spec)))
    return [*trainings, *between]
