"""Loaders: what they read, what they refuse, where downloads go."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lth import datasets
from lth.errors import LotteryError
from lth.training.data import prepare


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


def test_classes_of_mnist_can_be_kept_alone(tmp_path: Path) -> None:
    for kind in ("train", "t10k"):
        images = np.arange(4 * 2 * 2).reshape(4, 2, 2)
        write_idx(tmp_path / f"{kind}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{kind}-labels-idx1-ubyte", np.array([3, 1, 2, 3]))
    train = datasets.mnist(tmp_path, "MNIST", labels=[2, 3]).train
    assert train.labels.tolist() == [1, 0, 1]
    assert train.inputs[:, 0, 0, 0].tolist() == [0, 8, 12]


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


def test_the_error_for_no_mnist_and_no_network_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_route(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", no_route)
    with pytest.raises(LotteryError, match=r"no route to host.*MNIST/raw.*dataset=digits"):
        datasets.mnist(tmp_path, "MNIST")


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_datasets_like_mnist_have_folders_of_their_own(tmp_path: Path, name: str) -> None:
    for place, value in (("MNIST/raw", 1), (f"{name}/raw", 2)):
        for file in datasets.IDX_FILES:
            shape = (3, 28, 28) if "images" in file else (3,)
            write_idx(tmp_path / place / file, np.full(shape, value))
    assert datasets.mnist(tmp_path, name).train.inputs.unique().tolist() == [2]
    assert datasets.mnist(tmp_path, "MNIST").train.inputs.unique().tolist() == [1]


class Torchvisions:
    """A stand-in for torchvision's CIFAR10, which compares files with its own checksums."""

    online = True
    base_folder = "cifar"
    train_list = (("batch", "md5"),)
    test_list = ()
    meta = {"filename": "batch"}  # noqa: RUF012 - as torchvision has it

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        folder = Path(root) / self.base_folder
        if download:
            if not self.online:
                raise RuntimeError("no route to host")
            folder.mkdir()
            (folder / "batch").write_bytes(b"1")
        if (folder / "batch").read_bytes() != b"1":
            raise RuntimeError("Dataset not found or corrupted.")
        count = 5 if train else 2
        self.data = np.arange(count * 32 * 32 * 3).reshape(count, 32, 32, 3).astype(np.uint8)
        self.targets = list(range(count))


def test_cifar_is_downloaded_once_and_has_its_channels_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", Torchvisions)
    for _ in range(2):
        loaded = datasets.cifar(tmp_path, "CIFAR10")
        assert loaded.train.inputs.shape == (5, 3, 32, 32)
        assert loaded.train.inputs[1, 2, 3, 4] == (3072 + (3 * 32 + 4) * 3 + 2) % 256
        assert loaded.test is not None
        assert loaded.test.labels.tolist() == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["cifar"]
    (tmp_path / "cifar" / "batch").write_bytes(b"2")
    with pytest.raises(LotteryError, match=r"cifar is damaged.*Delete it"):
        datasets.cifar(tmp_path, "CIFAR10")


def test_a_download_that_failed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", Torchvisions)
    monkeypatch.setattr(Torchvisions, "online", False)
    for _ in range(2):
        with pytest.raises(LotteryError, match=r"no CIFAR10 under.*no route to host"):
            datasets.cifar(tmp_path, "CIFAR10")
    monkeypatch.setattr(Torchvisions, "online", True)
    assert datasets.cifar(tmp_path, "CIFAR10").train.labels.tolist() == [0, 1, 2, 3, 4]


def write_images(home: Path, *, size: int = 4, parts: Sequence[str] = ("train", "test")) -> None:
    """Write two images of each class; all pixels of one are 100 x class + 10 x number."""
    for part in parts:
        for label, name in enumerate(("ant", "bee")):
            (home / part / name).mkdir(parents=True)
            for number in range(2):
                colour = (100 * label + 10 * number, 0, 7)
                file = home / part / name / f"{number}.png"
                Image.new("RGB", (size, size), colour).save(file)


def test_images_are_decoded_once_and_again_when_they_change(tmp_path: Path) -> None:
    home = tmp_path / "insects"
    write_images(home)
    loaded = datasets.image_folder(tmp_path, "insects", channels=3)
    assert loaded.train.inputs.shape == (4, 3, 4, 4)
    assert loaded.train.inputs[:, 0, 0, 0].tolist() == [0, 10, 100, 110]
    assert loaded.train.labels.tolist() == [0, 0, 1, 1]
    assert loaded.test is not None
    (cache,) = home.glob("*.safetensors")
    before = cache.stat().st_mtime_ns
    again = datasets.image_folder(tmp_path, "insects", channels=3)
    assert torch.equal(again.train.inputs, loaded.train.inputs)
    assert cache.stat().st_mtime_ns == before
    cache.write_bytes(b"")  # cut off
    again = datasets.image_folder(tmp_path, "insects", channels=3)
    assert torch.equal(again.train.inputs, loaded.train.inputs)
    Image.new("RGB", (4, 4), (200, 0, 7)).save(home / "train/ant/2.png")
    assert datasets.image_folder(tmp_path, "insects", channels=3).train.inputs.shape[0] == 5


def test_grey_images_and_no_test_set(tmp_path: Path) -> None:
    write_images(tmp_path / "p", parts=["train"])
    loaded = datasets.image_folder(tmp_path, "p", channels=1)
    assert loaded.train.inputs.shape == (4, 1, 4, 4)
    assert loaded.test is None


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=r"no images in .*p/train/<class>/.*LTH_DATA"):
        datasets.image_folder(tmp_path, "p", channels=3)
    write_images(tmp_path / "p")
    odd = tmp_path / "p/train/bee/9.png"
    Image.new("RGB", (5, 4)).save(odd)
    with pytest.raises(LotteryError, match=r"one size: .*9\.png has 5x4 pixels, .*0\.png has 4x4"):
        datasets.image_folder(tmp_path, "p", channels=3)
    odd.write_bytes(b"no picture")
    with pytest.raises(LotteryError, match=r"9\.png cannot be read .*Delete or replace it"):
        datasets.image_folder(tmp_path, "p", channels=3)
    odd.unlink()
    (tmp_path / "p/test/wasp").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "p/test/wasp/0.png")
    with pytest.raises(LotteryError, match="test images of wasp, but no training images"):
        datasets.image_folder(tmp_path, "p", channels=3)


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
