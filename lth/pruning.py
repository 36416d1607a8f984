"""Pruning criteria: functions that score weights; the lowest scores are pruned.

A criterion is any importable function `(ScoringInputs, **options) -> Scores`. The scores have the
shapes of the weights. `lth.training.selection` selects the lowest ones.
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
    """The inputs of a criterion. Tensors by name, prunable ones only, on the CPU."""

    weights: Mapping[str, Tensor]
    """The weights to score: at the end of a training, or at initialisation."""
    initial: Mapping[str, Tensor]
    """The weights of the dense network at iteration 0, also after late rewinding."""
    mask: Mask
    """The survivors so far, True = kept. Scores of pruned weights are ignored."""
    generator: torch.Generator
    """The source of random draws, seeded for this seed and level."""
    model: Callable[[], nn.Module]
    """A function that returns a new network with the weights to score, on the device, in training
    mode; weights pruned so far are 0."""
    examples: Callable[[], Part]
    """A function that returns the training examples, on the device of the model."""


def magnitude(inputs: ScoringInputs) -> Scores:
    """|w|: the criterion of the paper (section 2); `large_final` of Zhou et al. 2019."""
    return {name: w.abs() for name, w in inputs.weights.items()}


def random(inputs: ScoringInputs) -> Scores:
    """Uniform noise: every surviving weight is equally likely to be pruned."""
    return {
        name: torch.rand(w.shape, dtype=torch.float64, generator=inputs.generator)
        for name, w in inputs.weights.items()
    }


def _score(inputs: ScoringInputs, formula: Callable[[Tensor, Tensor], Tensor]) -> Scores:
    """Return `formula(final, initial)` of each tensor."""
    return {name: formula(w, inputs.initial[name]) for name, w in inputs.weights.items()}


def small_final(inputs: ScoringInputs) -> Scores:
    """-|w_f| (Zhou et al. 2019)."""
    return _score(inputs, lambda final, _: -final.abs())


def large_init(inputs: ScoringInputs) -> Scores:
    """|w_i| (Zhou et al. 2019)."""
    return _score(inputs, lambda _, initial: initial.abs())


def small_init(inputs: ScoringInputs) -> Scores:
    """-|w_i| (Zhou et al. 2019)."""
    return _score(inputs, lambda _, initial: -initial.abs())


def large_init_large_final(inputs: ScoringInputs, alpha: float) -> Scores:
    """min(alpha |w_f|, |w_i|) (Zhou et al. 2019). `alpha`: a factor > 0."""
    return _score(inputs, lambda final, initial: torch.minimum(alpha * final.abs(), initial.abs()))


def magnitude_increase(inputs: ScoringInputs) -> Scores:
    """|w_f| - |w_i| (Zhou et al. 2019)."""
    return _score(inputs, lambda final, initial: final.abs() - initial.abs())


def movement(inputs: ScoringInputs) -> Scores:
    """|w_f - w_i| (Zhou et al. 2019)."""
    return _score(inputs, lambda final, initial: (final - initial).abs())


def large_final_same_sign(inputs: ScoringInputs) -> Scores:
    """max(0, w_f w_i / |w_i|): |w_f| where the sign is still the initial one, else 0 (Zhou et al.
    2019)."""
    return _score(inputs, lambda final, initial: (final * initial.sign()).clamp(min=0))


def snip(inputs: ScoringInputs, per_class: int) -> Scores:
    """|w dL/dw| on `per_class` >= 1 training examples of each class (SNIP, Lee et al. 2019)."""
    model = inputs.model()
    weights = _prunable(model, inputs)
    loss = _loss(model, _sample(inputs, per_class))
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return _times(weights, gradients, Tensor.abs)


def grasp(inputs: ScoringInputs, per_class: int, temperature: float) -> Scores:
    """w Hg, with H the Hessian of the loss and g its gradient, 0 for pruned weights (GraSP, Wang et
    al. 2020). Weights whose removal reduces the gradient flow least are pruned first.

    `per_class` >= 1: training examples of each class. `temperature` > 0: logits are divided by it.
    """
    if temperature <= 0:
        raise LotteryError(f"pruning.criterion.temperature must be > 0, got {temperature}")
    model = inputs.model()
    weights = _prunable(model, inputs)
    loss = _loss(model, _sample(inputs, per_class), temperature)
    tensors = list(weights.values())
    gradients = torch.autograd.grad(loss, tensors, create_graph=True)
    survive = [inputs.mask[name].to(loss.device) for name in weights]
    pairs = zip(gradients, survive, strict=True)
    flow = sum(((g.detach() * g * alive).sum() for g, alive in pairs), torch.zeros(()))
    return _times(weights, torch.autograd.grad(flow, tensors), lambda score: score)


def synflow(inputs: ScoringInputs) -> Scores:
    """|w dR/dw|, with R the sum of the outputs for an input of ones after every parameter was
    replaced by its absolute value (SynFlow, Tanaka et al. 2020). No data are used. Computed in
    float64: products over many layers overflow float32."""
    model = inputs.model().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = _prunable(model, inputs)
    ones = torch.ones_like(inputs.examples().stored.inputs[:1], dtype=torch.float64)
    gradients = torch.autograd.grad(model(ones).sum(), list(weights.values()))
    return _times(weights, gradients, Tensor.abs)


def _prunable(model: nn.Module, inputs: ScoringInputs) -> dict[str, Tensor]:
    return {name: model.get_parameter(name) for name in inputs.weights}


def _loss(model: nn.Module, examples: Examples, temperature: float = 1.0) -> Tensor:
    return cross_entropy(model(examples.inputs) / temperature, examples.labels)


def _times(
    weights: Mapping[str, Tensor], factors: tuple[Tensor, ...], form: Callable[[Tensor], Tensor]
) -> Scores:
    """Return `form(weight x factor)` of each tensor, on the CPU."""
    products = zip(weights.items(), factors, strict=True)
    return {name: form(weight.detach() * factor).cpu() for (name, weight), factor in products}


def _sample(inputs: ScoringInputs, per_class: int) -> Examples:
    """Draw `per_class` training examples of each class at random; all of a class with fewer."""
    if per_class < 1:
        raise LotteryError(f"pruning.criterion.per_class must be >= 1, got {per_class}")
    part = inputs.examples()
    labels = part.labels
    order = torch.randperm(len(labels), generator=inputs.generator)
    drawn = labels.cpu()[order]
    picked = [order[drawn == label][:per_class] for label in drawn.unique()]
    return part.at(torch.cat(picked).to(labels.device))
