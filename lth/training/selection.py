"""Select the weights that a mask keeps, with exact counts, from the scores of any criterion."""

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from lth.training.masks import Mask

Scores = dict[str, Tensor]
"""Name of a prunable tensor -> scores of the same shape; the lowest are pruned first."""

Pool = tuple[str, ...]
"""Names of the tensors whose weights compete with each other."""


def pools(rates: Mapping[str, float], scope: str) -> dict[Pool, float]:
    """Return the rate of each pool, in percent, given the rate of each tensor. `global`: all
    tensors with a rate above 0 form one pool; otherwise every tensor is a pool."""
    pruned = tuple(name for name, rate in rates.items() if rate)
    if scope != "global" or not pruned:
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


def left(
    before: Mapping[Pool, int],
    rates: Mapping[Pool, float],
    times: int,
    scope: str,
    shapes: Mapping[str, Sequence[int]],
) -> dict[Pool, int]:
    """Return the survivors of each pool after removing its rate `times` times. With the scopes `er`
    and `erk`, as many survive together, and `erdos_renyi` divides them among the tensors."""
    alone = {pool: survivors(before[pool], rate, times) for pool, rate in rates.items()}
    if scope not in ("er", "erk"):
        return alone
    pruned = {pool: before[pool] for pool, rate in rates.items() if rate}
    shares: dict[Pool, int] = {
        (name,): _share(shapes[name], kernel=scope == "erk") for (name,) in pruned
    }
    together = survivors(sum(pruned.values()), max(rates.values()), times)
    return alone | erdos_renyi(pruned, shares, together)


def _share(shape: Sequence[int], *, kernel: bool) -> int:
    """Return the share of a tensor: (inputs + outputs) x kernel area, so that its density is in
    proportion to (inputs + outputs) / (inputs x outputs) (Mocanu et al. 2018). With `kernel`:
    inputs + outputs + height + width, and the density is in proportion to that over their product
    (Evci et al. 2020)."""
    return sum(shape) if kernel else sum(shape[:2]) * math.prod(shape[2:])


def erdos_renyi(
    before: Mapping[Pool, int], shares: Mapping[Pool, int], total: int
) -> dict[Pool, int]:
    """Divide `total` survivors among tensors in proportion to `shares`. A tensor gets at most what
    it has, and the others get the rest, as in the code of Evci et al. 2020. The counts add up to
    `total`."""
    full: dict[Pool, int] = {}
    while True:
        rest = total - sum(full.values())
        open_ = {pool: share for pool, share in shares.items() if pool not in full}
        whole = sum(open_.values())
        over = {p: before[p] for p, share in open_.items() if rest * share > before[p] * whole}
        if not over:
            break
        full |= over
    found = {pool: rest * share // whole for pool, share in open_.items()}
    fractions = sorted(open_, key=lambda pool: (-(rest * open_[pool] % whole), pool))
    for pool in fractions[: rest - sum(found.values())]:
        found[pool] += 1
    return full | found


def counts(mask: Mask, pools: Iterable[Pool]) -> dict[Pool, int]:
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
        compared = torch.cat([scores[name].flatten() for name in pool])
        if kept.all():  # nothing to leave out, which takes half of the time
            kept = ~_lowest(compared, len(kept) - count)
        else:
            compared = compared[kept]
            kept[kept.clone()] = ~_lowest(compared, len(compared) - count)
        parts = kept.split([previous[name].numel() for name in pool])
        mask |= {n: p.reshape(previous[n].shape) for n, p in zip(pool, parts, strict=True)}
    return mask


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Return a mask (n,) of the `count` lowest scores (n,); nan counts as the highest.

    With numpy's partition: torch's `kthvalue` took up to twice as long, and sorting six times.
    """
    lowest = torch.zeros_like(scores, dtype=torch.bool)
    if count:
        given = scores.detach()  # numpy has neither gradients nor bfloat16
        given = given.float() if given.dtype == torch.bfloat16 else given
        comparable = given.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        threshold = float(np.partition(comparable.numpy(), count - 1)[count - 1])
        lowest = comparable < threshold
        ties = (comparable == threshold).nonzero().squeeze(1)
        lowest[ties[: count - int(lowest.sum())]] = True
    return lowest
