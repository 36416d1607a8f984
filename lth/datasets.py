"""Where examples come from.

A loader is any importable function `(root: Path, **options) -> Source`; `root` is the data folder.
What is downloaded lands there, once, whoever asks first.
"""

import gzip
import hashlib
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from lth.errors import LotteryError
from lth.store.files import write_atomically
from lth.training.data import Examples, Source
from lth.training.seeds import generator

log = logging.getLogger(__name__)


def digits(root: Path) -> Source:  # noqa: ARG001 - comes with scikit-learn, needs no folder
    """scikit-learn's 1,797 handwritten digits: 8x8 pixels from 0 to 16, no test set of its own."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
    return Source(Examples(inputs, torch.from_numpy(labels).long()), None, 16)


def mnist(root: Path, name: str) -> Source:
    """MNIST or one made like it, `name` being torchvision's (MNIST, FashionMNIST, KMNIST): from its
    four idx files or their .gz under `root`, else downloaded.

    Raises LotteryError where there are neither files nor a network.
    """
    folders = [root / name / "raw", root / name.lower()]
    folders += [root] if name == "MNIST" else []
    if any(_idx_file(folders, file) is None for file in IDX_FILES):
        _download(root, name, Path(name, "raw"))
    images, labels, test_images, test_labels = (_read_idx(folders, file) for file in IDX_FILES)
    return Source(
        Examples(images.unsqueeze(1), labels.long()),
        Examples(test_images.unsqueeze(1), test_labels.long()),
        255,
    )


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx_file(folders: Sequence[Path], name: str) -> Path | None:
    candidates = [folder / f"{name}{end}" for folder in folders for end in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(folders: Sequence[Path], name: str) -> Tensor:
    """An idx file: 2 zeros, a type, the number of dimensions, each as a big-endian int32; bytes."""
    path = _idx_file(folders, name)
    assert path is not None, name
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise LotteryError(f"{path} is damaged ({error}). Delete it, so that it is downloaded "
                           "again, or put a whole copy there.") from error  # fmt: skip
    return torch.from_numpy(values.copy())


def cifar(root: Path, name: Literal["CIFAR10", "CIFAR100"]) -> Source:
    """CIFAR-10 or CIFAR-100, read and downloaded by torchvision.

    Raises LotteryError where it is neither there nor to be had, or damaged.
    """
    from torchvision import datasets

    dataset = getattr(datasets, name)
    folder = Path(dataset.base_folder)
    files = [file for file, _ in (*dataset.train_list, *dataset.test_list)]
    if not all((root / folder / file).is_file() for file in (*files, dataset.meta["filename"])):
        _download(root, name, folder)

    def part(train: bool) -> Examples:
        try:
            read = dataset(root, train=train)
        except (OSError, EOFError, RuntimeError) as error:
            raise LotteryError(f"{root / folder} is damaged ({error}). Delete it, so that it is "
                               "downloaded again.") from error  # fmt: skip
        inputs = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
        return Examples(inputs, torch.tensor(read.targets))

    return Source(part(True), part(False), 255)


def _download(root: Path, name: str, folder: Path) -> None:
    """Into a folder aside, then file by file into place: other runs may be looking, or doing it."""
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as aside:
            getattr(datasets, name)(aside, download=True)
            (root / folder).mkdir(parents=True, exist_ok=True)
            for file in (aside / folder).iterdir():
                file.replace(root / folder / file.name)
    except (OSError, RuntimeError) as error:
        raise LotteryError(
            f"no {name} under {root}/ and the download failed ({error}). Put its files in "
            f"{root / folder}, set dataset.root or LTH_DATA to the folder that has them, or try "
            "dataset=digits, which needs none."
        ) from error


def image_folder(root: Path, folder: str, channels: int) -> Source:
    """Pictures of one size in `root/folder/train/<class>/` and, if there is one, `test/<class>/`;
    classes are numbered by name. Decoded once, and kept beside them as a file of tensors.

    `channels`: 3 for colours, 1 for grey. Raises LotteryError where there are none, one cannot be
    read, or sizes or classes differ.
    """
    if channels not in (1, 3):
        raise LotteryError(f"dataset.loader.channels={channels}: 3 (colours) or 1 (grey).")
    home = root / folder
    files = {part: sorted(_pictures(home / part)) for part in ("train", "test")}
    if not files["train"]:
        raise LotteryError(
            f"no pictures in {home}/train/<class>/. Put yours there (and in {home}/test/<class>/), "
            "and set dataset.root or LTH_DATA, and dataset.loader.folder, so that they name it."
        )
    stamp = [(str(f.relative_to(home)), *_fingerprint(f)) for part in files.values() for f in part]
    key = hashlib.sha256(repr((channels, stamp)).encode()).hexdigest()
    tensors = _cached(home / f"decoded-{key[:16]}.safetensors", lambda: _decode(files, channels))

    def part(name: str) -> Examples:
        return Examples(tensors[f"{name}.inputs"], tensors[f"{name}.labels"])

    return Source(part("train"), part("test") if files["test"] else None, 255)


def _cached(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if file.is_file():
        return load_file(file)
    tensors = make()
    try:
        write_atomically(file, save(tensors), durable=False)
    except OSError as error:
        log.warning("%s cannot be written (%s): decoded anew every time", file, error)
    return tensors


def _pictures(part: Path) -> Iterator[Path]:
    endings = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm"}
    return (file for file in part.glob("*/*") if file.suffix.lower() in endings)


def _fingerprint(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _decode(files: dict[str, list[Path]], channels: int) -> dict[str, Tensor]:
    classes = sorted({file.parent.name for file in files["train"]})
    unknown = {file.parent.name for file in files["test"]} - set(classes)
    if unknown:
        raise LotteryError(f"test pictures of {', '.join(sorted(unknown))}, but none to train on.")
    tensors = {}
    for part, pictures in files.items():
        if pictures:
            tensors[f"{part}.inputs"] = _stacked(pictures, channels)
            labels = [classes.index(file.parent.name) for file in pictures]
            tensors[f"{part}.labels"] = torch.tensor(labels)
    return tensors


def _stacked(pictures: Sequence[Path], channels: int) -> Tensor:
    """uint8 (pictures, channels, height, width)."""
    decoded = [_pixels(file, channels) for file in pictures]
    (height, width), first = decoded[0].shape[:2], pictures[0]
    for file, pixels in zip(pictures, decoded, strict=True):
        if pixels.shape[:2] != (height, width):
            raise LotteryError(
                f"{file} has {pixels.shape[1]}x{pixels.shape[0]} pixels, {first} {width}x{height}: "
                "one size is wanted."
            )
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def _pixels(file: Path, channels: int) -> NDArray[np.uint8]:
    """(height, width, channels)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    except (OSError, UnidentifiedImageError) as error:
        raise LotteryError(
            f"{file} cannot be read ({error}). Delete it or put it right."
        ) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def noise(root: Path, shape: Sequence[int], classes: int, examples: int, test: int) -> Source:  # noqa: ARG001
    """Made up: a faint random picture for each class under noise. For `smoke=true`."""
    random = generator(0, "noise")
    patterns = torch.randint(0, 16, (classes, *shape), generator=random)

    def part(count: int) -> Examples:
        labels = torch.arange(count) % classes
        blur = torch.randint(0, 240, (count, *shape), generator=random)
        return Examples((patterns[labels] + blur).to(torch.uint8), labels)

    return Source(part(examples), part(test) if test else None, 255)
