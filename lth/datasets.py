"""Loaders of examples.

A loader is any importable function `(root: Path, **options) -> LoadedData`; `root` is the folder
with the data, where downloads are kept.
"""

import gzip
import hashlib
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lth.errors import LotteryError
from lth.store.files import write_atomically
from lth.training.data import Examples, LoadedData
from lth.training.seeds import generator

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)


def digits(root: Path) -> LoadedData:  # noqa: ARG001 - scikit-learn has the data
    """Load scikit-learn's 1,797 handwritten digits: 8x8 pixels in [0, 16], without a test set."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
    return LoadedData(Examples(inputs, torch.from_numpy(labels).long()), None, 16)


def mnist(root: Path, name: str, labels: Sequence[int] | None = None) -> LoadedData:
    """Load MNIST or a dataset of the same format from its four idx files (or .gz) under `root`;
    download missing ones. `name`: torchvision's name (MNIST, FashionMNIST, KMNIST). `labels`: the
    classes to keep, which become 0, 1, ...; None keeps all.

    Raises LotteryError if files are missing and the download fails, or if a file is damaged.
    """
    folders = [root / name / "raw", root / name.lower()]
    folders += [root] if name == "MNIST" else []
    if any(_idx_file(folders, file) is None for file in IDX_FILES):
        _download(root, name, Path(name, "raw"))
    train, test = (_idx_part(folders, *files) for files in (IDX_FILES[:2], IDX_FILES[2:]))
    if labels is not None:
        train, test = _of_classes(train, labels), _of_classes(test, labels)
    return LoadedData(train, test, 255)


def _of_classes(examples: Examples, labels: Sequence[int]) -> Examples:
    """Return the examples of some classes, in their order. Class `labels[i]` becomes class i."""
    matches = examples.labels.unsqueeze(1) == torch.tensor(labels)
    kept = matches.any(dim=1)
    return Examples(examples.inputs[kept], matches[kept].long().argmax(dim=1))


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx_file(folders: Sequence[Path], name: str) -> Path | None:
    candidates = [folder / f"{name}{end}" for folder in folders for end in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _idx_part(folders: Sequence[Path], images_name: str, labels_name: str) -> Examples:
    images, labels = _read_idx(folders, images_name, 3), _read_idx(folders, labels_name, 1)
    if len(images) != len(labels):
        raise LotteryError(
            f"{_idx_file(folders, labels_name)} must have a label for each of the {len(images):,} "
            f"images, got {len(labels):,}. Delete both files, so that they are downloaded again, "
            "or replace them."
        )
    return Examples(images.unsqueeze(1), labels.long())


def _read_idx(folders: Sequence[Path], name: str, dimensions: int) -> Tensor:
    """Read an idx file: two zero bytes, a type byte (8: bytes), the number of dimensions in one
    byte, each dimension as a big-endian int32, then the values."""
    path = _idx_file(folders, name)
    assert path is not None, name
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if content[2] != 8 or content[3] != dimensions:
            raise ValueError(f"it must hold bytes in {dimensions} dimensions, got {content[3]}")
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise LotteryError(
            f"{path} is damaged ({error}). Delete it, so that it is downloaded again, or "
            "replace it."
        ) from error
    return torch.from_numpy(values.copy())


def cifar(root: Path, name: Literal["CIFAR10", "CIFAR100"]) -> LoadedData:
    """Load CIFAR-10 or CIFAR-100 with torchvision; download it if it is missing.

    Raises LotteryError if the download fails or files are damaged.
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
            raise LotteryError(
                f"{root / folder} is damaged ({error}). Delete it, so that it is downloaded again."
            ) from error
        inputs = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
        return Examples(inputs, torch.tensor(read.targets))

    return LoadedData(part(True), part(False), 255)


def _download(root: Path, name: str, folder: Path) -> None:
    """Download into a temporary folder, then move each file into place: other runs may read the
    folder, or download at the same time."""
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
            f"no {name} under {root}/ and the download failed ({error}). Put its files into "
            f"{root / folder}, set dataset.root or LTH_DATA to the folder that has them, or use "
            "dataset=digits, which needs no download."
        ) from error


DECODED = "decoded-2"
"""Prefix of files of decoded images. It changes when other images are accepted, or decoded in
another way: files of earlier versions are then not used."""


