"""Select the weights that a mask keeps, with exact counts, from the scores of any criterion."""

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
    """Return the rate of each pool, in percent, given the rate of each tensor. `layerwise`: every
    tensor is a pool; `global`: all tensors with a rate above 0 form one pool."""
    pruned = tuple(name for name, rate in rates.items() if rate)
    if scope == "layerwise" or not pruned:
        return {(name,): rate for name, rate in rates.items()}
    spared: dict[Pool, float] = {(name,): 0.0 for name in rates if name not in pruned}
    return {pruned: rates[pruned[0]], **spared}


def removed(survivors: int, rate: float) -> int:
    """Return how many of `survivors` a rate in percent removes: rounded, ties to even."""
    return round(Fraction(str(rate)) * survivors / 100)


def survivors(count: int, rate: float, times: int = 1) -> int:
    """Return the number left of `count` after removing `rate` percent `times` times."""
    for _ in range(times):
        count -= removed(count, rate)
    return count


def counts(mask: Mask, pools: Mapping[Pool, float]) -> dict[Pool, int]:
    """Return the number of survivors in each pool."""
    return {pool: sum(int(mask[name].sum()) for name in pool) for pool in pools}


def between(start: int, end: int, fraction: float) -> int:
    """Return the number of survivors at a fraction, in (0, 1], of the geometric path from `start`
    to `end`."""
    return round(start * (end / start) ** fraction) if 0 < fraction < 1 and start else end


def keep(scores: Scores, previous: Mask, counts: Mapping[Pool, int]) -> Mask:
    """Return the mask that keeps, of the survivors of `previous`, the `counts[pool]` with the
    highest scores in each pool.

    Exactly that many are kept. Among equal scores the lowest index is pruned first, and the first
    tensor of a pool before the others. A threshold on scores would prune all equal scores at once,
    and would treat surviving weights of value 0 as pruned ones.
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
    """Return a mask (n,) of the `count` lowest scores (n,); nan counts as the highest.

    Selection with `kthvalue`: sorting the 20 million weights of VGG-19 takes nine times as long.
    """
    lowest = torch.zeros_like(scores, dtype=torch.bool)
    if count:
        comparable = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        threshold = comparable.kthvalue(count).values
        lowest = comparable < threshold
        ties = (comparable == threshold).nonzero().squeeze(1)
        lowest[ties[: count - int(lowest.sum())]] = True
    return lowest
