import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lth import data
from lth.data import BatchOrder, Data, Examples, Source, prepare
from lth.errors import LotteryError

CPU = torch.device("cpu")


def source(size: int = 100, *, with_test: bool = False) -> Source:
    """Two channels of very different scale; example i holds i in both; ten classes in turn."""
    values = torch.arange(size).view(-1, 1, 1, 1)
    inputs = torch.cat([values, 200 + values // 4], dim=1).expand(-1, -1, 2, 2)
    examples = Examples(inputs.contiguous(), torch.arange(size) % 10)
    return Source(examples, examples if with_test else None, 255)


def parts(made: Source, **changes: object) -> Data:
    options = {
        "test": 20, "validation": 20, "split": "stratified", "split_seed": 0,
        "preprocessing": "standardize", "device": CPU,
    }  # fmt: skip
    return prepare(made, **(options | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["stratified", "random"])
def test_parts_are_disjoint_and_complete(split: str) -> None:
    indices = parts(source(), split=split).indices
    assert [len(indices[name]) for name in ("test", "validation", "train")] == [20, 20, 60]
    assert sorted(torch.cat(list(indices.values())).tolist()) == list(range(100))


def test_a_stratified_split_holds_each_class_in_its_share() -> None:
    made = parts(source())
    assert made.validation.labels.bincount().tolist() == [2] * 10
    assert made.test.labels.bincount().tolist() == [2] * 10


def test_the_split_depends_on_its_own_seed_alone() -> None:
    torch.manual_seed(5)
    again = parts(source()).indices["validation"]
    assert torch.equal(parts(source()).indices["validation"], again)
    assert not torch.equal(parts(source(), split_seed=1).indices["validation"], again)


def test_inputs_and_labels_stay_together() -> None:
    made = parts(source(), preprocessing="raw")
    for examples in (made.train, made.validation, made.test):
        assert torch.equal(examples.inputs[:, 0, 0, 0].long() % 10, examples.labels)


def test_standardize_uses_the_training_part_of_this_dataset_per_channel() -> None:
    made = parts(source(), split="random")
    values = made.train.inputs.double().transpose(0, 1).flatten(1)
    assert values.mean(1).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert values.std(1, correction=0).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert made.validation.inputs.mean() != 0


def test_unit_and_raw() -> None:
    assert parts(source(), preprocessing="raw").test.inputs.max() > 200
    unit = parts(source(), preprocessing="unit").train.inputs
    assert 0 <= unit.min() < unit.max() <= 1


@pytest.mark.parametrize(("changes", "says"), [
    ({"test": 0}, "no test set of its own"),
    ({"validation": 80}, "nothing to train on"),
])  # fmt: skip
def test_impossible_splits_are_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(LotteryError, match=says):
        parts(source(), **changes)


def test_a_test_set_of_its_own_is_used_and_not_split_again() -> None:
    with pytest.raises(LotteryError, match="its own test set"):
        parts(source(with_test=True))
    made = parts(source(with_test=True), test=0)
    assert len(made.test.labels) == 100
    assert len(made.train.labels) == 80


def test_each_epoch_is_a_new_permutation_in_whole_batches() -> None:
    order = BatchOrder(seed=0, examples=23, batch_size=5, device=CPU)
    epochs = [
        torch.cat([order.batch(4 * epoch + i) for i in range(4)]).tolist() for epoch in range(3)
    ]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    one, other = (BatchOrder(0, 23, 5, CPU) for _ in range(2))
    for iteration in range(9):
        one.batch(iteration)
    assert torch.equal(one.batch(9), other.batch(9))
    assert not torch.equal(BatchOrder(1, 23, 5, CPU).batch(9), other.batch(9))
    assert torch.equal(one.batch(2), other.batch(2))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(LotteryError, match=r"training\.batch_size=24"):
        BatchOrder(0, 23, 24, CPU)


def test_digits_are_the_real_ones() -> None:
    loaded = data.digits(Path())
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
    loaded = data.mnist(tmp_path)
    assert loaded.train.inputs.shape == (3, 1, 28, 28)
    assert loaded.train.inputs[1, 0, 2, 3] == images[1, 2, 3]
    assert loaded.test is not None
    assert loaded.test.labels.tolist() == [3, 1, 2]


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    images = np.zeros((3, 28, 28))
    for name in data.MNIST_FILES:
        write_idx(tmp_path / name, images if "images" in name else np.zeros(3))
    torn = tmp_path / data.MNIST_FILES[2]
    content = torn.read_bytes()
    torn.write_bytes(content[:-7])
    with pytest.raises(LotteryError, match="t10k-images-idx3-ubyte is damaged"):
        data.mnist(tmp_path)
    torn.unlink()
    packed = bytearray(gzip.compress(content))
    packed[20] ^= 0xFF
    torn.with_name(torn.name + ".gz").write_bytes(packed)
    with pytest.raises(LotteryError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
        data.mnist(tmp_path)


def test_a_download_is_put_in_place_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: object, root: str, *, download: bool) -> None:
        assert download
        for name in data.MNIST_FILES:
            values = np.zeros((3, 28, 28)) if "images" in name else np.zeros(3)
            write_idx(Path(root) / "MNIST/raw" / name, values)

    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", download)
    assert data.mnist(tmp_path).train.inputs.shape == (3, 1, 28, 28)
    assert [folder.name for folder in tmp_path.iterdir()] == ["MNIST"]


def test_no_mnist_and_no_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_route(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", no_route)
    with pytest.raises(LotteryError, match=r"no route to host.*four \.gz files.*dataset=digits"):
        data.mnist(tmp_path)


@pytest.mark.skipif("LTH_DATA" not in os.environ, reason="LTH_DATA names no folder with MNIST")
def test_the_real_mnist() -> None:
    loaded = data.mnist(Path(os.environ["LTH_DATA"]))
    assert loaded.train.inputs.shape == (60_000, 1, 28, 28)
    made = parts(loaded, test=0, validation=5000, split="random")
    assert made.mean == pytest.approx([0.1307], abs=1e-3)
    assert made.std == pytest.approx([0.3081], abs=1e-3)
