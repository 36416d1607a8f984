"""Examples that cannot be trained on are refused at the door, with what was found."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lth import datasets
from lth.engine.loaded import check_loaded
from lth.errors import LotteryError
from lth.experiment.targets import Target
from lth.training.data import Examples, LoadedData, prepare
from tests.test_datasets import write_idx
from tests.trainings import recipe

DATASET = dataclasses.replace(
    recipe().dataset, loader=Target("mine.load", {}, "v1"), shape=(1, 2, 2), examples=6
)
INPUTS = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
LABELS = torch.arange(6) % 4


def loaded(
    inputs: Any = INPUTS,  # noqa: ANN401
    labels: Any = LABELS,  # noqa: ANN401
    maximum: Any = 255,  # noqa: ANN401
) -> LoadedData:
    return LoadedData(Examples(inputs, labels), None, maximum)


def test_good_examples_are_accepted() -> None:
    check_loaded(loaded(), DATASET)
    check_loaded(loaded(INPUTS.long(), maximum=23), DATASET)
    check_loaded(loaded()._replace(test=Examples(INPUTS[:2], LABELS[:2])), DATASET)


REFUSED = [
    (loaded(labels=LABELS[:4]), r"one label per input, got 6 inputs and 4 labels"),
    (loaded(INPUTS / 255), r"inputs must be integers .*got float32 .*\[6, 1, 2, 2\]"),
    (loaded(INPUTS.bool()), r"inputs must be integers .*got bool"),
    (loaded(INPUTS.squeeze(1)), r"got uint8 of shape \[6, 2, 2\]\. Add .*inputs\.unsqueeze\(1\)"),
    (
        loaded(INPUTS.numpy()),
        r"inputs must be .*tensor.*got ndarray\. Convert an array with "
        r"torch\.from_numpy\(inputs\)",
    ),
    (loaded(labels=torch.eye(6).long()), r"got int64 of shape \[6, 6\]\. .*labels\.argmax\(1\)"),
    (loaded(labels=LABELS.numpy()), r"got ndarray\. .*torch\.from_numpy\(labels\)\.long\(\)"),
    (loaded(INPUTS.flatten(1)), r"\(n, channels, height, width\), got .*\[6, 4\]"),
    (loaded(labels=LABELS.int()), r"labels must be int64 .*got int32.*labels\.long\(\)"),
    (loaded(labels=LABELS.double()), r"labels must be int64 .*got float64"),
    (loaded(labels=LABELS.view(6, 1)), r"labels must be int64 .*\(n,\), got int64 .*\[6, 1\]"),
    (loaded(labels=LABELS - 1), r"labels must be >= 0, got -1"),
    (loaded(INPUTS.long() - 3), r"inputs must be in \[0, 255\], got values from -3 to 20"),
    (loaded(maximum=16), r"inputs must be in \[0, 16\], got values from 0 to 23"),
    (loaded(INPUTS[:0], LABELS[:0]), r"at least one example, got none"),
    (loaded(maximum=1.0), r"maximum must be an integer >= 1, got 1\.0"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_other_examples_are_refused_by_loader_and_part(given: LoadedData, message: str) -> None:
    with pytest.raises(LotteryError, match=message) as training:
        check_loaded(given, DATASET)
    assert "mine.load" in str(training.value)
    if given.maximum in (255, 16):
        assert "training part" in str(training.value)
        good = loaded(maximum=given.maximum, inputs=INPUTS.clamp(max=16))
        with pytest.raises(LotteryError, match=message) as test:
            check_loaded(good._replace(test=given.train), DATASET)
        assert "test part" in str(test.value)


def test_anything_else_is_refused() -> None:
    pair: Any = (INPUTS, LABELS)
    with pytest.raises(LotteryError, match=r"must return an .*LoadedData, got tuple\. Return Load"):
        check_loaded(pair, DATASET)


@pytest.mark.parametrize(("given", "hint"), [
    (loaded(labels=LABELS + 1), r"Labels begin at 1: if they should at 0, return labels - 1\."),
    (loaded(INPUTS.repeat(1, 1, 4, 4).permute(0, 2, 3, 1)), r"inputs\.permute\(0, 3, 1, 2\)"),
])  # fmt: skip
def test_what_does_not_match_the_configuration_may_be_turned(given: LoadedData, hint: str) -> None:
    with pytest.raises(LotteryError, match=hint):
        check_loaded(given, DATASET)


def test_a_constant_channel_cannot_be_standardised() -> None:
    inputs = torch.stack([torch.arange(24).view(6, 2, 2), torch.full((6, 2, 2), 7)], dim=1)
    given = loaded(inputs)

    def prepared(preprocessing: Any) -> Tensor:  # noqa: ANN401
        made = prepare(
            given, test=1, validation=1, split="random", split_seed=0,
            preprocessing=preprocessing, device=torch.device("cpu"),
        )  # fmt: skip
        return made.train.at(torch.arange(4)).inputs

    with pytest.raises(LotteryError, match=r"channel 1 is 7 .*dataset\.preprocessing=unit or raw"):
        prepared("standardize")
    assert prepared("unit").isfinite().all()
    assert prepared("raw").isfinite().all()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with one good grey image of 4 x 4 pixels."""
    folder = tmp_path / "p/train/ant"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4), 9).save(folder / "0.png")
    return folder


