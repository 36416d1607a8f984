"""The base classes of nodes. A node is named by its digest.

A digest is the SHA-256 of a node's canonical form: its tag, FORMAT, and everything that decides
what it is, with other nodes replaced by their digests. Tags and keys are literals and never change,
so classes and fields can be renamed. Nodes compare and hash by digest: a ticket refers to its
parent twice (for its mask and for that mask's predecessor), and comparing content would cost
2^levels. Nothing here imports torch or touches a file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lth.experiment.results import Read
from lth.experiment.targets import canonical

FORMAT = 4
"""Increased whenever the same description leads to other numbers, or is stored in another form."""
RESERVED = {"node", "format", "code"}
"""Keys of a canonical form that no content() may use."""


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """An element of the description of an experiment: weights, a mask, a training, ..."""

    tag: ClassVar[str]
    """Name of the kind of node in digests; never changes."""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.identity()))

    def content(self) -> dict[str, Any]:
        """Return everything that decides what this node is, by keys that never change."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return the canonical form, whose hash is the digest."""
        form: dict[str, Any] = canonical(self.content())
        if RESERVED & form.keys():
            raise TypeError(f"content() of {type(self).__name__} must not use {sorted(RESERVED)}")
        return {"node": self.tag, "format": FORMAT, **form}

    def children(self) -> Iterator["Node"]:
        """Yield the nodes that this one is described with, also those in lists and mappings."""
        return _nodes_in(self.content())

    def needs(self) -> set["Stored"]:
        """Return the stored nodes that are read to build this one."""
        return set().union(*(child.needs() for child in self.children()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.digest[:12]})"


def _nodes_in(value: object) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _nodes_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _nodes_in(item)


def digest_of(identity: Mapping[str, Any]) -> str:
    """Return the digest of a node with this canonical form."""
    form = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.sha256(form.encode()).hexdigest()


class Weights(Node):
    """Values for every parameter and buffer of a network."""


class Mask(Node):
    """Which of the prunable weights survive."""

    level: int = 0
    """Number of times the network has been pruned. An attribute: a property would recurse."""


class Stored(Node):
    """A node with a folder in the store."""

    keeps_weights: ClassVar[bool] = True
    """Whether the folder holds weights that other nodes start from."""

    def parents(self) -> set["Stored"]:
        """Return the stored nodes that must exist before this one can be made."""
        raise NotImplementedError

    def needs(self) -> set["Stored"]:
        return {self}

    def results(self, read: Read) -> Any:  # noqa: ANN401 - each kind has its own
        """Return the results of the node, read from its stored files."""
        raise NotImplementedError
