"""Nodes that have to be made, and nodes that can be made now, against an oracle."""

import random
from dataclasses import dataclass

import pytest

from lth.engine.scheduler import missing, ready
from lth.experiment.node import Stored


@dataclass(frozen=True, eq=False, repr=False)
class Numbered(Stored):
    """A node that names its parents."""

    tag = "numbered"
    number: int
    of: frozenset["Numbered"] = frozenset()

    def content(self) -> dict[str, int]:
        return {"number": self.number}

    def parents(self) -> set[Stored]:
        return set(self.of)


@dataclass(frozen=True)
class Case:
    """A random graph of up to 9 nodes, some of them stored, some of these without weights."""

    nodes: list[Numbered]
    requested: list[Numbered]
    stored: set[Stored]
    with_weights: set[Stored]

    def must_be_made(self) -> set[Numbered]:
        """Find by repetition: what is requested and not stored, and parents without weights."""
        needed = {node for node in self.requested if node not in self.stored}
        while True:
            parents = {p for node in needed for p in node.of if p not in self.with_weights}
            if parents <= needed:
                return needed
            needed |= parents

    def first_request(self, node: Numbered) -> int:
        """Return the index of the first request that needs a node."""
        for index, request in enumerate(self.requested):
            alone = Case(self.nodes, [request], self.stored, self.with_weights)
            if node in alone.must_be_made():
                return index
        raise AssertionError("nothing needs it")


def case(seed: int) -> Case:
    draw = random.Random(seed)
    nodes: list[Numbered] = []
    for number in range(draw.randint(1, 9)):
        parents = draw.sample(nodes, min(len(nodes), draw.choice([0, 1, 1, 2, 3])))
        nodes.append(Numbered(number, frozenset(parents)))
    requested = draw.choices(nodes, k=draw.randint(1, 5))  # also twice
    stored = {node for node in nodes if draw.random() < 0.4}
    with_weights = {node for node in sorted(stored, key=nodes.index) if draw.random() < 0.7}
    return Case(nodes, requested, set(stored), set(with_weights))


CASES = [case(seed) for seed in range(400)]


def test_the_cases_are_of_all_sorts() -> None:
    sizes = [len(case.must_be_made()) for case in CASES]
    assert {0, 1, 2, 3, 4, 5} <= set(sizes)
    assert any(case.stored - case.with_weights for case in CASES)


def test_what_is_missing_is_listed_once_and_parents_first() -> None:
    for case in CASES:
        found = missing(case.requested, case.stored.__contains__, case.with_weights.__contains__)
        assert len(found) == len(set(found))
        assert set(found) == case.must_be_made()
        place = {node: index for index, node in enumerate(found)}
        for node in found:
            assert all(place[p] < place[node] for p in node.parents() if p in place)


def test_without_a_word_on_weights_stored_nodes_have_them() -> None:
    for case in CASES:
        plain = missing(case.requested, case.stored.__contains__)
        assert plain == missing(case.requested, case.stored.__contains__, case.stored.__contains__)


def test_ready_nodes_have_all_their_parents_and_are_in_the_order_of_the_requests() -> None:
    for case in CASES:
        found = ready(case.requested, case.stored.__contains__, case.with_weights.__contains__)
        needed = case.must_be_made()
        assert len(found) == len(set(found))
        assert set(found) == {node for node in needed if node.of <= case.with_weights}
        order = [case.first_request(node) for node in found]  # type: ignore[arg-type]
        assert order == sorted(order)


@pytest.mark.parametrize("numbers", [(2, 0, 1), (1, 2, 0)])
def test_independent_requests_are_ready_in_their_order(numbers: tuple[int, ...]) -> None:
    requested = [Numbered(number) for number in numbers]
    assert ready(requested, lambda _: False, lambda _: False) == tuple(requested)
