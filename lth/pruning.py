"""Which weights go: criteria score them (one small function each), `keep` drops the lowest.

A criterion is any importable function `(Evidence, **options) -> Scores`; the lowest scores are
pruned. Selecting knows nothing of criteria: it counts, pool by pool.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth.data import Examples, Part
from lth.errors import LotteryError
from lth.masks import Mask

Scores = dict[str, Tensor]


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at; tensors by name, prunable ones only, on the CPU."""

    weights: Mapping[str, Tensor]
    """The weights to be scored: those at the end of a training, or at initialisation."""
    initial: Mapping[str, Tensor]
    """The weights the network started from."""
    mask: Mask
    """What has survived so far."""
    generator: torch.Generator
    """The source of any randomness, of this seed and level."""
    model: Callable[[], nn.Module]
    """A network of one's own with the weights to be scored, those pruned so far being 0."""
    examples: Callable[[], Part]
    """The training part, on the device of the model."""


def magnitude(evidence: Evidence) -> Scores:
    """|w|: the paper's criterion (section 2); large_final of Zhou et al. 2019."""
    return {name: w.abs() for name, w in evidence.weights.items()}


def random(evidence: Evidence) -> Scores:
    """Uniform noise: every surviving weight is as likely to go as any other."""
    return {
        name: torch.rand(w.shape, dtype=torch.float64, generator=evidence.generator)
        for name, w in evidence.weights.items()
    }


def _score(evidence: Evidence, formula: Callable[[Tensor, Tensor], Tensor]) -> Scores:
    return {name: formula(w, evidence.initial[name]) for name, w in evidence.weights.items()}


def small_final(evidence: Evidence) -> Scores:
    """-|w_f| (Zhou et al. 2019, as all down to large_final_same_sign)."""
    return _score(evidence, lambda final, _: -final.abs())


def large_init(evidence: Evidence) -> Scores:
    """|w_i|."""
    return _score(evidence, lambda _, initial: initial.abs())


def small_init(evidence: Evidence) -> Scores:
    """-|w_i|."""
    return _score(evidence, lambda _, initial: -initial.abs())


def large_init_large_final(evidence: Evidence, alpha: float) -> Scores:
    """min(alpha |w_f|, |w_i|): large at both ends."""
    return _score(
        evidence, lambda final, initial: torch.minimum(alpha * final.abs(), initial.abs())
    )


def magnitude_increase(evidence: Evidence) -> Scores:
    """|w_f| - |w_i|."""
    return _score(evidence, lambda final, initial: final.abs() - initial.abs())


def movement(evidence: Evidence) -> Scores:
    """|w_f - w_i|."""
    return _score(evidence, lambda final, initial: (final - initial).abs())


def large_final_same_sign(evidence: Evidence) -> Scores:
    """max(0, w_f w_i / |w_i|): large at the end, and of the sign it started with."""
    return _score(evidence, lambda final, initial: (final * initial.sign()).clamp(min=0))


def snip(evidence: Evidence, per_class: int) -> Scores:
    """|w dL/dw| on `per_class` training examples of each class (Lee et al. 2019)."""
    model = evidence.model()
    weights = _prunable(model, evidence)
    loss = _loss(model, _sample(evidence, per_class))
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return _times(weights, gradients, Tensor.abs)


def grasp(evidence: Evidence, per_class: int, temperature: float) -> Scores:
    """w Hg, with H the Hessian of the loss and g its gradient in the survivors (Wang et al. 2020):
    those whose removal hurts the flow of gradients least go first. Logits are divided by
    `temperature`, more than 0."""
    if temperature <= 0:
        raise LotteryError(f"pruning.criterion.temperature={temperature}: more than 0 is wanted.")
    model = evidence.model()
    weights = _prunable(model, evidence)
    loss = _loss(model, _sample(evidence, per_class), temperature)
    tensors = list(weights.values())
    gradients = torch.autograd.grad(loss, tensors, create_graph=True)
    survive = [evidence.mask[name].to(loss.device) for name in weights]
    pairs = zip(gradients, survive, strict=True)
    flow = sum(((g.detach() * g * alive).sum() for g, alive in pairs), torch.zeros(()))
    return _times(weights, torch.autograd.grad(flow, tensors), lambda score: score)


def synflow(evidence: Evidence) -> Scores:
    """|w dR/dw|, R the sum of the outputs for an input of ones with every parameter replaced by its
    absolute value (Tanaka et al. 2020): no data. In float64, as products of layers overflow."""
    model = evidence.model().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = _prunable(model, evidence)
    ones = torch.ones_like(evidence.examples().stored.inputs[:1], dtype=torch.float64)
    gradients = torch.autograd.grad(model(ones).sum(), list(weights.values()))
    return _times(weights, gradients, Tensor.abs)


def _prunable(model: nn.Module, evidence: Evidence) -> dict[str, Tensor]:
    return {name: model.get_parameter(name) for name in evidence.weights}


def _loss(model: nn.Module, examples: Examples, temperature: float = 1.0) -> Tensor:
    return cross_entropy(model(examples.inputs) / temperature, examples.labels)


def _times(
    weights: Mapping[str, Tensor], factors: tuple[Tensor, ...], form: Callable[[Tensor], Tensor]
) -> Scores:
    products = zip(weights.items(), factors, strict=True)
    return {name: form(weight.detach() * factor).cpu() for (name, weight), factor in products}


def _sample(evidence: Evidence, per_class: int) -> Examples:
    """So many training examples of each class (all where there are fewer), drawn at random."""
    if per_class < 1:
        raise LotteryError(f"pruning.criterion.per_class={per_class}: 1 or more are wanted.")
    part = evidence.examples()
    labels = part.labels
    order = torch.randperm(len(labels), generator=evidence.generator)
    drawn = labels.cpu()[order]
    picked = [order[drawn == label][:per_class] for label in drawn.unique()]
    return part.at(torch.cat(picked).to(labels.device))


CHANGES = (movement, magnitude_increase)
"""Criteria of what training has changed: at initialisation they know nothing."""

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
