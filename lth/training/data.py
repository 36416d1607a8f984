"""Examples as tensors on the device: split, preprocessing, and order of batches.

`lth.datasets` loads them; everything here is the same for all datasets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lth.errors import LotteryError
from lth.experiment.schedule import batches_per_epoch
from lth.experiment.settings import LastBatch, Preprocessing, Subset
from lth.training.augmentation import Augmentation
from lth.training.easiness import errors
from lth.training.seeds import generator

Split = Literal["stratified", "random"]


class Examples(NamedTuple):
    """`inputs` (n, channels, height, width) and `labels` (n,) int64 in [0, classes)."""

    inputs: Tensor
    labels: Tensor


class LoadedData(NamedTuple):
    """The return value of a loader. Inputs are integers in [0, `maximum`]; `test` is None if the
    dataset has no test set."""

    train: Examples
    test: Examples | None
    maximum: int


@dataclass(frozen=True)
class Part:
    """Some examples on a device, stored as the loader returned them (bytes take a quarter of the
    memory of floats); `scale` preprocesses them to float32, batch by batch.

    Inputs are in memory with channels last, the faster layout of convolutions, and batches are
    gathered into it. `by_value`: whether `scale` treats each value by itself, so that bytes can be
    looked up in a table.
    """

    stored: Examples
    scale: Callable[[Tensor], Tensor]
    by_value: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels(self) -> Tensor:
        return self.stored.labels

    def at(self, indices: Tensor) -> Examples:
        """Return the preprocessed examples with these indices (n,), in that order."""
        inputs = self.stored.inputs.permute(0, 2, 3, 1).index_select(0, indices)
        labels = self.stored.labels.index_select(0, indices)
        return Examples(self.scale(inputs.permute(0, 3, 1, 2)), labels)

    def blocks(self, size: int) -> Iterator["Batch"]:
        """Return all examples as batches of `size`; the last one may be smaller."""
        every = torch.arange(len(self), device=self.labels.device)
        return (Batch(self, indices) for indices in every.split(size))

    @property
    def has_table(self) -> bool:
        """Whether `table` has the preprocessed value of every stored one."""
        return self.by_value and self.stored.inputs.dtype == torch.uint8

    @cached_property
    def rows(self) -> Tensor:
        """The stored inputs, one row each: (n, channels * height * width)."""
        return self.stored.inputs.contiguous().flatten(1)

    @cached_property
    def table(self) -> Tensor:
        """The preprocessed value of each byte, (channels, 256), for inputs stored as bytes."""
        channels = self.stored.inputs.shape[1]
        every = torch.arange(256, dtype=torch.uint8, device=self.labels.device)
        scaled = self.scale(every.view(-1, 1, 1, 1).expand(-1, channels, 1, 1))
        return scaled.flatten(1).t().contiguous()


@dataclass(frozen=True)
class Batch:
    """Some examples of a part, by index (n,), with an optional augmentation of their inputs."""

    part: Part
    indices: Tensor
    augment: Augmentation | None = None

    @property
    def labels(self) -> Tensor:
        return self.part.labels.index_select(0, self.indices)

    def examples(self) -> Examples:
        """Return the preprocessed and augmented examples."""
        inputs, labels = self.part.at(self.indices)
        return Examples(self.augment(inputs) if self.augment else inputs, labels)


@dataclass(frozen=True)
class Data:
    """The three parts, on one device.

    `mean`, `std`: one number per channel, of the training part divided by the loader's maximum.
    `indices`: name of a part -> its indices among the loaded training examples.
    """

    train: Part
    validation: Part
    test: Part
    mean: list[float]
    std: list[float]
    indices: dict[str, Tensor]


def prepare(
    loaded: LoadedData,
    *,
    test: int,
    validation: int,
    split: Split,
    split_seed: int,
    preprocessing: Preprocessing,
    device: torch.device,
    train: int | None = None,
    subset: Subset = "random",
) -> Data:
    """Split the loaded training examples, and prepare their preprocessing.

    `test`, `validation`: number of examples set aside; `test` is 0 if the loader gives a test set.
    `train`: number of the others to use, None for all; `subset`: chosen at random, or the first, or
    the easiest (`lth.training.easiness`). A smaller subset is part of a larger one.
    The statistics of `standardize` come from the training part alone. Raises LotteryError if no
    training examples would be left, if a test set is missing, if there would be two, or if a
    channel that is constant would be standardised.
    """
    _check_split(loaded, test, validation)
    order = _interleaved(loaded.train.labels, split, generator(split_seed, "split"))
    rest = order[test + validation :]
    used = _in_order(loaded.train, rest, subset)[:train]
    indices = {"test": order[:test], "validation": order[test:][:validation], "train": used}
    indices = {name: part.sort().values for name, part in indices.items()}
    mean, std = _statistics(loaded.train.inputs[indices["train"]], loaded.maximum)
    if preprocessing == "standardize":
        _check_spread(mean, std, loaded.maximum)
    scale = _scaling(loaded.maximum, mean, std, preprocessing, device)

    def part(stored: Examples) -> Part:
        inputs = stored.inputs.to(device, memory_format=torch.channels_last)
        examples = Examples(inputs, stored.labels.to(device))
        return Part(examples, scale, by_value=preprocessing != "l2")

    def split_off(name: str) -> Part:
        return part(Examples(*(tensor[indices[name]] for tensor in loaded.train)))

    tested = split_off("test") if loaded.test is None else part(loaded.test)
    return Data(split_off("train"), split_off("validation"), tested, mean, std, indices)


def _in_order(examples: Examples, rest: Tensor, subset: Subset) -> Tensor:
    """Return the indices `rest` in the order in which a subset takes them."""
    if subset == "easiest":
        return rest[errors(examples.inputs[rest], examples.labels[rest]).argsort(stable=True)]
    return rest.sort().values if subset == "first" else rest


def _check_split(loaded: LoadedData, test: int, validation: int) -> None:
    if loaded.test is None and test == 0:
        raise LotteryError(
            "dataset.test must be >= 1 for a dataset without a test set of its own, got 0. Set it "
            "to the number of training examples to test on."
        )
    if loaded.test is not None and test:
        raise LotteryError(
            f"dataset.test must be 0 for a dataset with its own test set, got {test}."
        )
    total = len(loaded.train.labels)
    if test + validation >= total:
        raise LotteryError(
            f"dataset.test + dataset.validation must be less than the {total:,} examples, got "
            f"{test} + {validation}: nothing would be left to train on. Set smaller ones."
        )


def _check_spread(mean: list[float], std: list[float], maximum: int) -> None:
    for channel, (value, spread) in enumerate(zip(mean, std, strict=True)):
        if spread == 0:
            raise LotteryError(
                f"dataset.preprocessing=standardize needs channels that vary: channel {channel} "
                f"is {value * maximum:g} in all training examples. Set "
                "dataset.preprocessing=unit or raw, or remove the channel."
            )


def _interleaved(labels: Tensor, split: Split, random: torch.Generator) -> Tensor:
    """Return a random order of all examples. `stratified`: each class is spread evenly over it.

    The i-th example of a class of n goes to position (i + u) / n of the whole, u uniform in [0, 1).
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
    """Return mean and standard deviation per channel, computed from integer counts: the same on any
    machine."""
    values = inputs.transpose(0, 1).flatten(1)
    histogram = torch.stack([_histogram(channel, maximum) for channel in values])
    share = histogram.double() / values.shape[1]
    level = torch.arange(maximum + 1, dtype=torch.float64) / maximum
    mean = (share * level).sum(1)
    variance = (share * (level - mean.unsqueeze(1)) ** 2).sum(1)
    return mean.tolist(), variance.sqrt().tolist()


