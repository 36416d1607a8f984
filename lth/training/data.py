"""Examples as tensors on the device: split, preprocessing, order of batches, augmentation.

Where they come from is `lth.datasets`; what happens to them is here and the same for all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lth.errors import LotteryError
from lth.training.seeds import generator

Preprocessing = Literal["standardize", "unit", "raw"]
Split = Literal["stratified", "random"]


class Examples(NamedTuple):
    """`inputs` (n, channels, height, width) and `labels` (n,) int64 in [0, classes)."""

    inputs: Tensor
    labels: Tensor


class Source(NamedTuple):
    """What a loader returns: whole numbers in [0, `maximum`]; `test` None: none of its own."""

    train: Examples
    test: Examples | None
    maximum: int


@dataclass(frozen=True)
class Part:
    """Some examples on a device, as they were stored (a quarter of the memory), and preprocessed to
    float32 when they are asked for."""

    stored: Examples
    scale: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels(self) -> Tensor:
        return self.stored.labels

    def at(self, indices: Tensor) -> Examples:
        """Those with these indices, in their order."""
        inputs, labels = (tensor.index_select(0, indices) for tensor in self.stored)
        return Examples(self.scale(inputs), labels)

    def blocks(self, size: int) -> Iterator["Batch"]:
        """All of them, so many at a time."""
        every = torch.arange(len(self), device=self.labels.device)
        return (Batch(self, indices) for indices in every.split(size))

    @cached_property
    def table(self) -> Tensor:
        """What each byte becomes, (channels, 256), for inputs that are stored as bytes."""
        channels = self.stored.inputs.shape[1]
        every = torch.arange(256, dtype=torch.uint8, device=self.labels.device)
        scaled = self.scale(every.view(-1, 1, 1, 1).expand(-1, channels, 1, 1))
        return scaled.flatten(1).t().contiguous()


@dataclass(frozen=True)
class Batch:
    """Some examples of a part, by index, and how their inputs are to be augmented."""

    part: Part
    indices: Tensor
    augment: Callable[[Tensor], Tensor] | None = None

    @property
    def labels(self) -> Tensor:
        return self.part.labels.index_select(0, self.indices)

    def examples(self) -> Examples:
        """As a network sees them."""
        inputs, labels = self.part.at(self.indices)
        return Examples(self.augment(inputs) if self.augment else inputs, labels)


@dataclass(frozen=True)
class Data:
    """The three parts, on one device.

    `mean`, `std`: per channel, of the training part divided by the source's maximum.
    `indices`: where the parts lie in the source's training examples.
    """

    train: Part
    validation: Part
    test: Part
    mean: list[float]
    std: list[float]
    indices: dict[str, Tensor]


def prepare(
    source: Source,
    *,
    test: int,
    validation: int,
    split: Split,
    split_seed: int,
    preprocessing: Preprocessing,
    device: torch.device,
) -> Data:
    """Set `test` and `validation` examples aside (test: 0 where the source has its own), scale.

    The statistics of `standardize` come from the training part alone. Raises LotteryError when
    nothing would be left to train on, or a test set is missing or there twice.
    """
    if (source.test is None) == (test == 0):
        mend = "no test set of its own: set one aside with dataset.test=NUMBER"
        mend = mend if test == 0 else "its own test set: set dataset.test=0"
        raise LotteryError(f"dataset.test={test}: this dataset has {mend}.")
    labels = source.train.labels
    if test + validation >= len(labels):
        raise LotteryError(f"dataset.test={test} and dataset.validation={validation} leave nothing "
                           f"to train on: there are {len(labels):,} examples.")  # fmt: skip
    order = _interleaved(labels, split, generator(split_seed, "split"))
    parts = {"test": order[:test], "validation": order[test:][:validation]}
    indices = {**parts, "train": order[test + validation :]}
    indices = {name: part.sort().values for name, part in indices.items()}
    mean, std = _statistics(source.train.inputs[indices["train"]], source.maximum)

    scale = _scaling(source.maximum, mean, std, preprocessing, device)

    def part(stored: Examples) -> Part:
        return Part(Examples(*(tensor.to(device) for tensor in stored)), scale)

    def picked(name: str) -> Part:
        return part(Examples(*(tensor[indices[name]] for tensor in source.train)))

    tested = picked("test") if source.test is None else part(source.test)
    return Data(picked("train"), picked("validation"), tested, mean, std, indices)


def _interleaved(labels: Tensor, split: Split, random: torch.Generator) -> Tensor:
    """A random order of all examples; stratified: any stretch of it holds its share of each class.

    The i-th of a class of n goes to position (i + u) / n of the whole, u uniform in [0, 1).
    """
    order = torch.randperm(len(labels), generator=random)
    if split == "random":
        return order
    position = torch.rand(len(labels), dtype=torch.float64, generator=random)
    for label in labels.unique():
        members = (labels[order] == label).nonzero().squeeze(1)
        position[members] = (torch.arange(len(members)) + position[members]) / len(members)
    return order[position.argsort(stable=True)]


def _statistics(inputs: Tensor, maximum: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, from whole-number sums: the same on any machine."""
    values = inputs.transpose(0, 1).flatten(1)
    histogram = torch.stack([_histogram(channel, maximum) for channel in values])
    share = histogram.double() / values.shape[1]
    level = torch.arange(maximum + 1, dtype=torch.float64) / maximum
    mean = (share * level).sum(1)
    variance = (share * (level - mean.unsqueeze(1)) ** 2).sum(1)
    return mean.tolist(), variance.sqrt().tolist()


