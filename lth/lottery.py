"""Which trainings make a run: the experiment of the paper, as a description.

Section 2 of the paper: (1) initialise a network at random; (2) train it; (3) prune a share of what
survives, the weights that ended smallest; (4) reset the rest to their initial values: the winning
ticket. Again from (2), level after level. Section 3's control gives the same mask fresh weights.
"""

from collections.abc import Iterator

from lth.graph import Dense, Final, Fresh, Mask, Pruned, Training, Weights
from lth.spec import Spec, recipe, rule


def levels(spec: Spec) -> Iterator[tuple[int, Training]]:
    """(level, training) of each level from 0, the dense network, to `spec.pruning.levels`.

    Level 0 is the same for every arm: there is nothing yet to re-initialise.
    """
    how = recipe(spec)
    initial = Fresh(how.network, spec.seed)
    ticket = Training(how, spec.seed, initial, Dense())
    yield 0, ticket
    for level in range(1, spec.pruning.levels + 1):
        ticket = Training(how, spec.seed, initial, pruned(spec, ticket))
        yield level, arm(spec, ticket, level)


def pruned(spec: Spec, parent: Training) -> Mask:
    """The mask of the next level: at the `end` of its parent's training, or at `init`."""
    scored: Weights = Final(parent) if spec.pruning.at == "end" else parent.weights
    return Pruned(scored, parent.mask, rule(spec.pruning), parent.weights, spec.seed)


def arm(spec: Spec, ticket: Training, level: int) -> Training:
    """What is reported at a level: the ticket itself, or a control under the ticket's own mask."""
    if spec.rewind.kind == "init":
        return ticket
    weights = Fresh(ticket.recipe.network, spec.seed, f"reinit/{level}/{spec.rewind.draw}")
    return Training(ticket.recipe, ticket.seed, weights, ticket.mask)
