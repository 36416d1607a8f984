"""The baseline of the benchmarks: the training loop of most published code.

torchvision's MNIST with ToTensor and Normalize, a shuffling DataLoader, batches of 60, masks
applied to the weights after every step, Adam at 1.2e-3, and the paper's evaluation: loss and
accuracy on 5,000 validation and 10,000 test examples, also with DataLoaders.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, random_split
from torchvision import transforms
from torchvision.datasets import MNIST

from lth import datasets, models
from lth.engine.build import build_model
from lth.experiment.nodes import Fresh
from lth.experiment.recipe import Network


class BaselineLoop:
    """One dense network on the MNIST in `root`, trained by the baseline loop."""

    def __init__(self, network: Network, root: Path) -> None:
        normalize = transforms.Normalize((0.1307,), (0.3081,))
        transform = transforms.Compose([transforms.ToTensor(), normalize])
        whole = MNIST(str(root), transform=transform)
        train, validation = random_split(whole, [55_000, 5_000])
        self._train: DataLoader[Any] = DataLoader(train, batch_size=60, shuffle=True)
        test = MNIST(str(root), train=False, transform=transform)
        self._evaluated = [DataLoader(part, batch_size=500) for part in (validation, test)]
        self._model = build_model(Fresh(network, seed=0))
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1.2e-3)
        self._masks = {
            name: torch.ones_like(self._model.get_parameter(name))
            for name in models.prunable(self._model)
        }

    def seconds_per_step(self, steps: int) -> float:
        """Train for some steps. Return the mean seconds per step."""
        started = time.perf_counter()
        for inputs, labels in islice(self._train, steps):
            loss = cross_entropy(self._model(inputs), labels)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            with torch.no_grad():
                for name, mask in self._masks.items():
                    self._model.get_parameter(name).mul_(mask)
        return (time.perf_counter() - started) / steps

    @torch.no_grad()
    def seconds_per_evaluation(self) -> float:
        """Evaluate on validation and test examples. Return the seconds."""
        started = time.perf_counter()
        for loader in self._evaluated:
            for inputs, labels in loader:
                outputs = self._model(inputs)
                float(cross_entropy(outputs, labels))
                int((outputs.argmax(1) == labels).sum())
        return time.perf_counter() - started


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
