"""Settings of one run, with their types and ranges, and the list of those that are not identity."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass

from lth.experiment.ranges import interval
from lth.experiment.targets import STRICT, Settings, Target

TYPES = ("conv", "linear", "output", "shortcut")
"""Types of layer that can have rates of their own (`lth.models.prunable`)."""

Preprocessing = Literal["standardize", "unit", "l2", "raw"]
LastBatch = Literal["drop", "keep"]
Subset = Literal["random", "first", "easiest"]
Percent = Annotated[float, interval(0, 100)]
"""Percent of the surviving weights that one level removes, in (0, 100)."""
TypePercent = Annotated[float, interval(0, 100, "[)")] | None
"""Rate of one type of layer, in [0, 100); 0: the type is not pruned, None: the default."""
Fraction = Annotated[float, interval(0, 1)]


@dataclass(frozen=True, config=STRICT)
class Schedule(Settings):
    """Learning rate over time, as a factor of the optimiser's `lr` (`lth.experiment.schedule`).

    Durations are iterations here; a configuration may give epochs, as in `80ep`.
    """

    NEUTRAL: ClassVar = {"milestones": [], "gamma": 0.1, "warmup": 0}

    kind: Literal["constant", "multistep", "cosine"]
    milestones: Annotated[tuple[PositiveInt, ...], Field(strict=False)]  # JSON has lists
    """Iterations at which `multistep` multiplies the learning rate by `gamma`, increasing."""
    gamma: Annotated[float, interval(0, 1, "(]")]
    warmup: NonNegativeInt
    """Iterations over which the learning rate rises linearly from 0; 0: none. Milestones stay."""

    def deciding(self) -> dict[str, Any]:
        used = self.gamma if self.kind == "multistep" else self.NEUTRAL["gamma"]
        return {
            "kind": self.kind, "milestones": self.milestones, "gamma": used, "warmup": self.warmup,
        }  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class Optimizer(Target):
    """A torch optimiser, and its learning rate over time."""

    schedule: Schedule

    def content(self) -> dict[str, Any]:
        return {**super().content(), "schedule": self.schedule}


def _check_optimizer(optimizer: Optimizer) -> Optimizer:
    """Check the ranges of `lr` and `weight_decay`, which schedules and most optimisers have."""
    for name, allowed in (("lr", "a number > 0"), ("weight_decay", "a number >= 0")):
        given = optimizer.options.get(name, "nothing" if name == "lr" else 0)
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or given < 0 or (given == 0 and name == "lr"):
            raise ValueError(f"{name} must be {allowed}, got {given}")
    return optimizer


@dataclass(frozen=True, config=STRICT)
class Dataset(Settings):
    """A loader, and how its examples are split and prepared (`lth.training.data`)."""

    NEUTRAL: ClassVar = {"flip": False, "crop": 0, "test": 0, "train": None, "subset": "random"}

    loader: Target
    root: str
    """Folder that holds datasets."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels, height, and width of one input. The loader's examples must match `shape`,
    `classes`, and `examples`."""
    classes: PositiveInt
    examples: PositiveInt
    """Training examples before any are set aside; epochs are converted with this number."""
    validation: PositiveInt
    """Examples set aside from training to choose the early-stop iteration."""
    test: NonNegativeInt
    """Examples set aside for testing if the dataset has no test set of its own, otherwise 0."""
    split: Literal["stratified", "random"]
    preprocessing: Preprocessing
    flip: bool
    """Mirror each training input with probability 1/2 each time it is used."""
    crop: NonNegativeInt
    """Pixels of padding before a random crop of training inputs; 0 disables it."""
    train: PositiveInt | None = None  # missing in older runs, as is subset
    """Training examples to use; None: all that are not set aside."""
    subset: Subset = "random"
    """Which of them: a random choice, the first in the order of the dataset, or the easiest
    (`lth.training.easiness`)."""

    @property
    def training_examples(self) -> int:
        rest = self.examples - self.validation - self.test
        return rest if self.train is None else self.train

    def deciding(self) -> dict[str, Any]:
        subset = "random" if self.train is None else self.subset
        return {
            "loader": self.loader, "shape": self.shape, "classes": self.classes,
            "examples": self.examples, "validation": self.validation, "test": self.test,
            "split": self.split, "preprocessing": self.preprocessing, "flip": self.flip,
            "crop": self.crop, "train": self.train, "subset": subset,
        }  # fmt: skip


Precision = Literal["float32", "tf32", "bfloat16"]
TEST_POINTS = 50
"""Evaluations of a training, evenly spread, that include the test set: at least this many, or all
of them if there are fewer."""


@dataclass(frozen=True, config=STRICT)
class Budget(Settings):
    """Budget of every training. Training always runs to its end."""

    NEUTRAL: ClassVar = {
        "evaluate_test": "improvement", "precision": "float32", "last_batch": "drop",
    }  # fmt: skip

    iterations: PositiveInt
    batch_size: PositiveInt
    evaluate_every: PositiveInt
    """Iterations between evaluations on the validation set."""
    evaluate_test: Literal["improvement", "every"]
    """`improvement`: test where validation loss is lowest so far, and at TEST_POINTS points;
    `every`: test at every evaluation."""
    precision: Precision
    """Precision of matrix products and convolutions (`lth.training.precision`)."""
    last_batch: LastBatch = "drop"  # missing in older runs
    """An epoch may leave fewer examples than a batch has. `drop` skips them, and `keep` trains on
    them as a smaller batch. The paper drops them: VGG-19 has 703 iterations in an epoch."""

    @property
    def test_every(self) -> int:
        """Evaluations between two that always include the test set."""
        evaluations = self.iterations // self.evaluate_every
        return 1 if self.evaluate_test == "every" else max(1, evaluations // TEST_POINTS)

    def deciding(self) -> dict[str, Any]:
        return {
            "iterations": self.iterations, "batch_size": self.batch_size,
            "evaluate_every": self.evaluate_every, "evaluate_test": self.evaluate_test,
            "precision": self.precision, "last_batch": self.last_batch,
        }  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class Settling:
    """When the mask of a training has settled (You et al. 2020)."""

    every: PositiveInt
    """Iterations between two masks."""
    distance: Fraction
    """Largest fraction of entries in which the masks of a window differ."""
    window: Annotated[int, interval(2, 1000, "[]")]
    """Number of successive masks that are compared, the newest included."""


@dataclass(frozen=True, config=STRICT)
class Update(Settings):
    """How the mask of a training moves while it trains (`lth.training.moving`, `.scored`)."""

    NEUTRAL: ClassVar = {"lr": None}

    kind: Literal["set", "rigl", "gradual", "edge_popup", "supermask"]
    every: PositiveInt = 100
    """Iterations between two updates of the mask (SET, RigL, gradual pruning)."""
    fraction: Fraction = 0.3
    """Share of each tensor's survivors that the first update replaces (SET, RigL); it falls to 0
    like a cosine."""
    until: Annotated[float, interval(0, 1, "(]")] = 0.75
    """Share of the training after which the mask stays."""
    lr: PositiveFloat | None = None
    """Learning rate of scores; None: that of the optimiser (edge-popup, supermasks)."""
    ticket: bool = False
    """Report the ticket: a training under the last mask. Otherwise the training that found it."""

    @property
    def learns_scores(self) -> bool:
        """Whether the weights stay and their scores are trained."""
        return self.kind in ("edge_popup", "supermask")

    def iterations(self, total: int) -> range:
        """Return the iterations of a training of `total` before whose step the mask moves."""
        if self.learns_scores:
            return range(0)
        return range(self.every, min(int(self.until * total), total - 1) + 1, self.every)

    def deciding(self) -> dict[str, Any]:
        if self.learns_scores:
            return {"kind": self.kind, "lr": self.lr}
        replaces = {"fraction": self.fraction} if self.kind in ("set", "rigl") else {}
        return {"kind": self.kind, "every": self.every, "until": self.until, **replaces}


@dataclass(frozen=True, config=STRICT)
class Pruning:
    """Which weights each level removes, and how many."""

    criterion: Target
    """Score function: a built-in of `lth.pruning`, or the dotted path of user code."""
    at: Literal["end", "init", "early"]
    """Score the weights at the end of a training, the initial weights, or the weights at the first
    iteration at which the mask has settled (You et al. 2020)."""
    mode: Literal["iterative", "one_shot"]
    """Prune the level before, or the dense network in one go."""
    scope: Literal["layerwise", "global", "er", "erk"]
    """Weights that compete: those of each tensor, or of all pruned tensors. `er` and `erk` give
    each tensor a density of its own (`lth.training.selection.erdos_renyi`)."""
    rounds: PositiveInt
    """Rounds of scoring in which one level is pruned, on a geometric path (SynFlow)."""
    levels: NonNegativeInt
    rate: Percent
    rates: Annotated[tuple[Percent, ...], Field(min_length=1)] | None
    """A rate for each level; replaces `rate` and `levels`."""
    final_density: Fraction | None
    """Density of the last level, of the types of layers without a rate of their own; `rate` follows
    from it and `levels`."""
    conv_rate: TypePercent
    """Default: `rate`."""
    linear_rate: TypePercent
    """Default: `rate`."""
    output_rate: TypePercent
    """Default: half of `rate`, as in the paper; `rate` if the scope is global or `final_density`
    is given."""
    shortcut_rate: TypePercent
    """Default: 0, as in the paper."""
    settled: Settling | None = None  # missing in older runs
    """With at=early: when a mask has settled."""
    update: Update | None = None  # nor this
    """How masks move while a network trains; None: they stay."""
    granularity: Literal["weight", "filter", "neuron", "unit"] = "weight"  # nor this
    """The parts that are pruned: weights, filters of convolutions, neurons of hidden linear layers,
    or filters and neurons (`lth.training.units`)."""


@dataclass(frozen=True, config=STRICT)
class Rewind:
    """Weights from which each level starts (`lth.experiment.lottery`)."""

    kind: Literal["init", "late", "lr", "finetune", "continue"]
    iteration: NonNegativeInt
    """Iteration at which `late`, `lr`, and `finetune` start."""
    survivors: Literal["rewind", "reinit", "reinit_sign", "constant_sign"]
    """Values of surviving weights: rewound ones, or those of a control under the same masks."""
    pruned: Literal["zero", "frozen"]
    """Values of pruned weights: 0, or the value at which they would start."""
    shuffle: bool
    """Control: shuffle the entries of each level's mask within each tensor."""
    draw: NonNegativeInt
    """Number of the re-initialisation or shuffle, for several per ticket."""
    budget: Literal["level", "lineage"] = "level"  # missing in older runs
    """Iterations of what is reported: those of a level, or of all trainings that lead to it."""


