"""Evaluate networks on the straight line between two networks. If the error rises along the line,
the two lie in different basins (Frankle et al. 2020)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from lth import models
from lth.experiment.settings import Precision
from lth.training.data import Part
from lth.training.eager import evaluate


class InterpolationPoint(NamedTuple):
    """A network on the line: at fraction 0 the first end, at 1 the other."""

    fraction: float
    test_loss: float
    test_accuracy: float


def along(
    model: nn.Module,
    one: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    *,
    points: int,
    part: Part,
    precision: Precision = "float32",
) -> Iterator[InterpolationPoint]:
    """Evaluate `model` on `part` at `points` >= 2 places, evenly spread from the state `one` to the
    state `other`, both included. Counters (int64 buffers) stay those of `one`."""
    for number in range(points):
        fraction = number / (points - 1)
        models.load(model, {name: between(one[name], other[name], fraction) for name in one})
        yield InterpolationPoint(fraction, *evaluate(model, part, precision))


def between(one: Tensor, other: Tensor, fraction: float) -> Tensor:
    """Return the weighted mean of floats; other types stay those of `one`."""
    return one.lerp(other, fraction) if one.is_floating_point() else one
