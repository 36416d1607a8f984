"""A claim with the trials that can test it, and what rules read of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.intervals import Array
from analysis.paper import Claim
from analysis.sample import SAME, Sample

NEAR = 0.05
"""Largest relative distance between a level's density and the one that a claim names."""

Levels = Sequence[int]


class Case(NamedTuple):
    """A claim and the trials that can test it. `place`: the level that it is about; `depth`: the
    deepest level that it is about; `other`: the sample of the preset that it compares with."""

    sample: Sample
    claim: Claim
    place: int
    depth: int
    other: Sample | None = None

    def own(self, quantity: str) -> Array:
        """Return a quantity of the claim's arm: (trials, levels)."""
        return self.sample.values(self.claim.arm, quantity)

    @property
    def densities(self) -> Array:
        """Densities of the claim's arm in percent: (levels,)."""
        return 100 * self.sample.densities[self.claim.arm]


def dense(_: Case) -> Levels:
    return [0]


def there(case: Case) -> Levels:
    return [case.place]


def dense_and_there(case: Case) -> Levels:
    return [0, case.place]


def down_to_depth(case: Case) -> Levels:
    return range(case.depth + 1)


def below_half(case: Case) -> Levels:
    """Return the levels with a density below 50 %, but not below the depth of the claim."""
    assert case.claim.depth is not None
    lowest = case.densities[case.densities <= case.claim.depth * (1 + NEAR)].max()
    chosen = (case.densities < 50) & (case.densities >= lowest - SAME)
    return [int(level) for level in np.flatnonzero(chosen)]
