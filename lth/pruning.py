"""Which weights go: criteria score them (one small function each), `select` takes the lowest.

A criterion is any importable function `(Evidence) -> Scores`; the lowest scores are pruned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from lth.masks import Mask

Scores = dict[str, Tensor]


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at; tensors by name, prunable ones only."""

    weights: Mapping[str, Tensor]
    """The weights to be scored: those at the end of a training, or at initialisation."""
    initial: Mapping[str, Tensor]
    """The weights the network started from."""
    generator: torch.Generator
    """The source of any randomness, of this seed and level."""


def magnitude(evidence: Evidence) -> Scores:
    """|w|: the paper's criterion (section 2)."""
    return {name: w.abs() for name, w in evidence.weights.items()}


def random(evidence: Evidence) -> Scores:
    """Uniform noise: every surviving weight is as likely to go as any other."""
    return {
        name: torch.rand(w.shape, dtype=torch.float64, generator=evidence.generator)
        for name, w in evidence.weights.items()
    }


def removed(survivors: int, rate: float) -> int:
    """How many of `survivors` a rate in percent removes: the nearest whole number, ties to even."""
    return round(Fraction(str(rate)) * survivors / 100)


def ladder(
    sizes: Mapping[str, int], rates: Mapping[str, float], levels: int
) -> list[dict[str, int]]:
    """Surviving weights of each tensor at levels 0 to `levels`, known before any training."""
    rungs = [dict(sizes)]
    for _ in range(levels):
        rungs.append({name: n - removed(n, rates[name]) for name, n in rungs[-1].items()})
    return rungs


def select(scores: Scores, previous: Mask, rates: Mapping[str, float]) -> Mask:
    """Layer by layer, prune `rates[name]` percent of what survives in `previous`.

    Exactly the asked number goes, the lowest scores first and ties by index. A threshold would
    take all equal scores at once, and take zeros that are alive for weights already pruned.
    """
    return {
        name: _without_lowest(scores[name], kept, removed(int(kept.sum()), rates[name]))
        for name, kept in previous.items()
    }


def _without_lowest(scores: Tensor, kept: Tensor, count: int) -> Tensor:
    alive = kept.flatten().nonzero().squeeze(1)
    order = scores.flatten()[alive].argsort(stable=True)
    mask = kept.flatten().clone()
    mask[alive[order[:count]]] = False
    return mask.reshape(kept.shape)
