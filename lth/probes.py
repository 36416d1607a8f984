"""Probes: additional measurements on the networks of a run.

A probe is one class here (or in user code) and one YAML in conf/probe/. Its instances are stored
nodes like trainings: identified by a digest, made once, shared and audited. The class defines
`tag`, `table`, `columns`, `plan` (the measurements of a run), `content` (what decides one of them)
and `compute` (its rows). torch is imported inside `compute`, because describing a run must not
import it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from lth.errors import LotteryError
from lth.experiment.lottery import masks_of
from lth.experiment.node import Weights
from lth.experiment.nodes import Final, Measurement, Pruned, Snapshot, Training
from lth.experiment.results import Row

if TYPE_CHECKING:
    from lth.engine.build import Builder
    from lth.training.interpolation import InterpolationPoint


@dataclass(frozen=True, eq=False, repr=False)
class Interpolation(Measurement):
    """Base of measurements on the straight line between the final weights of two trainings, at
    `points` evenly spread networks, both ends included."""

    one: Training
    other: Training
    points: int

    def content(self) -> dict[str, Any]:
        return {"one": self.one, "other": self.other, "points": self.points}

    def along(self, build: "Builder") -> "Iterator[InterpolationPoint]":
        """Evaluate these networks on the test set of `one`."""
        from lth.training.interpolation import along

        recipe = self.one.recipe
        one, other = (build.weights(Final(of), recipe.network) for of in (self.one, self.other))
        model, test = build.model(self.one), build.data(recipe).test
        precision = recipe.training.precision
        return along(model, one, other, points=self.points, part=test, precision=precision)


@dataclass(frozen=True, eq=False, repr=False)
class Connectivity(Interpolation):
    """Test loss and accuracy on the line between two copies of a network that see different orders
    of batches from an iteration on (Frankle et al. 2020, "instability")."""

    tag = "connectivity"
    table = "connectivity"
    columns = ("iteration", "fraction", "test_loss", "test_accuracy")

    @classmethod
    def plan(
        cls, trainings: Mapping[int, Training], *, iteration: int, points: int
    ) -> Iterator[tuple[int, Measurement]]:
        """Compare two copies at each level, which part at `iteration` >= 0. Raises LotteryError if
        `iteration` or `points` is out of range."""
        _check_points(points)
        total = trainings[0].recipe.training.iterations
        if not (_is_integer(iteration) and 0 <= iteration < total):
            raise LotteryError(
                f"probe.iteration must be an integer in [0, training.iterations = {total}), got "
                f"{iteration}: copies part before the end of a training"
            )
        for level, training in trainings.items():
            one, other = (branch(training, iteration, order) for order in (0, 1))
            yield level, cls(one, other, points)

    def compute(self, build: "Builder") -> Iterable[Row]:
        return ({"iteration": self.one.start, **p._asdict()} for p in self.along(build))


@dataclass(frozen=True, eq=False, repr=False)
class LevelConnectivity(Interpolation):
    """Test loss and accuracy on the line between the trained networks of two successive levels
    (Paul et al. 2022, arXiv:2210.03044)."""

    tag = "level_connectivity"
    table = "level_connectivity"
    columns = ("fraction", "test_loss", "test_accuracy")

    @classmethod
    def plan(
        cls, trainings: Mapping[int, Training], *, points: int
    ) -> Iterator[tuple[int, Measurement]]:
        """Compare each level, at fraction 0, with the next, at fraction 1. Raises LotteryError if
        `points` is out of range."""
        _check_points(points)
        for level in list(trainings)[:-1]:
            yield level, cls(trainings[level], trainings[level + 1], points)

    def compute(self, build: "Builder") -> Iterable[Row]:
        return (point._asdict() for point in self.along(build))


@dataclass(frozen=True, eq=False, repr=False)
class MaskDistance(Measurement):
    """Distances between the masks that one training would give at several iterations: the fraction
    of entries in which they differ (You et al. 2020, figure 2)."""

    tag = "mask_distance"
    table = "mask_distance"
    columns = ("iteration", "other", "distance")
    masks: tuple[Pruned, ...]

    @classmethod
    def plan(
        cls, trainings: Mapping[int, Training], *, every: int
    ) -> Iterator[tuple[int, Measurement]]:
        """Compare the masks of the dense network at multiples of `every` iterations. They follow
        from the rule of the first level. Raises LotteryError if `every` is out of range, or if the
        run has no level that is pruned."""
        total = trainings[0].recipe.training.iterations
        if not (_is_integer(every) and 0 < 2 * every < total):
            raise LotteryError(
                f"probe.every must be an integer in [1, training.iterations / 2 = {total // 2}), "
                f"got {every}: at least two masks are compared"
            )
        first = trainings[1].mask if len(trainings) > 1 else None
        if not isinstance(first, Pruned):
            raise LotteryError(
                "probe=mask_distance needs pruning.levels >= 1 and an unshuffled mask, because its "
                "masks have the rates of the first level"
            )
        yield 0, cls(tuple(masks_of(trainings[0], first.rule, every)))

    def content(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def compute(self, build: "Builder") -> Iterable[Row]:
        network = self.masks[0].recipe.network
        for one, other in product(self.masks, repeat=2):
            distance = build.distance(one, other, network)
            yield {"iteration": _at(one), "other": _at(other), "distance": distance}


@dataclass(frozen=True, eq=False, repr=False)
class GradientFlow(Measurement):
    """Squared norm of the gradient of the training loss with respect to all parameters that are
    not pruned, at some iterations of each training, and the loss there (Evci et al. 2022,
    arXiv:2010.03533).
    """

    tag = "gradient_flow"
    table = "gradient_flow"
    columns = ("iteration", "gradient_flow", "train_loss")
    of: Training
    weights: tuple[Weights, ...]

    @classmethod
    def plan(
        cls, trainings: Mapping[int, Training], *, iterations: Sequence[int]
    ) -> Iterator[tuple[int, Measurement]]:
        """Measure each level at `iterations`, each in [0, training.iterations]. Before its start, a
        training has its starting weights. Raises LotteryError if one is out of range, or if masks
        move."""
        total = trainings[0].recipe.training.iterations
        given = iterations if isinstance(iterations, list | tuple) else []
        if not given or not all(_is_integer(at) and 0 <= at <= total for at in given):
            raise LotteryError(
                f"probe.iterations must be integers in [0, training.iterations = {total}], got "
                f"{iterations}"
            )
        if any(training.update for training in trainings.values()):
            raise LotteryError("probe=gradient_flow needs masks that stay: use pruning.update=null")
        for level, training in trainings.items():
            yield level, cls(training, tuple(weights_at(training, at) for at in iterations))

    def content(self) -> dict[str, Any]:
        return {"of": self.of, "weights": self.weights, "normalisation": "batch"}

    def compute(self, build: "Builder") -> Iterable[Row]:
        from lth.training.flow import gradient_flow

        recipe = self.of.recipe
        mask, train = build.stored_mask(self.of), build.data(recipe).train
        for weights in self.weights:
            model, state = build.model(self.of), build.weights(weights, recipe.network)
            flow, loss = gradient_flow(
                model, state, mask, train,
                batch_size=recipe.training.batch_size, seed=self.of.seed,
            )  # fmt: skip
            at = _iteration_of(weights, self.of)
            yield {"iteration": at, "gradient_flow": flow, "train_loss": loss}


@dataclass(frozen=True, eq=False, repr=False)
class Flops(Measurement):
    """Floating-point operations of the forward pass of one example with the weights that survive:
    two, a product and a sum, for each use of a weight. Biases, normalisation and pooling are not
    counted. `speed_up`: those of the dense network, divided by these. A training step takes three
    times as many (Evci et al. 2020, appendix)."""

    tag = "flops"
    table = "flops"
    columns = ("flops", "speed_up")
    of: Training

    @classmethod
    def plan(cls, trainings: Mapping[int, Training]) -> Iterator[tuple[int, Measurement]]:
        """Count for each level."""
        for level, training in trainings.items():
            yield level, cls(training)

    def content(self) -> dict[str, Any]:
        return {"of": self.of}

    def compute(self, build: "Builder") -> Iterable[Row]:
        from lth.training.flow import uses

        network, mask = self.of.recipe.network, build.stored_mask(self.of)
        times = uses(build.model(self.of), mask, network.shape)
        counts = {name: (int(kept.sum()), kept.numel()) for name, kept in mask.items()}
        own, dense = (2 * sum(times[n] * of[i] for n, of in counts.items()) for i in (0, 1))
        yield {"flops": own, "speed_up": dense / own}


def weights_at(training: Training, iteration: int) -> Weights:
    """Return the weights of a training before the step `iteration`."""
    if iteration <= training.start:
        return training.weights
    total = training.recipe.training.iterations
    return Final(training) if iteration == total else Snapshot(training, iteration)


def _iteration_of(weights: Weights, training: Training) -> int:
    """Return the iteration of a training at which it has these weights."""
    if weights == training.weights:
        return training.start
    at_end = training.recipe.training.iterations
    return weights.iteration if isinstance(weights, Snapshot) else at_end


def _at(mask: Pruned) -> int:
    """Return the iteration of the snapshot that a mask scores."""
    assert isinstance(mask.weights, Snapshot)
    return mask.weights.iteration


def branch(training: Training, iteration: int, data_order: int) -> Training:
    """Return a copy of a training that starts from its state at `iteration` (or from its own start,
    if that is later), with a fresh optimiser and another order of batches."""
    if iteration > training.start:
        training = replace(training, weights=Snapshot(training, iteration), start=iteration)
    return replace(training, data_order=data_order)


def _check_points(points: int) -> None:
    if not (_is_integer(points) and points >= 3):
        raise LotteryError(f"probe.points must be an integer >= 3, got {points}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
