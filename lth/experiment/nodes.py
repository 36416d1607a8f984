"""The nodes of an experiment: weights, masks, trainings and measurements, and their descriptions.

Nothing here imports torch or touches a file.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lth.experiment.node import Mask, Node, Stored, Weights
from lth.experiment.recipe import Network, Recipe, Rule
from lth.experiment.results import Outcome, Read, Row, numbers, read_outcome, rows_from_csv
from lth.experiment.settings import Update
from lth.experiment.targets import without_neutral


@dataclass(frozen=True, eq=False, repr=False)
class Fresh(Weights):
    """Weights that the network's own initialiser draws, from the stream `stream` of `seed`."""

    tag = "fresh"
    network: Network
    seed: int
    stream: str = "init"

    def content(self) -> dict[str, Any]:
        return {"network": self.network, "seed": self.seed, "stream": self.stream}


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Mask):
    """Every weight survives."""

    tag = "dense"

    def content(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, eq=False, repr=False)
class Training(Stored):
    """One full run of the optimiser: the unit of work, of storage and of identity."""

    tag = "training"
    recipe: Recipe
    seed: int
    weights: Weights
    mask: Mask
    start: int = 0
    """Iteration at which the schedule and the order of batches start."""
    data_order: int = 0
    """Number of the stream for batches, augmentation and dropout. The copies of a network that a
    probe compares differ in it alone."""
    pruned: str = "zero"
    """Pruned weights are `zero` throughout, or `frozen` at their value in `weights`."""
    update: Update | None = None
    """How the mask moves, from `mask`; None: it stays."""
    target: Rule | None = None
    """The rule that gives the number of survivors at the end, where it is not that of `mask`."""

    @property
    def level(self) -> int:
        """Number of times the network has been pruned at the end."""
        return self.mask.level + (self.target.times if self.target else 0)

    @property
    def updates(self) -> range:
        """Iterations before whose step the mask moves."""
        return self.update.iterations(self.recipe.training.iterations) if self.update else range(0)

    @property
    def evaluated_from(self) -> int:
        """First iteration that is evaluated: the first with the final number of survivors."""
        if self.update and self.update.kind == "gradual":
            return self.updates[-1] + 1
        return self.start

    def content(self) -> dict[str, Any]:
        neutral = {"start": 0, "data_order": 0, "pruned": "zero", "update": None, "target": None}
        return without_neutral(
            {
                "recipe": self.recipe, "seed": self.seed, "weights": self.weights,
                "mask": self.mask, "start": self.start, "data_order": self.data_order,
                "pruned": self.pruned, "update": self.update, "target": self.target,
            },
            neutral,
        )  # fmt: skip

    def parents(self) -> set[Stored]:
        return self.weights.needs() | self.mask.needs()

    def results(self, read: Read) -> Outcome:
        return read_outcome(read)


@dataclass(frozen=True, eq=False, repr=False)
class Final(Weights):
    """Weights at the end of a training."""

    tag = "final"
    of: Training

    def content(self) -> dict[str, Any]:
        return {"of": self.of}


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot(Stored, Weights):
    """Parameters and buffers of a training before its step `iteration`, without the optimiser's
    state. A snapshot has a folder of its own, so
    that one can be added after its training was published."""

    tag = "snapshot"
    of: Training
    iteration: int

    def content(self) -> dict[str, Any]:
        return {"of": self.of, "iteration": self.iteration}

    def parents(self) -> set[Stored]:
        """Return the training, and what it was made from: a snapshot that is added later repeats
        it."""
        return {self.of} | self.of.parents()

    def results(self, read: Read) -> None:
        """Return None: a snapshot has weights alone."""


@dataclass(frozen=True, eq=False, repr=False)
class Signed(Weights):
    """Weights `sizes`, with the signs of `signs` in every prunable tensor."""

    tag = "signed"
    sizes: Weights
    signs: Weights

    def content(self) -> dict[str, Any]:
        return {"sizes": self.sizes, "signs": self.signs}


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Weights):
    """Weights `of`, with each prunable tensor filled with its standard deviation around 0."""

    tag = "constant"
    of: Weights

    def content(self) -> dict[str, Any]:
        return {"of": self.of}


