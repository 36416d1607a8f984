"""Decide which nodes have to be made, and which of them can be made now. No torch, no files."""

from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter

from lth.experiment.node import Stored

Test = Callable[[Stored], bool]


def missing(requested: Iterable[Stored], exists: Test, is_made: Test | None = None) -> list[Stored]:
    """Return everything that has to be made so that all of `requested` exist, parents first.

    `is_made`: whether a parent still has its weights, which may have been dropped from the
    store; by default every node that exists has them.
    """
    return list(_graph(requested, exists, is_made or exists).static_order())


def ready(requested: Iterable[Stored], exists: Test, is_made: Test) -> tuple[Stored, ...]:
    """Return the missing nodes whose parents all exist, in the order of the requests."""
    graph = _graph(requested, exists, is_made)
    graph.prepare()
    return graph.get_ready()


def _graph(requested: Iterable[Stored], exists: Test, is_made: Test) -> "TopologicalSorter[Stored]":
    graph = TopologicalSorter[Stored]()
    seen, stack = set[Stored](), [node for node in requested if not exists(node)][::-1]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            unmade = sorted(
                (parent for parent in node.parents() if not is_made(parent)),
                key=lambda parent: parent.digest,
            )
            graph.add(node, *unmade)
            stack += reversed(unmade)
    return graph
