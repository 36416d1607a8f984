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
from lth.training.data import Batch, Data, Examples, Part
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
        data: the data of each member, which may be split differently.
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
        data: Sequence[Data] = (),
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
        self._scores: dict[tuple[int, ...], list[tuple[float, float]]] = {}
        self._peers = _peers(data)
        self.members = [Member(self, index) for index in range(len(starts))]

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Take one step of every member with its own batch; return their losses before it."""
        inputs, labels = _stacked(batches)
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

    def loss_and_accuracy(self, part: Part) -> list[tuple[float, float]]:
        """Return mean cross-entropy and accuracy of every member, on its own part where the members
        have different ones; evaluated once for all."""
        parts = self._peers.get(id(part), (part,))
        key = tuple(map(id, parts))
        if key not in self._scores:
            self._scores[key] = self._evaluate(parts)
        return self._scores[key]

    @torch.no_grad()
    def _evaluate(self, parts: Sequence[Part]) -> list[tuple[float, float]]:
        """Evaluate every member, all on one part or each on its own."""
        device, examples = parts[0].labels.device, len(parts[0])
        loss = torch.zeros(len(self.members), dtype=torch.float64, device=device)
        correct = torch.zeros_like(loss)
        self._model.eval()
        for blocks in zip(*(part.blocks(ON_GPU) for part in parts), strict=True):
            inputs, labels = _stacked(blocks)
            shared = len(parts) == 1
            where, given = (None, inputs[0]) if shared else (0, inputs)
            outputs = vmap(self._outputs, (0, 0, where))(self._parameters, self._buffers, given)
            labels = labels.expand(len(outputs), -1)
            loss += self._losses(outputs, labels) * labels.shape[1]
            correct += (outputs.argmax(2) == labels).sum(1)
        self._model.train()
        means = (loss / examples).tolist(), (correct / examples).tolist()
        return list(zip(*means, strict=True))

    def slots(self, member: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the name of each parameter and buffer of a member, and its slice of the stacks."""
        for name, stack in {**self._parameters, **self._buffers}.items():
            yield name, stack.detach()[member]

    def changed(self) -> None:
        """Forget cached evaluations; call it after writing to the stacks."""
        self._scores.clear()


def _stacked(batches: Sequence[Batch]) -> Examples:
    """Return the examples of some batches of one size, with an axis of the batches in front."""
    inputs, labels = zip(*(batch.examples() for batch in batches), strict=True)
    return Examples(torch.stack(inputs), torch.stack(labels))


def _peers(data: Sequence[Data]) -> dict[int, tuple[Part, ...]]:
    """Return, for each part of each member (by its id), the parts of the same kind of all members;
    nothing where all of them share one."""
    kinds = zip(*((of.train, of.validation, of.test) for of in data), strict=True)
    return {id(part): parts for parts in kinds if len({*map(id, parts)}) > 1 for part in parts}


class Member:
    """One network of a pack, with the interface of a single network."""

    backend = "member"

    def __init__(self, pack: Pack, index: int) -> None:
        self._pack, self._index = pack, index
        self.optimizer: Any = MemberOptimizer(pack.optimizer, index)

    def evaluate(self, part: Part) -> tuple[float, float]:
        return self._pack.loss_and_accuracy(part)[self._index]

    def state(self) -> dict[str, Tensor]:
        return {name: place.cpu().clone() for name, place in self._pack.slots(self._index)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, place in self._pack.slots(self._index):
            place.copy_(state[name])
        self._pack.changed()

    saved, restore = state, load

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
