"""The baseline of the benchmarks: the training loop of most published code.

A dataset of torchvision with ToTensor and Normalize (crops and flips where the paper has them), a
shuffling DataLoader, masks applied to the weights after every step, and the paper's evaluation:
loss and accuracy on 5,000 validation and 10,000 test examples, also with DataLoaders.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms
from torchvision.datasets import CIFAR10, MNIST

from lth import datasets, models
from lth.engine.build import build_model
from lth.experiment.nodes import Fresh
from lth.experiment.recipe import Recipe


class Parts(NamedTuple):
    """Datasets of (input, label)."""

    train: "Dataset[Any]"
    validation: "Dataset[Any]"
    test: "Dataset[Any]"


class BaselineLoop:
    """One dense network, trained by the baseline loop."""

    def __init__(self, recipe: Recipe, parts: Parts, workers: int = 0) -> None:
        size = recipe.training.batch_size
        self._train: DataLoader[Any] = DataLoader(
            parts.train, batch_size=size, shuffle=True, num_workers=workers, drop_last=True
        )
        self._evaluated = [
            DataLoader(part, batch_size=500, num_workers=workers)
            for part in (parts.validation, parts.test)
        ]
        self._model = build_model(Fresh(recipe.network, seed=0))
        self._optimizer = recipe.optimizer(self._model.parameters())
        self._masks = {
            name: torch.ones_like(self._model.get_parameter(name))
            for name in models.prunable(self._model)
        }

    def seconds_per_step(self, steps: int) -> float:
        """Train for some steps. Return the mean seconds per step, without the start of the loader:
        that is once per epoch."""
        batches = iter(self._train)
        self._step(*next(batches))
        started = time.perf_counter()
        for inputs, labels in islice(batches, steps):
            self._step(inputs, labels)
        return (time.perf_counter() - started) / steps

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        loss = cross_entropy(self._model(inputs), labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._model.get_parameter(name).mul_(mask)

    @torch.no_grad()
    def seconds_per_evaluation(self) -> float:
        """Evaluate on all validation and test examples. Return the seconds."""
        started = time.perf_counter()
        self._model.eval()
        for loader in self._evaluated:
            for inputs, labels in loader:
                outputs = self._model(inputs)
                float(cross_entropy(outputs, labels))
                int((outputs.argmax(1) == labels).sum())
        self._model.train()
        return time.perf_counter() - started


def mnist_parts(root: Path) -> Parts:
    """Return the MNIST in `root`, with 5,000 examples set aside."""
    normalize = transforms.Normalize((0.1307,), (0.3081,))
    transform = transforms.Compose([transforms.ToTensor(), normalize])
    whole = MNIST(str(root), transform=transform)
    train, validation = random_split(whole, [55_000, 5_000])
    return Parts(train, validation, MNIST(str(root), train=False, transform=transform))


def cifar_parts(*, augmented: bool, evaluated: int) -> Parts:
    """Return random images as torchvision's CIFAR10: 5,000 to train on, and `evaluated` for each of
    validation and testing. Their content does not change the time of a step."""
    tensors = [transforms.ToTensor(), transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
    random = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    train = transforms.Compose([*(random if augmented else []), *tensors])
    plain = transforms.Compose(tensors)
    return Parts(*(_cifar(*p) for p in ((5000, train), (evaluated, plain), (evaluated, plain))))


def _cifar(count: int, transform: Any) -> CIFAR10:  # noqa: ANN401
    made: CIFAR10 = CIFAR10.__new__(CIFAR10)  # __init__ reads and checks the files of CIFAR-10
    made.data = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    made.targets = [index % 10 for index in range(count)]
    made.transform, made.target_transform = transform, None
    return made


@contextmanager
def mnist_for_torchvision(root: Path) -> Iterator[Path]:
    """Yield a temporary folder with the MNIST of `root` in the layout of torchvision."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        source = datasets.mnist(root, "MNIST")
        assert source.test is not None
        parts = (source.train, source.test)
        tensors = (t for i, labels in parts for t in (i.squeeze(1), labels))
        for tensor, name in zip(tensors, datasets.IDX_FILES, strict=True):
            values = tensor.byte().numpy()
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            header = bytes([0, 0, 8, values.ndim]) + sizes
            (raw / name).write_bytes(header + values.tobytes())
        yield Path(folder)
