"""Keep pruned weights at 0, or frozen, during training."""

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from lth.experiment.builtins import ELEMENTWISE
from lth.experiment.settings import Optimizer
from lth.training import masks


def start_state(
    weights: Mapping[str, Tensor], mask: masks.Mask, *, pruned: str
) -> Mapping[str, Tensor]:
    """Return the state that a training starts from: pruned weights are 0 or, with
    `pruned="frozen"`, unchanged."""
    return weights if pruned == "frozen" else masks.apply(weights, mask)


class PrunedWeights:
    """The pruned weights of a network.

    Pruned weights start at 0 and their gradients are multiplied by the mask, so that no
    elementwise optimiser moves them. Weights are pruned by mask, never by value: a surviving weight
    may be 0. They are reset to their starting values after every step in two cases: with
    `pruned="frozen"`, because weight decay would move them, and with any other optimiser, which may
    mix entries (Muon, Shampoo) or add noise.

    Args:
        parameters: by name.
        mask: bool tensors of the same shapes for prunable parameters, True = kept.
        optimizer: the optimiser that will move them.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        mask: Mapping[str, Tensor],
        optimizer: Optimizer,
        *,
        pruned: str,
    ) -> None:
        self._masked = [
            (parameters[name], torch.empty_like(parameters[name]).copy_(kept))
            for name, kept in mask.items()
            if not kept.all()
        ]
        may_move = pruned == "frozen" or optimizer.name not in ELEMENTWISE
        self._reset = [
            (parameter, ~kept.bool(), parameter.detach().clone())
            for parameter, kept in self._masked
            if may_move
        ]

    def mask_gradients(self) -> None:
        """Set the gradients of pruned weights to 0; call it between `backward` and `step`."""
        for parameter, kept in self._masked:
            if parameter.grad is not None:
                parameter.grad.mul_(kept)

    @torch.no_grad()
    def restore(self) -> None:
        """Reset what the step may have moved; call it after `step`."""
        for parameter, pruned, value in self._reset:
            parameter.copy_(torch.where(pruned, value, parameter))


class Hold:
    """Keeps the pruned weights of a parameter at their present values under any optimiser of torch,
    in training loops of other people. It ends with the parameter, or with the next Hold on it.

    A hook on all optimisers resets the pruned weights. Their gradients are masked as well, so that
    survivors move as in `PrunedWeights` under optimisers that mix entries or clip gradients.
    """

    def __init__(self, parameter: nn.Parameter, kept: Tensor) -> None:
        self._parameter = TensorWeakRef(parameter)  # else the hook would keep the network alive
        self._kept, self._value = kept, parameter.detach().clone()
        self._handles = [register_optimizer_step_post_hook(self._restore)]
        if parameter.requires_grad:
            self._handles.append(parameter.register_hook(self._mask))
        if parameter in _HOLDS:
            _HOLDS[parameter].release()
        _HOLDS[parameter] = self
        weakref.finalize(parameter, self.release)

    def release(self) -> None:
        """Let optimisers move the pruned weights."""
        for handle in self._handles:
            handle.remove()

    def _mask(self, gradient: Tensor) -> Tensor:
        return gradient * self._kept.to(gradient.device)

    @torch.no_grad()
    def _restore(self, *_: object) -> None:
        parameter = self._parameter()
        if parameter is not None:
            self._kept, self._value = self._kept.to(parameter.device), self._value.to(parameter)
            parameter.copy_(torch.where(self._kept, parameter, self._value))


_HOLDS = WeakTensorKeyDictionary()
"""Parameter -> the Hold on it."""
