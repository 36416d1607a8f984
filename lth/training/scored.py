"""Masks without training weights: the scores of weights are trained, and the weights stay.

Edge-popup (Ramanujan et al. 2020, arXiv:1911.13299): in each pool, the weights with the highest
scores survive. Supermasks (Zhou et al. 2019, arXiv:1905.01067): a weight survives with probability
sigmoid(score). In both, the gradient of a score is that of the surviving weight times the weight,
as if all survived; for supermasks times the slope of the sigmoid.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import models
from lth.experiment.nodes import Training
from lth.training import eager, selection
from lth.training.data import Batch, Part
from lth.training.masks import Mask
from lth.training.precision import autocast
from lth.training.seeds import generator
from lth.training.selection import Pool

OF_SCORE = "score of "
"""Prefix of the names of scores in a checkpoint."""


class Scored:
    """A network with fixed weights, and the optimiser of their scores.

    Between two steps, the model holds the weights under the present mask: the best scores
    (edge-popup), or all that survive with a probability of at least 1/2 (supermasks).

    Args:
        training: its update, seed, optimiser and precision.
        counts: survivors of each pool (edge-popup).
    """

    backend = "eager"

    def __init__(
        self,
        training: Training,
        counts: Mapping[Pool, int],
        model: nn.Module,
        weights: Mapping[str, Tensor],
        mask: Mask,
    ) -> None:
        assert training.update is not None
        self._samples, self._counts, self._all = training.update.kind == "supermask", counts, mask
        self._model, self._precision = model, training.recipe.training.precision
        models.load(model, weights)
        self._parameters = {name: model.get_parameter(name) for name in mask}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in mask)
        self._weights = {n: p.detach().clone() for n, p in self._parameters.items()}
        self._scores = self._first_scores(training.seed)
        self.optimizer = self._optimizer(training)
        self._show()

    def _optimizer(self, training: Training) -> torch.optim.Optimizer:
        recipe, update = training.recipe.optimizer, training.update
        if update and update.lr:
            recipe = replace(recipe, options=recipe.options | {"lr": update.lr})
        made: torch.optim.Optimizer = recipe(self._scores.values())
        return made

    def _first_scores(self, seed: int) -> dict[str, nn.Parameter]:
        """Return scores as torch initialises weights, as in the code of Ramanujan et al.; 0 for
        supermasks, so that each weight survives with probability 1/2."""
        random, scores = generator(seed, "scores"), {}
        for name, weight in self._weights.items():
            bound = 0.0 if self._samples else weight[0].numel() ** -0.5
            drawn = (2 * torch.rand(weight.shape, generator=random) - 1) * bound
            scores[name] = nn.Parameter(torch.empty_like(weight).copy_(drawn))
        return scores

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser of the scores; return the loss before it."""
        if self._samples:
            chances = {name: score.detach().sigmoid() for name, score in self._scores.items()}
            self._put({name: torch.bernoulli(chance).bool() for name, chance in chances.items()})
        inputs, labels = batch.examples()
        with autocast(self._precision, inputs.device):
            outputs = self._model(inputs)
        loss = cross_entropy(outputs.float(), labels)
        gradients = torch.autograd.grad(loss, list(self._parameters.values()))
        for (name, score), gradient in zip(self._scores.items(), gradients, strict=True):
            score.grad = gradient * self._weights[name]
            if self._samples:
                score.grad *= chances[name] * (1 - chances[name])
        self.optimizer.step()
        self._show()
        return loss.detach()

    def _show(self) -> None:
        """Put the weights under the present mask into the model."""
        self.mask = self._likely() if self._samples else self._best()
        self._put(self.mask)

    def _likely(self) -> Mask:
        return {name: (score >= 0).cpu() for name, score in self._scores.items()}

    def _best(self) -> Mask:
        scores = {name: score.detach().cpu() for name, score in self._scores.items()}
        return selection.keep(scores, self._all, self._counts)

    @torch.no_grad()
    def _put(self, mask: Mask) -> None:
        for name, parameter in self._parameters.items():
            kept = mask[name].to(parameter.device)
            parameter.copy_(self._weights[name].masked_fill(~kept, 0.0))

    def evaluate(self, part: Part) -> tuple[float, float]:
        return eager.evaluate(self._model, part, self._precision)

    def state(self) -> dict[str, Tensor]:
        return models.state(self._model)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put these weights into the model, until the next step."""
        models.load(self._model, state)

    copied = state

    def saved(self) -> dict[str, Tensor]:
        """Return the state and the scores."""
        scores = {f"{OF_SCORE}{n}": s.detach().cpu().clone() for n, s in self._scores.items()}
        return self.state() | scores

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `saved` has returned."""
        self.load({n: value for n, value in saved.items() if not n.startswith(OF_SCORE)})
        for name, score in self._scores.items():
            score.copy_(saved[f"{OF_SCORE}{name}"])
        self._show()

    def layout(self) -> list[int]:
        return [score.numel() for score in self._scores.values()]
