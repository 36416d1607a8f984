"""Datasets as tensors on the device: load, split, preprocess, order of batches.

A loader is any importable function `(root: Path) -> Source`; everything after it is shared.
"""

import gzip
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lth.errors import LotteryError
from lth.streams import generator

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
class Data:
    """The three parts, preprocessed to float32, on one device.

    `mean`, `std`: per channel, of the training part divided by the source's maximum.
    `indices`: where the parts lie in the source's training examples.
    """

    train: Examples
    validation: Examples
    test: Examples
    mean: list[float]
    std: list[float]
    indices: dict[str, Tensor]


def digits(root: Path) -> Source:  # noqa: ARG001 - comes with scikit-learn, needs no folder
    """scikit-learn's 1,797 handwritten digits: 8x8 pixels from 0 to 16, no test set of its own."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
    return Source(Examples(inputs, torch.from_numpy(labels).long()), None, 16)


def mnist(root: Path) -> Source:
    """MNIST from its four idx files or their .gz under `root`, else through torchvision.

    Raises LotteryError where there are neither files nor a network.
    """
    if any(_idx_file(root, name) is None for name in MNIST_FILES):
        _download_mnist(root)
    images, labels, test_images, test_labels = (_read_idx(root, name) for name in MNIST_FILES)
    return Source(
        Examples(images.unsqueeze(1), labels.long()),
        Examples(test_images.unsqueeze(1), test_labels.long()),
        255,
    )


MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx_file(root: Path, name: str) -> Path | None:
    folders = (root / "MNIST" / "raw", root / "mnist", root)
    candidates = [folder / f"{name}{end}" for folder in folders for end in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(root: Path, name: str) -> Tensor:
    """An idx file: 2 zeros, a type, the number of dimensions, each as a big-endian int32; bytes."""
    path = _idx_file(root, name)
    assert path is not None, name
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise LotteryError(f"dataset=mnist: {path} is damaged ({error}). Delete it, so that it is "
                           "downloaded again, or put a whole copy there.") from error  # fmt: skip
    return torch.from_numpy(values.copy())


def _download_mnist(root: Path) -> None:
    """Into a folder aside, then file by file into place: other runs may be looking, or doing it."""
    from torchvision.datasets import MNIST

    raw = Path("MNIST", "raw")
    try:
        (root / raw).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as aside:
            MNIST(aside, download=True)
            for name in MNIST_FILES:
                (aside / raw / name).replace(root / raw / name)
    except (OSError, RuntimeError) as error:
        raise LotteryError(
            f"dataset=mnist: no MNIST under {root}/ and the download failed ({error}). Put the "
            f"four .gz files in {root}/MNIST/raw, set dataset.root or LTH_DATA to the folder that "
            "has them, or try dataset=digits, which needs none."
        ) from error


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

    def part(examples: Examples) -> Examples:
        scaled = _scale(examples.inputs, source.maximum, mean, std, preprocessing)
        return Examples(scaled.to(device), examples.labels.to(device))

    def picked(name: str) -> Examples:
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
    histogram = torch.stack([torch.bincount(v, minlength=maximum + 1) for v in values])
    share = histogram.double() / values.shape[1]
    level = torch.arange(maximum + 1, dtype=torch.float64) / maximum
    mean = (share * level).sum(1)
    variance = (share * (level - mean.unsqueeze(1)) ** 2).sum(1)
    return mean.tolist(), variance.sqrt().tolist()


def _scale(
    inputs: Tensor, maximum: int, mean: list[float], std: list[float], preprocessing: Preprocessing
) -> Tensor:
    if preprocessing == "raw":
        return inputs.float()
    unit = inputs.float().div_(maximum)
    if preprocessing == "unit":
        return unit
    channel = (1, -1, 1, 1)
    return unit.sub_(torch.tensor(mean).view(channel)).div_(torch.tensor(std).view(channel))


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
