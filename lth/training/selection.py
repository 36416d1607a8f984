"""Select the weights that a mask keeps: exact counts, pool by pool. Knows nothing of criteria."""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from lth.training.masks import Mask

Scores = dict[str, Tensor]
"""Name of a prunable tensor -> scores of the same shape; the lowest are pruned first."""

Pool = tuple[str, ...]
"""Names of the tensors whose weights compete with each other."""


def pools(rates: Mapping[str, float], scope: str) -> dict[Pool, float]:
    """The rate of each pool, from that of each tensor. `layerwise`: every tensor is a pool;
    `global`: all that are pruned are one."""
    pruned = tuple(name for name, rate in rates.items() if rate)
    if scope == "layerwise" or not pruned:
        return {(name,): rate for name, rate in rates.items()}
    spared: dict[Pool, float] = {(name,): 0.0 for name in rates if name not in pruned}
    return {pruned: rates[pruned[0]], **spared}


def removed(survivors: int, rate: float) -> int:
    """How many of `survivors` a rate in percent removes: the nearest whole number, ties to even."""
    return round(Fraction(str(rate)) * survivors / 100)


def survivors(count: int, rate: float, times: int = 1) -> int:
    """What is left of `count` after a rate in percent has been applied `times` times."""
    for _ in range(times):
        count -= removed(count, rate)
    return count


def counts(mask: Mask, pools: Mapping[Pool, float]) -> dict[Pool, int]:
    """The survivors in each pool."""
    return {pool: sum(int(mask[name].sum()) for name in pool) for pool in pools}


def between(start: int, end: int, way: float) -> int:
    """A number of survivors on the geometric path from `start` to `end`; `way` in [0, 1]."""
    return round(start * (end / start) ** way) if 0 < way < 1 and start else end


def keep(scores: Scores, previous: Mask, counts: Mapping[Pool, int]) -> Mask:
    """Of what survives in `previous`, the `counts[pool]` of highest score in each pool.

    Exactly the asked number stays; ties go by index, those of the first tensors first. A threshold
    would take all equal scores at once, and take zeros that are alive for weights already pruned.
    """
    mask = {name: kept.clone() for name, kept in previous.items()}
    for pool, count in counts.items():
        kept = torch.cat([previous[name].flatten() for name in pool])
        alive = kept.nonzero().squeeze(1)
        compared = torch.cat([scores[name].flatten() for name in pool])[alive]
        kept[alive[_lowest(compared, len(alive) - count)]] = False
        parts = kept.split([previous[name].numel() for name in pool])
        mask |= {n: p.reshape(previous[n].shape) for n, p in zip(pool, parts, strict=True)}
    return mask


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Which `count` of the scores (n,) are lowest, as a mask (n,); nan counts as the highest.

    By selection: sorting VGG-19's 20 million would take nine times as long.
    """
    lowest = torch.zeros_like(scores, dtype=torch.bool)
    if count:
        comparable = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        threshold = comparable.kthvalue(count).values
        lowest = comparable < threshold
        ties = (comparable == threshold).nonzero().squeeze(1)
        lowest[ties[: count - int(lowest.sum())]] = True
    return lowest
