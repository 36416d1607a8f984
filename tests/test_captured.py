"""Steps recorded as CUDA graphs, against the same steps by autograd; most tests need a GPU."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lth.errors import Interrupted
from lth.experiment.settings import LastBatch
from lth.models import Conv, ResNet, channels_last, fresh, prunable, state
from lth.training.augmentation import Augmentation
from lth.training.captured import Captured, Recorded, can_be_recorded, fits, own_copy
from lth.training.data import Batch, Data, Examples, Part
from lth.training.loop import Progress, train
from lth.training.masks import Mask
from lth.training.networks import Task
from lth.training.seeds import generator
from tests.trainings import assert_equal, recipe, task_of, trained

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def part(count: int) -> Part:
    random = generator(count, "inputs")
    inputs = torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8, generator=random)
    labels = torch.randint(4, (count,), generator=random)
    placed = inputs.to(DEVICE, memory_format=torch.channels_last)
    return Part(Examples(placed, labels.to(DEVICE)), lambda x: x.float().div_(255))


def networks() -> dict[str, nn.Module]:
    def conv(dropout: float) -> nn.Module:
        return Conv((3, 16, 16), 4, channels=[8], widths=[16], dropout=dropout)

    built = {"conv": lambda: conv(0), "dropout": lambda: conv(0.5),
             "resnet": lambda: ResNet((3, 16, 16), 4, 8)}  # fmt: skip
    return {name: fresh(build, generator(0, "init")) for name, build in built.items()}


def mask_of(model: nn.Module, seed: int) -> Mask:
    random = generator(seed, "mask")
    return {n: torch.rand(model.get_parameter(n).shape, generator=random) < 0.4
            for n in prunable(model)}  # fmt: skip


def task(
    kind: str, optimizer: str, seed: int, *, saved: bytes | None = None, last: LastBatch = "drop"
) -> Task:
    """Return a training of 40 iterations whose learning rate changes."""
    model = networks()[kind]
    weights, mask = state(model), mask_of(model, seed)
    data = Data(part(125), part(60), part(50), [], [], {})
    of = recipe(optimizer, iterations=40)
    options = {**of.optimizer.options, "fused": True}
    schedule = dataclasses.replace(of.optimizer.schedule, kind="cosine", warmup=5)
    of = dataclasses.replace(
        of, optimizer=dataclasses.replace(of.optimizer, options=options, schedule=schedule),
        training=dataclasses.replace(of.training, last_batch=last),
        dataset=dataclasses.replace(of.dataset, flip=True, crop=1),
    )  # fmt: skip
    made = task_of(of, weights=weights, mask=mask, seed=seed, checkpoint=saved, data=data)
    return dataclasses.replace(made, model=channels_last(model.cuda()))


def assert_same(ours: Progress, theirs: Progress) -> None:
    assert_equal(ours.network.state(), theirs.network.state())
    early = ({name: kept.cpu() for name, kept in of.early.items()} for of in (ours, theirs))
    assert_equal(*early)
    assert repr(ours.curve) == repr(theirs.curve)


CASES = pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("conv", "adam"), ("conv", "momentum"), ("dropout", "adam"), ("resnet", "momentum")],
)


OPTIMIZER = recipe("adam").optimizer


@pytest.mark.parametrize("kind", ["conv", "dropout", "resnet"])
def test_steps_of_common_networks_can_be_recorded(kind: str) -> None:
    assert can_be_recorded(networks()[kind], OPTIMIZER)
    assert not fits(networks()[kind], OPTIMIZER)  # it is on the CPU


class Reading(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * float(inputs.mean())


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    return network


@pytest.mark.parametrize(
    "network",
    [tied(), Reading(4, 4), nn.BatchNorm2d(3, momentum=None), nn.FractionalMaxPool2d(2, 1)],
    ids=["tied", "reading", "cumulative", "drawing"],
)
def test_steps_of_surprising_networks_are_not_recorded(network: nn.Module) -> None:
    assert not can_be_recorded(nn.Sequential(nn.Linear(4, 4), network), OPTIMIZER)


def test_steps_of_optimisers_that_are_not_fused_or_not_torchs_are_not_recorded() -> None:
    for changed in ({"options": {"lr": 0.1}}, {"name": "mine.Optimizer"}):
        assert not can_be_recorded(networks()["conv"], dataclasses.replace(OPTIMIZER, **changed))


class Counted:
    """Stands for a graph."""

    replays = 0

    def replay(self) -> None:
        self.replays += 1


def test_a_recorded_step_reads_the_batch_that_it_is_replayed_with() -> None:
    of = part(10)
    batches = [
        Batch(
            of,
            torch.tensor(indices, device=DEVICE),
            Augmentation.draw(3, flip=True, crop=2, random=generator(indices[0], "augment")),
        )
        for indices in ([3, 1, 9], [4, 9, 2])
    ]
    first, second = (batch.examples() for batch in batches)
    recorded = Recorded(Counted(), own_copy(batches[0]), torch.zeros(()))  # type: ignore[arg-type]
    assert torch.equal(recorded.place.examples().inputs, first.inputs)
    recorded.replay(batches[1])
    assert recorded.graph.replays == 1  # type: ignore[attr-defined]
    assert all(map(torch.equal, recorded.place.examples(), second))
    assert all(map(torch.equal, batches[0].examples(), first))


@gpu
@CASES
def test_recorded_steps_are_near_those_of_autograd(kind: str, optimizer: str) -> None:
    recorded, plain = (trained(task(kind, optimizer, 3), only_eager=o) for o in (False, True))
    assert isinstance(recorded.network, Captured)
    assert not isinstance(plain.network, Captured)
    assert recorded.network._recorded
    for ours, theirs in zip(recorded.curve, plain.curve, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=0.02, nan_ok=True)
    pairs = zip(recorded.network.state().values(), plain.network.state().values(), strict=True)
    assert all(torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3) for ours, theirs in pairs)


@gpu
@CASES
@pytest.mark.parametrize("last", ["drop", "keep"])
def test_networks_side_by_side_end_as_each_does_alone(
    kind: str, optimizer: str, last: LastBatch
) -> None:
    together = train([task(kind, optimizer, seed, last=last) for seed in range(4)])
    for seed, ours in enumerate(together):
        assert_same(ours, trained(task(kind, optimizer, seed, last=last)))


@gpu
@CASES
def test_an_interrupted_training_ends_with_the_same_bytes(kind: str, optimizer: str) -> None:
    def stop_at_23(running: Sequence[Progress]) -> None:
        if running[0].iteration == 23:
            raise Interrupted(*(progress.checkpoint().to_bytes() for progress in running))

    with pytest.raises(Interrupted) as stopped:
        train([task(kind, optimizer, seed) for seed in range(2)], on_step=stop_at_23)
    for seed, saved in enumerate(stopped.value.args):
        resumed = trained(task(kind, optimizer, seed, saved=saved))
        assert_same(resumed, trained(task(kind, optimizer, seed)))


@gpu
def test_pruned_weights_stay_zero() -> None:
    one = task("resnet", "momentum", 0)
    left: dict[str, Tensor] = trained(one).network.state()
    assert all(not left[name][~kept].any() for name, kept in one.mask.items())