def _histogram(values: Tensor, maximum: int) -> Tensor:
    """How often each of 0 to `maximum` occurs; in pieces, as counting takes eight bytes a value."""
    pieces = values.split(2**20)
    return torch.stack([torch.bincount(piece, minlength=maximum + 1) for piece in pieces]).sum(0)


def _scaling(
    maximum: int,
    mean: list[float],
    std: list[float],
    preprocessing: Preprocessing,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    """From inputs as stored to what a network sees."""
    channel = (1, -1, 1, 1)
    shift, width = (torch.tensor(v).view(channel).to(device) for v in (mean, std))

    def standardized(inputs: Tensor) -> Tensor:
        return unit(inputs).sub_(shift).div_(width)

    def unit(inputs: Tensor) -> Tensor:
        return inputs.float().div_(maximum)

    return {"standardize": standardized, "unit": unit, "raw": Tensor.float}[preprocessing]


class BatchOrder:
    """Which examples form the batch of each iteration: a new permutation every epoch, whole batches
    only (an epoch is `examples // batch_size` iterations, as in the paper's 160 x 703 of VGG-19).

    A pure function of (seed, iteration): a resumed training goes on where it stopped.
    """

    def __init__(self, seed: int, examples: int, batch_size: int, device: torch.device) -> None:
        if batch_size > examples:
            raise LotteryError(f"training.batch_size={batch_size} is more than the "
                               f"{examples:,} training examples.")  # fmt: skip
        self._permutation: Callable[[int], Tensor] = lambda epoch: torch.randperm(
            examples, generator=generator(seed, "order", epoch)
        ).to(device)
        self._batch_size = batch_size
        self._per_epoch = examples // batch_size
        self._epoch = -1

    def batch(self, iteration: int) -> Tensor:
        """Indices (batch_size,) of the batch of `iteration`, counted from 0."""
        epoch, position = divmod(iteration, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        return self._order.narrow(0, position * self._batch_size, self._batch_size)


def augment(inputs: Tensor, *, flip: bool, crop: int, random: torch.Generator) -> Tensor:
    """Training inputs (n, channels, height, width), each mirrored left to right with probability
    1/2, and cut out at a random place after padding by `crop` zeros on every side (He et al. 2016:
    after standardising, the mean). `random`: a CPU generator; all work is on the inputs' device.
    """
    count, _, height, width = inputs.shape
    down, right = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=random)
    mirrored = torch.rand((count, 1), generator=random) < (0.5 if flip else 0.0)
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(mirrored, columns.flip(1), columns) + right
    rows = torch.arange(height) + down
    picture = torch.arange(count).view(-1, 1, 1)
    where = (t.to(inputs.device) for t in (picture, rows.unsqueeze(2), columns.unsqueeze(1)))
    image, row, column = where
    padded = pad(inputs, (crop,) * 4)
    return padded.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2).contiguous()
