"""What a run is: frozen values with their types and ranges, and what of them is identity."""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass

from lth.errors import LotteryError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

TYPES = ("conv", "linear", "output", "shortcut")
"""The types of layer that have rates of their own (`lth.models.prunable`)."""
Percent = Annotated[float, Field(gt=0, lt=100)]
"""Percent of the surviving weights that one level removes, in (0, 100)."""
OwnPercent = Annotated[float, Field(ge=0, lt=100)] | None
"""That of one type of layer: 0 leaves the type alone, None is the default."""


@dataclass(frozen=True, config=STRICT)
class Target:
    """Any importable callable, by its dotted path, and the keyword arguments it is to get."""

    path: str
    options: dict[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it returns
        return load(self.path)(*args, **self.options, **kwargs)


def load(path: str) -> Any:  # noqa: ANN401 - whatever lies there
    """The object at a dotted path. Raises LotteryError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LotteryError(
            f"{path}: nothing can be imported from there ({error}). Give the dotted path of a "
            "class or function, e.g. lth.models.LeNet."
        ) from error


def _to_target(value: object) -> object:
    """Hydra's form, `_target_` beside the options, to ours."""
    if isinstance(value, Mapping) and "_target_" in value:
        return {
            "path": value["_target_"],
            "options": {key: option for key, option in value.items() if key != "_target_"},
        }
    return value


def _to_criterion(value: object) -> object:
    """A criterion may be named: the functions of `lth.pruning` without their path."""
    target = _to_target({"_target_": value} if isinstance(value, str) else value)
    if isinstance(target, dict) and "." not in str(target["path"]):
        target["path"] = f"lth.pruning.{target['path']}"
    return target


def _to_optimizer(value: object) -> object:
    """`schedule` is ours, every other option the optimiser's; its ranges are seen to here."""
    target = _to_target(value)
    if not isinstance(target, dict) or "options" not in target:
        return target
    options = target["options"]
    for name, lowest in (("lr", "more than 0"), ("weight_decay", "0 or more")):
        given = options.get(name, "missing" if name == "lr" else 0)
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or given < 0 or (given == 0 and name == "lr"):
            raise ValueError(f"{name}={given}: a number is wanted, {lowest}")
    return {"schedule": options.pop("schedule", None), **target}


@dataclass(frozen=True, config=STRICT)
class Schedule:
    """The learning rate as a factor of the optimiser's `lr` (`lth.experiment.schedule`). Iterations, or epochs
    as in 80ep."""

    kind: Literal["constant", "multistep", "cosine"]
    milestones: Annotated[tuple[PositiveInt, ...], Field(strict=False)]  # may come as a list
    """Of multistep: the iterations from which on the rate is `gamma` times what it was."""
    gamma: Annotated[float, Field(gt=0, le=1)]
    warmup: NonNegativeInt
    """Iterations over which the rate rises linearly from 0, whatever the kind; 0: none. Milestones
    stay where they are."""


@dataclass(frozen=True, config=STRICT)
class Optimizer(Target):
    """An optimiser of the form of torch's, and its learning rate over time."""

    schedule: Schedule


ELEMENTWISE = {
    f"torch.optim.{name}"
    for name in ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam",
                 "RMSprop", "Rprop", "SGD")
}  # fmt: skip
"""Optimisers that treat each weight by itself, so that weights may be put together otherwise."""