def image_folder(root: Path, folder: str, channels: int) -> LoadedData:
    """Load images of one size from `root/folder/train/<class>/` and, if it exists, `test/<class>/`.
    Classes are numbered in alphabetical order. Decoded images are cached in a file beside them.

    `channels`: 3 (colour) or 1 (grey). Raises LotteryError if there are no images, if one cannot be
    read, has transparent pixels or more than 8 bits per channel, if sizes differ, or if a class of
    the test set has no training images.
    """
    if channels not in (1, 3):
        raise LotteryError(
            f"dataset.loader.channels must be 3 (colour) or 1 (grey), got {channels}"
        )
    home = root / folder
    listed = {part: _listed(home / part) for part in ("train", "test")}
    if not listed["train"]:
        raise LotteryError(
            f"no images in {home}/train/<class>/. Put yours there (and in {home}/test/<class>/), "
            "or set dataset.root (or LTH_DATA) and dataset.loader.folder to where they are."
        )
    stamps = [(f"{part}/{name}", *of) for part, found in listed.items() for name, *of in found]
    files = {part: [home / part / name for name, *_ in found] for part, found in listed.items()}
    key = hashlib.sha256(repr((channels, stamps)).encode()).hexdigest()
    tensors = _cached(home / f"{DECODED}-{key[:16]}.safetensors", lambda: _decode(files, channels))

    def part(name: str) -> Examples:
        return Examples(tensors[f"{name}.inputs"], tensors[f"{name}.labels"])

    return LoadedData(part("train"), part("test") if listed["test"] else None, 255)


def _cached(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors in `file`. If it does not exist or is damaged, compute them with `make`
    and write it."""
    if file.is_file():
        try:
            return load_file(file)
        except SafetensorError as error:
            log.warning("%s is damaged (%s): images are decoded again", file, error)
    tensors = make()
    try:
        write_atomically(file, save(tensors), durable=False)
    except OSError as error:
        log.warning("%s cannot be written (%s): images are decoded at every start", file, error)
    return tensors


ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm")


def _listed(part: Path) -> list[tuple[str, int, int]]:
    """Return `<class>/<file>`, size and time of change of each image, by class and file.
    Without `Path`, which takes three times as long for 60,000 files."""
    found = [
        (folder.name, file.name, file.stat())
        for folder in _entries(part)
        if folder.is_dir()
        for file in _entries(folder.path)
        if file.name.lower().endswith(ENDINGS)
    ]
    found.sort(key=lambda image: image[:2])
    return [(f"{of}/{name}", stat.st_size, stat.st_mtime_ns) for of, name, stat in found]


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _decode(files: dict[str, list[Path]], channels: int) -> dict[str, Tensor]:
    """Return `<part>.inputs` and `<part>.labels` of each part that has images."""
    classes = sorted({file.parent.name for file in files["train"]})
    unknown = {file.parent.name for file in files["test"]} - set(classes)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise LotteryError(
            f"test images of {names}, but no training images. Add train/<class>/ for each, or "
            "remove the class from test/."
        )
    tensors = {}
    for part, images in files.items():
        if images:
            tensors[f"{part}.inputs"] = _stacked(images, channels)
            labels = [classes.index(file.parent.name) for file in images]
            tensors[f"{part}.labels"] = torch.tensor(labels)
    return tensors


def _stacked(images: Sequence[Path], channels: int) -> Tensor:
    """Return the pixels of images as uint8 (n, channels, height, width)."""
    decoded = [_pixels(file, channels) for file in images]
    (height, width), first = decoded[0].shape[:2], images[0]
    for file, pixels in zip(images, decoded, strict=True):
        if pixels.shape[:2] != (height, width):
            raise LotteryError(
                f"all images must have one size: {file} has {pixels.shape[1]}x{pixels.shape[0]} "
                f"pixels, {first} has {width}x{height}. Resize them."
            )
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def _pixels(file: Path, channels: int) -> NDArray[np.uint8]:
    """Return the pixels of one image as uint8 (height, width, channels)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            pixels = np.asarray(_opaque(image, file).convert("RGB" if channels == 3 else "L"))
    except (OSError, SyntaxError, ValueError) as error:  # pillow raises all of them
        raise LotteryError(f"{file} cannot be read ({error}). Delete or replace it.") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _opaque(image: "Image.Image", file: Path) -> "Image.Image":
    """Return the image without its alpha channel. Raise LotteryError if pillow would clip its
    values to 8 bits, or drop transparency and show the colours behind it."""
    if image.mode.startswith(("I", "F")):
        raise LotteryError(
            f"{file} must have 8 bits per channel, got mode {image.mode}. Convert it with the "
            "scale of values that you need: 16 bits would be clipped to 255."
        )
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema() != (255, 255):
        raise LotteryError(
            f"{file} must not have transparent pixels (mode {image.mode}): the colours behind "
            "them would be shown. Put the image on a background, and save it without alpha."
        )
    return whole


def noise(root: Path, shape: Sequence[int], classes: int, examples: int, test: int) -> LoadedData:  # noqa: ARG001
    """Generate examples for `smoke=true`: a faint random pattern for each class, under noise.

    `shape`: (channels, height, width) of one input. `examples`, `test`: the number of each; `test`
    is 0 for no test set.
    """
    random = generator(0, "noise")
    patterns = torch.randint(0, 16, (classes, *shape), generator=random)

    def part(count: int) -> Examples:
        labels = torch.arange(count) % classes
        pixels = torch.randint(0, 240, (count, *shape), generator=random)
        return Examples((patterns[labels] + pixels).to(torch.uint8), labels)

    return LoadedData(part(examples), part(test) if test else None, 255)
