"""Several networks with the same recipe, trained together: their weights are stacked, and each
operation applies to all of them. For GPUs, of which one small network uses only a fraction.

Each member takes the steps that `lth.training.eager` would take with it alone, up to rounding. It
has its own weights, mask, batches and optimiser state, and can continue alone from its checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy
from torch.nn.modules.dropout import _DropoutNd

from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer, Precision
from lth.training.data import Batch, Part
from lth.training.eager import ON_GPU
from lth.training.masks import Mask
from lth.training.plain import is_known, is_plain
from lth.training.precision import autocast
from lth.training.pruned import PrunedWeights, start_state


def fits(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether such networks can be packed: their modules draw no random numbers and share no
    tensors, and their optimiser is elementwise."""
    own = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return (
        optimizer.name in ELEMENTWISE
        and own == model.state_dict().keys()
        and is_plain(model)
        and is_known(model)
        and not any(isinstance(module, _DropoutNd | nn.RReLU) for module in model.modules())
    )


class Pack:
    """Stacks of the weights of some networks, and their optimiser.

    Args:
        model: any one of the networks, on the device; its weights are not used.
        weights: starting state of each member, on the CPU.
        under: mask of each member, on the CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Sequence[Mapping[str, Tensor]],
        under: Sequence[Mask],
        optimizer: Optimizer,
        *,
        pruned: str,
        precision: Precision = "float32",
    ) -> None:
        self._precision = precision
        device = next(model.parameters()).device
        pairs = zip(weights, under, strict=True)
        starts = [start_state(state, mask, pruned=pruned) for state, mask in pairs]
        stacks = {n: torch.stack([s[n] for s in starts]).to(device) for n in starts[0]}
        names = [name for name, _ in model.named_parameters()]
        self._model = model
        self._parameters = {name: nn.Parameter(stacks[name]) for name in names}
        self._buffers = {name: stacks[name] for name, _ in model.named_buffers()}
        self.optimizer: torch.optim.Optimizer = optimizer(list(self._parameters.values()))
        kept = {name: torch.stack([mask[name] for mask in under]) for name in under[0]}
        self._pruned = PrunedWeights(self._parameters, kept, optimizer, pruned=pruned)
        self._scores: dict[int, list[tuple[float, float]]] = {}
        self.members = [Member(self, index) for index in range(len(starts))]

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Take one step of every member with its own batch; return their losses before it."""
        inputs, labels = map(
            torch.stack, zip(*(batch.examples() for batch in batches), strict=True)
        )
        losses = self._losses(vmap(self._outputs)(self._parameters, self._buffers, inputs), labels)
        self.optimizer.zero_grad()
        losses.sum().backward()
        self._pruned.mask_gradients()
        self.optimizer.step()
        self._pruned.restore()
        self._scores.clear()
        return losses.detach()

    def _outputs(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor
    ) -> Tensor:
        with autocast(self._precision, inputs.device):
            outputs: Tensor = functional_call(self._model, {**parameters, **buffers}, (inputs,))
        return outputs.float()

    @staticmethod
    def _losses(outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of each member: (members, batch, classes) to (members,)."""
        losses = cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(1)

    def scores(self, part: Part) -> list[tuple[float, float]]:
        """Return mean cross-entropy and accuracy of every member; evaluated once for all."""
        if id(part) not in self._scores:
            self._scores[id(part)] = self._evaluate(part)
        return self._scores[id(part)]

    @torch.no_grad()
    def _evaluate(self, part: Part) -> list[tuple[float, float]]:
        loss = torch.zeros(len(self.members), dtype=torch.float64, device=part.labels.device)
        correct = torch.zeros_like(loss)
        self._model.eval()
        for block in part.blocks(ON_GPU):
            inputs, labels = block.examples()
            outputs = vmap(self._outputs, (0, 0, None))(self._parameters, self._buffers, inputs)
            loss += self._losses(outputs, labels.expand(len(outputs), -1)) * len(labels)
            correct += (outputs.argmax(2) == labels).sum(1)
        self._model.train()
        means = (loss / len(part)).tolist(), (correct / len(part)).tolist()
        return list(zip(*means, strict=True))

    def slots(self, member: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the name of each parameter and buffer of a member, and its slice of the stacks."""
        for name, stack in {**self._parameters, **self._buffers}.items():
            yield name, stack.detach()[member]

    def changed(self) -> None:
        """Forget cached evaluations; call it after writing to the stacks."""
        self._scores.clear()


class Member:
    """One network of a pack, with the interface of a single network."""

    backend = "member"

    def __init__(self, pack: Pack, index: int) -> None:
        self._pack, self._index = pack, index
        self.optimizer: Any = MemberOptimizer(pack.optimizer, index)

    def evaluate(self, part: Part) -> tuple[float, float]:
        return self._pack.scores(part)[self._index]

    def state(self) -> dict[str, Tensor]:
        return {name: place.cpu().clone() for name, place in self._pack.slots(self._index)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, place in self._pack.slots(self._index):
            place.copy_(state[name])
        self._pack.changed()

    def layout(self) -> list[int]:
        (group,) = self.optimizer.param_groups
        return [stack[self._index].numel() for stack in group["params"]]


class MemberOptimizer:
    """The optimiser state of one member, with the interface of an optimiser."""

    def __init__(self, whole: torch.optim.Optimizer, index: int) -> None:
        self._whole, self._index = whole, index

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._whole.param_groups

    def state_dict(self) -> dict[str, Any]:
        state = {
            place: {k: v[self._index] if v.dim() else v for k, v in of_parameter.items()}
            for place, of_parameter in self._whole.state_dict()["state"].items()
        }
        return {"state": state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        (group,) = self._whole.param_groups
        for place, own in saved["state"].items():
            parameter = group["params"][place]
            whole = self._whole.state[parameter]
            for name, value in own.items():
                if value.dim():
                    empty = torch.zeros_like(parameter, requires_grad=False)
                    whole.setdefault(name, empty)[self._index].copy_(value)
                else:  # count of steps; fused optimisers need it on the device of the weights
                    whole[name] = value.to(parameter.device if group.get("fused") else "cpu")