def _histogram(values: Tensor, maximum: int) -> Tensor:
    """Count each value from 0 to `maximum`, in pieces: counting takes eight bytes per value."""
    pieces = values.split(2**20)
    return torch.stack([torch.bincount(piece, minlength=maximum + 1) for piece in pieces]).sum(0)


def _scaling(
    maximum: int,
    mean: list[float],
    std: list[float],
    preprocessing: Preprocessing,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    """Return the function from stored inputs (n, channels, height, width) to float32 inputs."""
    channel = (1, -1, 1, 1)
    shift, width = (torch.tensor(v).view(channel).to(device) for v in (mean, std))

    def standardized(inputs: Tensor) -> Tensor:
        return unit(inputs).sub_(shift).div_(width)

    def unit(inputs: Tensor) -> Tensor:
        return inputs.float().div_(maximum)

    return {"standardize": standardized, "unit": unit, "l2": _of_unit_norm, "raw": Tensor.float}[
        preprocessing
    ]


def _of_unit_norm(inputs: Tensor) -> Tensor:
    """Divide each image by its Euclidean norm, as the code does that Google published of the paper
    (google-research/lottery-ticket-hypothesis). An image of zeros stays one. Sums of squares of
    integers are exact in float64, in any order."""
    norm = inputs.double().square().sum((1, 2, 3), keepdim=True).sqrt()
    return inputs.float().div_(norm.clamp_(min=1).float())


class BatchOrder:
    """The examples in the batch of each iteration. Every epoch is a new permutation. With
    `last_batch="drop"` it has whole batches: an epoch is `examples // batch_size` iterations, as in
    the paper (VGG-19: 160 x 703). With "keep", its last batch has the examples that are left.

    A batch depends only on seed and iteration, so that a resumed training sees the same ones.
    Raises LotteryError if a batch is larger than the training part.
    """

    def __init__(
        self,
        seed: int,
        examples: int,
        batch_size: int,
        device: torch.device,
        last_batch: LastBatch = "drop",
    ) -> None:
        if batch_size > examples:
            raise LotteryError(
                f"training.batch_size must be at most the number of training examples, "
                f"{examples:,}, got {batch_size}. Set a smaller one."
            )
        self._permutation: Callable[[int], Tensor] = lambda epoch: torch.randperm(
            examples, generator=generator(seed, "order", epoch)
        ).to(device)
        self._examples, self._batch_size = examples, batch_size
        self._per_epoch = batches_per_epoch(examples, batch_size, last_batch)
        self._epoch = -1

    def batch(self, iteration: int) -> Tensor:
        """Return the indices (batch_size,) of the batch of an iteration, counted from 0; the last
        one of an epoch may be smaller."""
        epoch, position = divmod(iteration, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        first = position * self._batch_size
        return self._order[first : min(first + self._batch_size, self._examples)]