@dataclass(frozen=True, config=STRICT)
class Source:
    """The recipe under which tickets are found, if it is not the run's own (Morcos et al. 2019)."""

    dataset: Dataset
    optimizer: Annotated[Optimizer, AfterValidator(_check_optimizer)]
    training: Budget
    weights: Literal["own", "source"]
    """Weights at the iteration of late rewinding: those of the run's own dense network, or those of
    the network under this recipe."""


@dataclass(frozen=True, config=STRICT)
class Spec:
    """One run: one point of a sweep."""

    seed: NonNegativeInt
    split_seed: NonNegativeInt
    model: Target
    dataset: Dataset
    training: Budget
    optimizer: Annotated[Optimizer, AfterValidator(_check_optimizer)]
    pruning: Pruning
    rewind: Rewind
    probe: Target | None
    """Measurement beside the levels (`lth.probes`)."""
    device: Literal["auto", "cpu", "cuda"]
    threads: PositiveInt
    backend: Literal["auto", "eager"]
    """Fastest implementation of a step, or autograd alone (`lth.training.networks`)."""
    store: Annotated[str, Field(min_length=1)]
    checkpoint_seconds: PositiveFloat
    tracker: Target | None
    """Optional external tracker (`lth.trackers`)."""
    smoke: bool
    """Shrink the run to seconds on synthetic data (`lth.experiment.smoke`)."""
    source: Source | None = None  # missing in older runs
    """Recipe under which tickets are found; None: the run's own."""
    remake_weights: bool = False
    """Train again what the run reports if its weights were dropped from the store. The default is
    for a run.json that is older than this setting."""


NOT_IDENTITY = {
    "dataset.root": "the location of the data, not its content",
    "source.dataset.root": "the location of the data, not its content",
    "pruning.levels": "the length of a run; a training depends only on the levels before it",
    "device": "changes results only up to rounding; recorded in provenance.json",
    "threads": "changes results only up to rounding; recorded in provenance.json",
    "backend": "changes results only up to rounding, of training.precision; recorded in "
    "provenance.json",
    "store": "the location of results",
    "tracker": "copies results elsewhere",
    "probe": "changes no training; measurements have digests of their own",
    "checkpoint_seconds": "the work that a killed process loses, not its result",
    "smoke": "is already applied to the settings that it shrinks",
    "remake_weights": "makes the same weights again",
}
"""Settings that are in no digest of a training, each with the reason."""
