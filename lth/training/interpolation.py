"""The networks on the straight line between two: where error rises on the way, the two have ended
in different valleys (Frankle et al. 2020)."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from lth.experiment.results import Point
from lth.training.data import Part
from lth.training.eager import evaluate


def along(
    model: nn.Module,
    one: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    points: int,
    part: Part,
) -> Iterator[Point]:
    """Evaluate `model` on `part` with the weights and buffers of `points` places, evenly spread
    from `one` to `other`, both among them. Counts (int64 buffers) stay those of `one`."""
    for number in range(points):
        share = number / (points - 1)
        model.load_state_dict({name: between(one[name], other[name], share) for name in one})
        yield Point(share, *evaluate(model, part))


def between(one: Tensor, other: Tensor, share: float) -> Tensor:
    return one.lerp(other, share) if one.is_floating_point() else one