@dataclass(frozen=True, eq=False, repr=False)
class Pruned(Mask):
    """Survivors of `previous`, except those with the lowest scores, which `rule` removes.

    Criteria score `weights`. They may use the data of `recipe` and the weights `initial` of the
    dense network at iteration 0. `seed` and the level name the stream of criteria that draw.
    """

    tag = "pruned"
    weights: Weights
    previous: Mask
    rule: Rule
    recipe: Recipe
    initial: Weights
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", self.previous.level + self.rule.times)

    def content(self) -> dict[str, Any]:
        return {
            "weights": self.weights, "previous": self.previous, "rule": self.rule,
            "recipe": self.recipe, "initial": self.initial, "seed": self.seed,
        }  # fmt: skip

    def has_own_mask(self) -> bool:
        """Return whether this prunes the mask of the training whose final weights it scores."""
        return isinstance(self.weights, Final) and self.weights.of.mask == self.previous

    def needs(self) -> set[Stored]:
        """Return the stored nodes that are read. A ticket's mask is built on its parent's, which is
        stored beside the parent's weights: no earlier mask is needed."""
        if self.has_own_mask():
            return self.weights.needs() | self.initial.needs()
        return super().needs()


@dataclass(frozen=True, eq=False, repr=False)
class Settled(Weights):
    """Weights of the first of `masks` that differs from each of the `window` - 1 before it in less
    than a fraction `distance` of its entries; of the last mask if there is none."""

    tag = "settled"
    masks: tuple[Pruned, ...]
    distance: float
    window: int

    def content(self) -> dict[str, Any]:
        return {"masks": self.masks, "distance": self.distance, "window": self.window}


@dataclass(frozen=True, eq=False, repr=False)
class Ended(Mask):
    """The last mask of a training whose mask moves."""

    tag = "ended"
    of: Training

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", self.of.level)

    def content(self) -> dict[str, Any]:
        return {"of": self.of}


@dataclass(frozen=True, eq=False, repr=False)
class Shuffled(Mask):
    """Entries of `mask` in random order within each tensor, drawn from a stream of `seed`."""

    tag = "shuffled"
    mask: Mask
    seed: int
    stream: str

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", self.mask.level)

    def content(self) -> dict[str, Any]:
        return {"mask": self.mask, "seed": self.seed, "stream": self.stream}


@dataclass(frozen=True, eq=False, repr=False)
class Measurement(Stored):
    """Rows measured on trained networks; each probe of `lth.probes` has a subclass of its own.

    A subclass sets `tag`, `table` and `columns`. It defines `plan` (the measurements of a run),
    `content` (everything that decides one measurement) and `compute` (its rows).
    """

    keeps_weights = False
    table: ClassVar[str]
    """Name of the run's CSV, without `.csv`."""
    columns: ClassVar[tuple[str, ...]]
    """Columns of the rows, all of them numbers."""
    plan: ClassVar[Callable[..., Iterator[tuple[int, "Measurement"]]]]
    """Class method: given level -> training and the options of its YAML, yield (level, node)."""
    code: str | None = field(default=None, kw_only=True)
    """Fingerprint of a user's probe; None for built-ins."""

    def identity(self) -> dict[str, Any]:
        return super().identity() | ({"code": self.code} if self.code else {})

    def parents(self) -> set[Stored]:
        return set[Stored]().union(*(child.needs() for child in self.children()))

    def compute(self, build: Any) -> Iterable[Row]:  # noqa: ANN401 - lth.engine.build.Builder
        """Yield the rows, given a Builder of networks, weights, data. Import torch only here."""
        raise NotImplementedError

    def results(self, read: Read) -> list[Row]:
        rows = map(numbers, rows_from_csv(read("rows.csv")))
        return [dict(zip(self.columns, row, strict=True)) for row in rows]


def describe(node: Node) -> dict[str, dict[str, Any]]:
    """Return, by digest, the canonical form of `node` and of everything it is made of, down to the
    first trainings: the content of node.json, from which the digests can be computed again."""
    found, stack = {}, [node]
    while stack:
        current = stack.pop()
        if current.digest not in found:
            found[current.digest] = current.identity()
            stack += [child for child in current.children() if not isinstance(child, Training)]
    return found


def with_ancestors(requested: Iterable[Stored]) -> set[Stored]:
    """Return `requested` and every stored node that must exist before one of them can be made."""
    found, stack = set[Stored](), list(requested)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.parents()
    return found
