"""The gradient of the training loss at some weights, and how often a network uses each weight."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import models
from lth.training import masks
from lth.training.data import Batch, BatchOrder, Part
from lth.training.masks import Mask

BLOCK = 1000
"""Examples whose gradients are computed at once."""


def gradient_flow(
    model: nn.Module,
    state: Mapping[str, Tensor],
    mask: Mask,
    train: Part,
    *,
    batch_size: int,
    seed: int,
) -> tuple[float, float]:
    """Return the squared norm of the gradient of the mean loss over all examples, and that loss.

    The network is in evaluation mode, without dropout. Batch normalisation uses the statistics of
    batches: those of the first epoch of a training with this seed. Examples that do not fill a
    batch are left out then. Pruned weights are 0 and do not count.
    """
    models.load(model, masks.apply(state, mask))
    if _use_batch_statistics(model.eval()):
        order = BatchOrder(seed, len(train), batch_size, train.labels.device)
        blocks = [Batch(train, order.batch(n)) for n in range(len(train) // batch_size)]
        examples = len(blocks) * batch_size
    else:
        blocks, examples = [*train.blocks(BLOCK)], len(train)
    loss = 0.0
    for block in blocks:
        inputs, labels = block.examples()
        of_block = cross_entropy(model(inputs), labels, reduction="sum") / examples
        of_block.backward()
        loss += float(of_block.detach())
    flow = sum(_squared(p.grad, mask.get(name)) for name, p in model.named_parameters())
    return flow, loss


def _use_batch_statistics(model: nn.Module) -> bool:
    """Let normalisation use the statistics of each batch; return whether there is any that can."""
    layers = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
    for layer in layers:
        layer.train()
    return bool(layers)


def _squared(gradient: Tensor | None, kept: Tensor | None) -> float:
    """Return the squared norm of a gradient, over the weights that survive."""
    if gradient is None:
        return 0.0
    surviving = gradient if kept is None else gradient * kept.to(gradient.device)
    return float(surviving.double().square().sum())


@torch.no_grad()
def uses(model: nn.Module, mask: Mask, shape: Sequence[int]) -> dict[str, int]:
    """Return how often a forward pass of one example uses each weight of a prunable tensor: once
    for each position of the output of its layer. Layers that are not called count 0."""
    found = dict.fromkeys(mask, 0)

    def count(name: str, output: Tensor) -> None:
        channels = len(mask[name])
        found[name] += prod(output.shape[1:]) // channels

    for name, module in model.named_modules():
        if f"{name}.weight" in mask:
            module.register_forward_hook(
                lambda _, __, output, name=name: count(f"{name}.weight", output)
            )
    device = next(model.parameters()).device
    model.eval()(torch.zeros(1, *shape, device=device))
    return found