AnyTarget = Annotated[Target, BeforeValidator(_to_target)]
Criterion = Annotated[Target, BeforeValidator(_to_criterion)]


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """A loader and what is made of its examples (`lth.training.data`)."""

    loader: AnyTarget
    root: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Of one input: channels, height, width; this, `classes` and `examples` are checked against
    what the loader returns."""
    classes: PositiveInt
    examples: PositiveInt
    """For training, before any are set aside: what an epoch is known from."""
    validation: PositiveInt
    """Examples set aside from training for the choice of the early-stop iteration."""
    test: NonNegativeInt
    """Examples set aside for testing where the dataset has no test set of its own; else 0."""
    split: Literal["stratified", "random"]
    preprocessing: Literal["standardize", "unit", "raw"]
    flip: bool
    """Mirror every training input, left to right, with probability 1/2 each time it is used."""
    crop: NonNegativeInt
    """Pad training inputs by so many pixels and cut a window of the old size at random; 0: not."""

    @property
    def training_examples(self) -> int:
        return self.examples - self.validation - self.test


TEST_POINTS = 50
"""At least so many evaluations of a training, spread evenly, are on the test set too."""


@dataclass(frozen=True, config=STRICT)
class Budget:
    """The budget of every training; always run to its end."""

    iterations: PositiveInt
    batch_size: PositiveInt
    evaluate_every: PositiveInt
    evaluate_test: Literal["improvement", "every"]
    """On the test set as well: where validation loss is lowest so far, and at fifty points of the
    curve; or at every evaluation."""
    precision: Literal["highest", "high", "medium"]
    """Of float32 matrix products, as `torch.set_float32_matmul_precision` has it."""

    @property
    def test_every(self) -> int:
        """How many evaluations there are from one on the test set to the next, at most."""
        evaluations = self.iterations // self.evaluate_every
        return 1 if self.evaluate_test == "every" else max(1, evaluations // TEST_POINTS)


@dataclass(frozen=True, config=STRICT)
class Pruning:
    """What goes at each level (`lth.pruning`)."""

    criterion: Criterion
    """A score function: a name in `lth.pruning`, or the dotted path of your own."""
    at: Literal["end", "init"]
    """Score the weights that a training ended with, or the initial ones."""
    mode: Literal["iterative", "one_shot"]
    """Each level prunes the level before it, or the dense network at one go."""
    scope: Literal["layerwise", "global"]
    """The rate is of each tensor, or of all that are pruned together."""
    rounds: PositiveInt
    """In how many rounds of scoring a level is pruned; SynFlow's iterations."""
    levels: NonNegativeInt
    rate: Percent
    rates: Annotated[tuple[Percent, ...], Field(min_length=1)] | None
    """A rate for each level; replaces `rate` and `levels`."""
    final_density: Annotated[float, Field(gt=0, lt=1)] | None
    """Of what is pruned, at the last level: the rate follows from it and `levels`."""
    conv_rate: OwnPercent
    """None: `rate`."""
    linear_rate: OwnPercent
    """None: `rate`."""
    output_rate: OwnPercent
    """None: half of the rate, as in the paper; all of it where the scope is global or the final
    density is given."""
    shortcut_rate: OwnPercent
    """None: 0, as in the paper."""


@dataclass(frozen=True, config=STRICT)
class Rewind:
    """Where the weights start from at each level (`lth.experiment.lottery`)."""

    kind: Literal["init", "late", "lr", "finetune", "continue"]
    iteration: NonNegativeInt
    """Where `late`, `lr` and `finetune` start: iterations, or epochs as in 2ep."""
    survivors: Literal["rewind", "reinit", "reinit_sign", "constant_sign"]
    """A control under the same masks gives other values than the rewound ones."""
    pruned: Literal["zero", "frozen"]
    """Pruned weights are 0 throughout, or stay at the value they would start from."""
    shuffle: bool
    """A control: the mask of each level with its entries shuffled within each tensor."""
    draw: NonNegativeInt
    """Which of the possible re-initialisations or shuffles."""


@dataclass(frozen=True, config=STRICT)
class Probe:
    """What else is looked at, at each level."""

    kind: Literal["none", "connectivity"]
    """Whether two copies end in one linearly connected valley (`lth.experiment.lottery.lines`)."""
    iteration: NonNegativeInt
    """Of connectivity: where the copies part; iterations, or epochs as in 2ep."""
    points: Annotated[int, Field(ge=3)]
    """Of connectivity: how many networks on the line are evaluated, both ends among them."""


@dataclass(frozen=True, config=STRICT)
class Spec:
    """One run: one point of a sweep."""

    seed: NonNegativeInt
    split_seed: NonNegativeInt
    model: AnyTarget
    dataset: Dataset
    training: Budget
    optimizer: Annotated[Optimizer, BeforeValidator(_to_optimizer)]
    pruning: Pruning
    rewind: Rewind
    probe: Probe
    device: Literal["auto", "cpu", "cuda"]
    threads: PositiveInt
    backend: Literal["auto", "eager"]
    """Steps by whatever is fastest, or by autograd alone (`lth.training.loop.backend`)."""
    store: str
    checkpoint_seconds: PositiveFloat
    tracker: AnyTarget | None
    """Who else is told of what is recorded (`lth.trackers`)."""
    smoke: bool
    """Seconds instead of hours, on noise: to try the whole path (`lth.experiment.smoke`)."""


