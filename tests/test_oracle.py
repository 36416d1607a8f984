"""The losses of a lottery on real digits, against a loop that shares no code with lth but the
initial weights and the indices of batches. Against sparse steps it also takes the masks of lth."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.training.data import BatchOrder
from tests.conftest import Composer, engine_on

STEPS, RATE, BATCH = 300, 1.2e-3, 60


def oracle(weights: list[Tensor], masks: list[Tensor], batches: list[Any]) -> list[float]:
    """Train an MLP with Adam. Return the loss of each step; `weights` become the final ones."""
    for layer, mask in enumerate(masks):
        weights[2 * layer] *= mask
    optimizer = torch.optim.Adam([w.requires_grad_() for w in weights], lr=RATE, fused=True)
    losses = []
    for values, labels in batches:
        for layer in range(0, len(weights), 2):
            values = linear(values, weights[layer], weights[layer + 1])
            values = values.relu() if layer < len(weights) - 2 else values
        loss = cross_entropy(values, labels)
        optimizer.zero_grad()
        loss.backward()
        for layer, mask in enumerate(masks):
            weights[2 * layer].grad.mul_(mask)  # type: ignore[union-attr]
        optimizer.step()
        losses.append(loss.item())
    return losses


def pruned(weights: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    """Remove the smallest 20 % of what is left of each layer, 10 % of the output layer."""
    found = []
    for layer, (weight, mask) in enumerate(zip(weights[::2], masks, strict=True)):
        share = 0.1 if layer == len(masks) - 1 else 0.2
        removed = int(mask.sum() * share + 0.5)
        order = torch.where(mask.bool(), weight.detach().abs(), torch.inf).flatten().argsort()
        kept = mask.flatten().clone()
        kept[order[:removed]] = 0
        found.append(kept.view_as(mask))
    return found


def batches_of(training: Training, indices: Tensor) -> list[Any]:
    """Return the batches of a training, from scikit-learn's digits. `indices`: of its examples."""
    loaded = load_digits()
    inputs = torch.tensor(loaded.data).float()[indices] / 16
    labels = torch.tensor(loaded.target).long()[indices]
    order = BatchOrder(training.seed, len(labels), BATCH, torch.device("cpu"))
    return [(inputs[i], labels[i]) for i in map(order.batch, range(STEPS))]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "last", "tolerance"), [("eager", 3, 1e-5), ("auto", 8, 2e-3)])
def test_every_loss_is_that_of_a_plain_loop(
    composed: Composer, tmp_path: Path, backend: str, last: int, tolerance: float
) -> None:
    """With `auto`, the last level has 17.3 % of the weights, and is trained by sparse steps."""
    words = (
        "seed=3", "dataset.preprocessing=unit", f"training.iterations={STEPS}",
        "training.evaluate_every=1", f"training.batch_size={BATCH}", f"optimizer.lr={RATE}",
        f"pruning.levels={last}",
    )  # fmt: skip
    engine = engine_on(tmp_path / "store", backend=backend)
    build = engine.maker.build
    levels, reinits = (
        [t for _, t in lottery.levels(composed(*words, f"rewind={kind}"))]
        for kind in ("init", "reinit")
    )
    results = dict(engine.ensure([*levels, reinits[-1]]))
    indices = build.data(levels[0].recipe).indices["train"]
    masks = [torch.ones(300, 64), torch.ones(100, 300), torch.ones(10, 100)]
    weights: list[Tensor] = []
    for training in (*levels, reinits[-1]):
        if backend == "auto":  # rounding may change which of two equal weights is removed
            masks = [of.float() for of in build.stored_mask(training).values()]
        elif training in levels[1:]:
            masks = pruned(weights, masks)
        start = build.weights(training.weights, training.recipe.network)
        weights = [value.clone() for value in start.values()]
        losses = oracle(weights, masks, batches_of(training, indices))
        found = [point.train_loss for point in results[training].curve[1:]]
        assert found == pytest.approx(losses, abs=tolerance), training
