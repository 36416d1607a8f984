"""Which weights go: criteria score them (one small function each), `keep` drops the lowest.

A criterion is any importable function `(ScoringInputs, **options) -> Scores`; the lowest scores are
pruned. Selecting knows nothing of criteria: it counts, pool by pool.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth.errors import LotteryError
from lth.training.data import Examples, Part
from lth.training.masks import Mask
from lth.training.selection import Scores


@dataclass(frozen=True)
class ScoringInputs:
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


def magnitude(evidence: ScoringInputs) -> Scores:
    """|w|: the paper's criterion (section 2); large_final of Zhou et al. 2019."""
    return {name: w.abs() for name, w in evidence.weights.items()}


def random(evidence: ScoringInputs) -> Scores:
    """Uniform noise: every surviving weight is as likely to go as any other."""
    return {
        name: torch.rand(w.shape, dtype=torch.float64, generator=evidence.generator)
        for name, w in evidence.weights.items()
    }


def _score(evidence: ScoringInputs, formula: Callable[[Tensor, Tensor], Tensor]) -> Scores:
    return {name: formula(w, evidence.initial[name]) for name, w in evidence.weights.items()}


def small_final(evidence: ScoringInputs) -> Scores:
    """-|w_f| (Zhou et al. 2019, as all down to large_final_same_sign)."""
    return _score(evidence, lambda final, _: -final.abs())


def large_init(evidence: ScoringInputs) -> Scores:
    """|w_i|."""
    return _score(evidence, lambda _, initial: initial.abs())


def small_init(evidence: ScoringInputs) -> Scores:
    """-|w_i|."""
    return _score(evidence, lambda _, initial: -initial.abs())


def large_init_large_final(evidence: ScoringInputs, alpha: float) -> Scores:
    """min(alpha |w_f|, |w_i|): large at both ends."""
    return _score(
        evidence, lambda final, initial: torch.minimum(alpha * final.abs(), initial.abs())
    )


def magnitude_increase(evidence: ScoringInputs) -> Scores:
    """|w_f| - |w_i|."""
    return _score(evidence, lambda final, initial: final.abs() - initial.abs())


def movement(evidence: ScoringInputs) -> Scores:
    """|w_f - w_i|."""
    return _score(evidence, lambda final, initial: (final - initial).abs())


def large_final_same_sign(evidence: ScoringInputs) -> Scores:
    """max(0, w_f w_i / |w_i|): large at the end, and of the sign it started with."""
    return _score(evidence, lambda final, initial: (final * initial.sign()).clamp(min=0))


def snip(evidence: ScoringInputs, per_class: int) -> Scores:
    """|w dL/dw| on `per_class` training examples of each class (Lee et al. 2019)."""
    model = evidence.model()
    weights = _prunable(model, evidence)
    loss = _loss(model, _sample(evidence, per_class))
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return _times(weights, gradients, Tensor.abs)


def grasp(evidence: ScoringInputs, per_class: int, temperature: float) -> Scores:
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


def synflow(evidence: ScoringInputs) -> Scores:
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


def _prunable(model: nn.Module, evidence: ScoringInputs) -> dict[str, Tensor]:
    return {name: model.get_parameter(name) for name in evidence.weights}


def _loss(model: nn.Module, examples: Examples, temperature: float = 1.0) -> Tensor:
    return cross_entropy(model(examples.inputs) / temperature, examples.labels)


def _times(
    weights: Mapping[str, Tensor], factors: tuple[Tensor, ...], form: Callable[[Tensor], Tensor]
) -> Scores:
    products = zip(weights.items(), factors, strict=True)
    return {name: form(weight.detach() * factor).cpu() for (name, weight), factor in products}


def _sample(evidence: ScoringInputs, per_class: int) -> Examples:
    """So many training examples of each class (all where there are fewer), drawn at random."""
    if per_class < 1:
        raise LotteryError(f"pruning.criterion.per_class={per_class}: 1 or more are wanted.")
    part = evidence.examples()
    labels = part.labels
    order = torch.randperm(len(labels), generator=evidence.generator)
    drawn = labels.cpu()[order]
    picked = [order[drawn == label][:per_class] for label in drawn.unique()]
    return part.at(torch.cat(picked).to(labels.device))