NOT_IDENTITY = {
    "dataset.root": "where the data lies, not what it is",
    "pruning.levels": "how far a run goes; each training knows only what came before it",
    "device": "where it is computed; recorded in provenance.json",
    "threads": "how fast it is computed; recorded in provenance.json",
    "backend": "how fast it is computed; recorded in provenance.json",
    "store": "where results lie",
    "tracker": "who else is told",
    "probe.kind": "what is looked at beside the levels; lines have digests of their own",
    "probe.iteration": "see probe.kind",
    "probe.points": "see probe.kind",
    "checkpoint_seconds": "how much a killed process loses",
    "smoke": "the settings that it shrinks are what counts",
}
"""Fields of a Spec that are in no digest, each with its reason."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A model for inputs of one shape: what initial weights are drawn for."""

    model: Target
    shape: tuple[int, int, int]
    classes: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, whatever its weights and mask: part of a training's identity."""

    model: Target
    dataset: Dataset
    optimizer: Optimizer
    training: Budget
    split_seed: int

    @property
    def network(self) -> Network:
        return Network(self.model, self.dataset.shape, self.dataset.classes)


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one mask is pruned: percent of the survivors of each type of layer, `times` times over in
    one go, scored anew in each of `rounds`."""

    criterion: Target
    scope: str
    rates: dict[str, float]
    times: int
    rounds: int


def identity(spec: Spec) -> dict[str, Any]:
    """The settings of a run by dotted name, defaults resolved, without those of NOT_IDENTITY: two
    runs with the same ones have the same results."""
    settings = dict(flat(dataclasses.asdict(spec)))
    rate = per_level(spec.pruning)
    own = {f"pruning.{kind}_rate": own for kind, own in own_rates(spec.pruning, rate).items()}
    settings |= {"pruning.rate": rate, "pruning.final_density": None, **own}
    return {name: whole(value) for name, value in settings.items() if not _is_left_out(name)}


def _is_left_out(name: str) -> bool:
    return any(f"{name}.".startswith(f"{excluded}.") for excluded in NOT_IDENTITY)


def whole(value: Any) -> Any:  # noqa: ANN401 - any scalar
    """A whole float as the integer: 10.0 and 10 are the same rate."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in nested mappings."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", item


def recipe(spec: Spec) -> Recipe:
    return Recipe(spec.model, spec.dataset, spec.optimizer, spec.training, spec.split_seed)


def per_level(pruning: Pruning) -> float:
    """The rate of every level, in percent: as given, or what leads to the final density. Rounded,
    so that machines whose powers differ in the last bit agree."""
    if pruning.final_density is None:
        return pruning.rate
    kept: float = pruning.final_density ** (1 / max(pruning.levels, 1))
    return round(100 * (1 - kept), 10)


def rules(pruning: Pruning) -> list[Rule]:
    """That of each level from 1, every default resolved: identity holds what happens, not how it
    was spelt."""

    def rule(rate: float, times: int = 1) -> Rule:
        rates = own_rates(pruning, rate)
        return Rule(pruning.criterion, pruning.scope, rates, times, pruning.rounds)

    if pruning.rates is not None:
        return [rule(rate) for rate in pruning.rates]
    over = range(1, pruning.levels + 1) if pruning.mode == "one_shot" else [1] * pruning.levels
    return [rule(per_level(pruning), times) for times in over]


def own_rates(pruning: Pruning, rate: float) -> dict[str, float]:
    """Return the rate of each type of layer at a level with this rate, every default resolved."""
    defaults = paper_rates(pruning.scope, rate)
    if pruning.final_density is not None:
        defaults["output"] = rate
    own = {kind: getattr(pruning, f"{kind}_rate") for kind in TYPES}
    return {kind: rate if own[kind] is None else own[kind] for kind, rate in defaults.items()}


def paper_rates(scope: str, rate: float) -> dict[str, float]:
    """Return the rates of the paper: layer by layer, the output layer is pruned at half the rate
    (figure 2); shortcuts are never pruned (section 4)."""
    output = rate / 2 if scope == "layerwise" else rate
    return {"conv": rate, "linear": rate, "output": output, "shortcut": 0}
