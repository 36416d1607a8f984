"""Loaders: what is read, what is refused, what lands where."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lth import datasets
from lth.data import prepare
from lth.errors import LotteryError


def test_digits_are_the_real_ones() -> None:
    loaded = datasets.digits(Path())
    assert loaded.train.inputs.shape == (1797, 1, 8, 8)
    assert loaded.train.inputs.max() == loaded.maximum == 16
    assert loaded.train.labels[:10].tolist() == list(range(10))


def write_idx(file: Path, values: NDArray[Any]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    content = header + values.astype(np.uint8).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


@pytest.mark.parametrize(("folder", "ending"), [("MNIST/raw", ".gz"), ("", ""), ("mnist", ".gz")])
def test_mnist_is_read_from_idx_files_packed_or_not(
    tmp_path: Path, folder: str, ending: str
) -> None:
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
    for kind in ("train", "t10k"):
        write_idx(tmp_path / folder / f"{kind}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / folder / f"{kind}-labels-idx1-ubyte{ending}", np.array([3, 1, 2]))
    loaded = datasets.mnist(tmp_path, "MNIST")
    assert loaded.train.inputs.shape == (3, 1, 28, 28)
    assert loaded.train.inputs[1, 0, 2, 3] == images[1, 2, 3]
    assert loaded.test is not None
    assert loaded.test.labels.tolist() == [3, 1, 2]


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    images = np.zeros((3, 28, 28))
    for name in datasets.IDX_FILES:
        write_idx(tmp_path / name, images if "images" in name else np.zeros(3))
    torn = tmp_path / datasets.IDX_FILES[2]
    content = torn.read_bytes()
    torn.write_bytes(content[:-7])
    with pytest.raises(LotteryError, match="t10k-images-idx3-ubyte is damaged"):
        datasets.mnist(tmp_path, "MNIST")
    torn.unlink()
    packed = bytearray(gzip.compress(content))
    packed[20] ^= 0xFF
    torn.with_name(torn.name + ".gz").write_bytes(packed)
    with pytest.raises(LotteryError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
        datasets.mnist(tmp_path, "MNIST")


def test_a_download_is_put_in_place_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: object, root: str, *, download: bool) -> None:
        assert download
        for name in datasets.IDX_FILES:
            values = np.zeros((3, 28, 28)) if "images" in name else np.zeros(3)
            write_idx(Path(root) / "MNIST/raw" / name, values)

    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", download)
    assert datasets.mnist(tmp_path, "MNIST").train.inputs.shape == (3, 1, 28, 28)
    assert [folder.name for folder in tmp_path.iterdir()] == ["MNIST"]


def test_no_mnist_and_no_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_route(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", no_route)
    with pytest.raises(LotteryError, match=r"no route to host.*MNIST/raw.*dataset=digits"):
        datasets.mnist(tmp_path, "MNIST")


@pytest.mark.skipif("LTH_DATA" not in os.environ, reason="LTH_DATA names no folder with MNIST")
def test_the_real_mnist() -> None:
    loaded = datasets.mnist(Path(os.environ["LTH_DATA"]), "MNIST")
    assert loaded.train.inputs.shape == (60_000, 1, 28, 28)
    made = prepare(
        loaded, test=0, validation=5000, split="random", split_seed=0,
        preprocessing="standardize", device=torch.device("cpu"),
    )  # fmt: skip
    assert made.mean == pytest.approx([0.1307], abs=1e-3)
    assert made.std == pytest.approx([0.3081], abs=1e-3)
