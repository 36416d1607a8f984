"""Muon itself, which mixes the entries of a matrix, under masks."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load
from torch import nn

from lth.experiment import lottery
from lth.training.eager import evaluate
from tests.conftest import OWN_MODEL, Composer, engine_on

MUON = (
    "model._target_=tests.test_muon.Matrices", *OWN_MODEL, "optimizer=own",
    "optimizer._target_=torch.optim.Muon", "optimizer.lr=0.02", "pruning.rate=50",
    "pruning.levels=3",
)  # fmt: skip


class Matrices(nn.Sequential):
    """A network without biases: Muon accepts matrices alone."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        channels, height, width = shape
        super().__init__(
            nn.Flatten(),
            nn.Linear(channels * height * width, 12, bias=False),
            nn.ReLU(),
            nn.Linear(12, classes, bias=False),
        )


def test_stored_weights_give_the_last_point_of_the_curve(
    composed: Composer, tmp_path: Path
) -> None:
    spec = composed(
        *MUON, "training.iterations=12", "training.evaluate_every=5", "training.batch_size=20"
    )
    engine = engine_on(tmp_path / "store")
    build = engine.maker.build
    for level, training in lottery.levels(spec):
        ((_, outcome),) = engine.ensure([training])
        final = load(engine.store.read(training, "final.safetensors"))
        model = build.model(training)
        model.load_state_dict(final)
        data = build.data(training.recipe)
        assert evaluate(model, data.validation) == outcome.curve[-1][3:5]
        assert evaluate(model, data.test) == outcome.curve[-1][5:7]
        start = build.weights(training.weights, training.recipe.network)
        assert all((final[name] != start[name]).any() for name in start)
        kept = sum(int(of_tensor.sum()) for of_tensor in build.stored_mask(training).values())
        assert kept == sum(int(tensor.count_nonzero()) for tensor in final.values()), level
