"""The nodes of an experiment: what is trained, from which weights, under which mask. Pure values.

A node is named by its digest: SHA-256 of its canonical form, in which its children stand by their
digests. Nodes compare, hash and print by digest, computed once: a ticket names its parent twice
(for its mask, and for that mask's predecessor), so that going through a node's content would cost
2^levels. Nothing here imports torch or touches a file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from lth.experiment.settings import NOT_IDENTITY, Network, Recipe, Rule, whole

FORMAT = 3
"""Raised whenever the same description would lead to other numbers."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Node:
    """Anything an experiment is described with; concrete nodes add their fields."""

    digest: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.identity()))

    def identity(self) -> dict[str, Any]:
        """The canonical form: everything that decides what this is, children by digest."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        plain = {name: canonical(value) for name, value in fields.items()}
        return {"node": type(self).__name__, "format": FORMAT, **plain}

    def children(self) -> Iterator["Node"]:
        values = (getattr(self, f.name) for f in dataclasses.fields(self))
        return (value for value in values if isinstance(value, Node))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.digest[:12]})"


class Weights(Node):
    """Values for every parameter and buffer of a network."""


class Mask(Node):
    """Which of the prunable weights survive."""

    level: ClassVar[int] = 0
    """How many times it has been pruned; set once, as a property would recurse to the first."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fresh(Weights):
    """Drawn by the network's own initialiser from the stream `stream` of `seed`."""

    network: Network
    seed: int
    stream: str = "init"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dense(Mask):
    """Every weight survives."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Training(Node):
    """One full run of the optimiser: the unit of work, of storage and of identity."""

    recipe: Recipe
    seed: int
    weights: Weights
    mask: Mask
    start: int = 0
    order: int = 0
    """Which order of batches, with which augmentations and dropout: copies of one network that
    differ in nothing else (`Line`)."""
    pruned: str = "zero"
    """Pruned weights are `zero` throughout, or `frozen` at the value they have in `weights`."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Final(Weights):
    """What a training ended with."""

    of: Training


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Snapshot(Weights):
    """The full state of a training before its step `iteration`. Stored under its own digest: one
    that is asked for after its training has run does not touch what was published."""

    of: Training
    iteration: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Line(Node):
    """The networks on the straight line between what two trainings ended with: so many, evenly
    spread, both ends among them."""

    one: Training
    other: Training
    points: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Signed(Weights):
    """The magnitudes of `sizes` with the signs of `signs`, in every prunable tensor; the rest as in
    `sizes`."""

    sizes: Weights
    signs: Weights


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Constant(Weights):
    """Each prunable tensor filled with the standard deviation that it has in `of`."""

    of: Weights


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pruned(Mask):
    """What `previous` keeps, less the lowest-scoring share of `weights` that `rule` removes.

    Criteria may look at the data of `recipe` and at `initial`, the weights the network started
    from. `seed` and the level name the stream of those that draw.
    """

    weights: Weights
    previous: Mask
    rule: Rule
    recipe: Recipe
    initial: Weights
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", self.previous.level + self.rule.times)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Shuffled(Mask):
    """The entries of `mask` in random order within each tensor, drawn from a stream of `seed`."""

    mask: Mask
    seed: int
    stream: str

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", self.mask.level)


def digest_of(identity: Mapping[str, Any]) -> str:
    """The name of a node with this canonical form."""
    content = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


Stored = Training | Snapshot | Line
"""The nodes that have a folder in the store."""


def canonical(value: Any, path: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """One spelling for one meaning: dataclasses as mappings without the fields of NOT_IDENTITY,
    whole floats as integers (10.0 and 10 are the same rate), nodes as digests."""
    if isinstance(value, Node):
        return value.digest
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        inside = {str(key): (f"{path}.{key}".lstrip("."), item) for key, item in value.items()}
        return {k: canonical(v, p) for k, (p, v) in inside.items() if p not in NOT_IDENTITY}
    if isinstance(value, list | tuple):
        return [canonical(item, path) for item in value]
    return whole(value)


def needs(node: Node) -> set[Stored]:
    """The stored nodes that are read to make `node` (none for what is drawn or dense).

    A ticket's mask is built on its parent's own, which lies in the store beside the parent's
    weights: nothing further back is needed.
    """
    found, stack = set[Stored](), [node]
    while stack:
        current = stack.pop()
        if isinstance(current, Final):
            found.add(current.of)
        elif isinstance(current, Snapshot):
            found.add(current)
        elif isinstance(current, Pruned) and has_own_mask(current):
            stack += [current.weights, current.initial]
        else:
            stack += current.children()
    return found


def has_own_mask(mask: Pruned) -> bool:
    """Whether `mask` prunes a training's final weights further than that training's mask did."""
    return isinstance(mask.weights, Final) and mask.weights.of.mask == mask.previous


def describe(node: Node) -> dict[str, dict[str, Any]]:
    """`node` and all it is made of down to stored nodes, by digest: what node.json holds, and
    what anybody can hash again."""
    found, stack = {}, [node]
    while stack:
        current = stack.pop()
        if current.digest not in found:
            found[current.digest] = current.identity()
            stack += [child for child in current.children() if not isinstance(child, Training)]
    return found


def parents(stored: Stored) -> set[Stored]:
    """The stored nodes that must exist before `stored` can be made."""
    if isinstance(stored, Snapshot):
        return {stored.of}
    if isinstance(stored, Line):
        return {stored.one, stored.other}
    return needs(stored.weights) | needs(stored.mask)


def missing(
    wanted: Iterable[Stored],
    exists: Callable[[Stored], bool],
    has_weights: Callable[[Stored], bool] | None = None,
) -> list[Stored]:
    """What has to be made so that all of `wanted` exist: each once, parents first. Those need their
    weights, which may have been dropped (`has_weights`; by default all that exist have them)."""
    order: dict[Stored, None] = {}
    stack = [(node, False) for node in reversed(list(wanted)) if not exists(node)]
    while stack:
        node, expanded = stack.pop()
        if node in order:
            continue
        if expanded:
            order[node] = None
        else:
            needed = [p for p in parents(node) if not (has_weights or exists)(p)]
            stack.append((node, True))
            stack += [(parent, False) for parent in sorted(needed, key=lambda p: p.digest)]
    return list(order)
