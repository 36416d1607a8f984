"""Steps and evaluations by torch's autograd: any module, any optimiser, any device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import models
from lth.experiment.settings import Optimizer, Precision
from lth.training.data import Batch, Part
from lth.training.masks import Mask
from lth.training.precision import autocast
from lth.training.pruned import PrunedWeights, start_state

EVALUATION_BATCH, ON_GPU = 100, 2000
"""Examples per block. On a CPU, larger blocks of images do not fit into the cache. The size affects
the last bits of a loss: other sizes sum in another order."""


class Eager:
    """A model under a mask, and its optimiser."""

    backend = "eager"

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        mask: Mask,
        optimizer: Optimizer,
        *,
        pruned: str,
        precision: Precision = "float32",
    ) -> None:
        self._model, self._precision = model, precision
        self.load(start_state(weights, mask, pruned=pruned))
        self.optimizer: torch.optim.Optimizer = optimizer(model.parameters())
        parameters = dict(model.named_parameters())
        self._pruned = PrunedWeights(parameters, mask, optimizer, pruned=pruned)

    def step(self, batch: Batch) -> Tensor:
        """Take one step of the optimiser; return the loss before it."""
        return self._step(*batch.examples())

    def _step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with autocast(self._precision, inputs.device):
            outputs = self._model(inputs)
        loss = cross_entropy(outputs.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self._pruned.mask_gradients()
        self.optimizer.step()
        self._pruned.restore()
        return loss.detach()

    def evaluate(self, part: Part) -> tuple[float, float]:
        return evaluate(self._model, part, self._precision)

    def state(self) -> dict[str, Tensor]:
        return models.state(self._model)

    def load(self, state: Mapping[str, Tensor]) -> None:
        models.load(self._model, state)

    def copied(self) -> dict[str, Tensor]:
        return models.copied(self._model)

    saved, restore = state, load

    def layout(self) -> list[int]:
        return [parameter.numel() for parameter in self._model.parameters()]

    def moments(self) -> dict[str, dict[str, Any]]:
        """Return the optimiser's state of each parameter, by name."""
        state = self.optimizer.state
        return {n: dict(state[p]) for n, p in self._model.named_parameters() if p in state}

    def load_moments(self, moments: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the optimiser's state of each parameter."""
        parameters = dict(self._model.named_parameters())
        self.optimizer.state.update({parameters[n]: dict(of) for n, of in moments.items()})


@torch.no_grad()
def evaluate(model: nn.Module, part: Part, precision: Precision = "float32") -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy in [0, 1] over all examples, in evaluation
    mode. The model is left in training mode."""
    device = part.labels.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    model.eval()
    with autocast(precision, device):
        for block in part.blocks(EVALUATION_BATCH if device.type == "cpu" else ON_GPU):
            inputs, labels = block.examples()
            outputs = model(inputs).float()
            loss += cross_entropy(outputs, labels, reduction="sum")
            correct += (outputs.argmax(1) == labels).sum()
    model.train()
    return float(loss) / len(part), int(correct) / len(part)