def load(pictures: Path, channels: int = 3) -> LoadedData:
    return datasets.image_folder(pictures.parents[2], "p", channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_more_than_8_bits_are_refused(pictures: Path, channels: int) -> None:
    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(pictures / "deep.png")
    with pytest.raises(LotteryError, match=r"deep\.png .*8 bits.*mode I.*Convert"):
        load(pictures, channels)


def transparent(mode: str, alpha: int) -> Image.Image:
    image = Image.new("RGBA", (4, 4), (100, 0, 7, 255))
    image.putpixel((1, 2), (100, 0, 7, alpha))
    return image.convert(mode) if mode != "P" else image.quantize(4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_images_are_refused_and_opaque_ones_loaded(
    pictures: Path, mode: str, channels: int
) -> None:
    transparent(mode, 255).save(pictures / "alpha.png")
    assert load(pictures, channels).train.inputs.shape == (2, channels, 4, 4)
    transparent(mode, 254).save(pictures / "alpha.png")
    with pytest.raises(LotteryError, match=r"alpha\.png .*transparent.*background"):
        load(pictures, channels)


def test_a_transparent_colour_is_refused(pictures: Path) -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    image.save(pictures / "key.png", transparency=(1, 2, 3))
    with pytest.raises(LotteryError, match=r"key\.png .*transparent"):
        load(pictures)


def test_a_cache_of_an_earlier_version_is_not_used(pictures: Path) -> None:
    """It may hold images that are refused now."""
    load(pictures)
    (cache,) = pictures.parents[1].glob("decoded-*")
    assert datasets.DECODED in cache.name


def test_files_of_mnist_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    for name in datasets.IDX_FILES:
        count = 2 if name.startswith("train-labels") else 3
        write_idx(tmp_path / name, np.zeros((count, 28, 28) if "images" in name else (count,)))
    message = r"train-labels-idx1-ubyte must have a label for each of the 3 images, got 2"
    with pytest.raises(LotteryError, match=message):
        datasets.mnist(tmp_path, "MNIST")


def test_an_idx_file_of_other_dimensions_is_named(tmp_path: Path) -> None:
    for name in datasets.IDX_FILES:
        write_idx(tmp_path / name, np.zeros((3, 28, 28)))
    with pytest.raises(LotteryError, match=r"train-labels-idx1-ubyte .*1 dimension.*got 3"):
        datasets.mnist(tmp_path, "MNIST")


def test_an_idx_file_of_other_values_than_bytes_is_named(tmp_path: Path) -> None:
    for name in datasets.IDX_FILES:
        write_idx(tmp_path / name, np.zeros((3, 28, 28) if "images" in name else (3,)))
    file = tmp_path / datasets.IDX_FILES[0]
    content = bytearray(file.read_bytes())
    content[2] = 0x0D  # float32
    file.write_bytes(content)
    with pytest.raises(LotteryError, match=r"train-images-idx3-ubyte is damaged"):
        datasets.mnist(tmp_path, "MNIST")
