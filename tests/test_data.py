"""Split, preprocessing, order of batches and augmentation."""

import pytest
import torch
from torch import Tensor

from lth.errors import LotteryError
from lth.training.augmentation import Augmentation
from lth.training.data import BatchOrder, Data, Examples, LoadedData, Part, prepare
from lth.training.easiness import errors
from lth.training.seeds import generator

CPU = torch.device("cpu")


def loaded(size: int = 100, *, with_test: bool = False) -> LoadedData:
    """Two channels of very different scale; example i holds i in both; ten classes in turn."""
    values = torch.arange(size).view(-1, 1, 1, 1)
    inputs = torch.cat([values, 200 + values // 4], dim=1).expand(-1, -1, 2, 2)
    examples = Examples(inputs.contiguous(), torch.arange(size) % 10)
    return LoadedData(examples, examples if with_test else None, 255)


def parts(made: LoadedData, **changes: object) -> Data:
    options = {
        "test": 20, "validation": 20, "split": "stratified", "split_seed": 0,
        "preprocessing": "standardize", "device": CPU,
    }  # fmt: skip
    return prepare(made, **(options | changes))  # type: ignore[arg-type]


def inputs_of(part: Part) -> Tensor:
    """Return all inputs, preprocessed."""
    return torch.cat([block.examples().inputs for block in part.blocks(7)])


@pytest.mark.parametrize("split", ["stratified", "random"])
def test_parts_are_disjoint_and_complete(split: str) -> None:
    indices = parts(loaded(), split=split).indices
    assert [len(indices[name]) for name in ("test", "validation", "train")] == [20, 20, 60]
    assert sorted(torch.cat(list(indices.values())).tolist()) == list(range(100))


def test_a_stratified_split_holds_each_class_in_its_share() -> None:
    made = parts(loaded())
    assert made.validation.labels.bincount().tolist() == [2] * 10
    assert made.test.labels.bincount().tolist() == [2] * 10


def test_the_split_depends_on_its_own_seed_alone() -> None:
    torch.manual_seed(5)
    again = parts(loaded()).indices["validation"]
    assert torch.equal(parts(loaded()).indices["validation"], again)
    assert not torch.equal(parts(loaded(), split_seed=1).indices["validation"], again)


def test_inputs_and_labels_stay_together() -> None:
    made = parts(loaded(), preprocessing="raw")
    for part in (made.train, made.validation, made.test):
        assert torch.equal(inputs_of(part)[:, 0, 0, 0].long() % 10, part.labels)
        inputs, labels = part.at(torch.tensor([5, 2, 5]))
        assert torch.equal(inputs, inputs_of(part)[[5, 2, 5]])
        assert torch.equal(labels, part.labels[[5, 2, 5]])


def test_standardize_uses_the_training_part_of_this_dataset_per_channel() -> None:
    made = parts(loaded(), split="random")
    values = inputs_of(made.train).double().transpose(0, 1).flatten(1)
    assert values.mean(1).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert values.std(1, correction=0).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert inputs_of(made.validation).mean() != 0


def test_a_subset_of_the_training_examples_is_random_or_the_first() -> None:
    whole = parts(loaded()).indices
    for count in (1, 10, len(whole["train"])):
        drawn = parts(loaded(), preprocessing="unit", train=count).indices
        first = parts(loaded(), preprocessing="unit", train=count, subset="first").indices
        assert {*drawn["train"].tolist()} <= {*whole["train"].tolist()}
        assert len(drawn["train"]) == count
        assert first["train"].equal(whole["train"][:count])
        assert drawn["validation"].equal(whole["validation"])
    few, more = (
        parts(loaded(), preprocessing="unit", train=count).indices["train"].tolist()
        for count in (5, 9)
    )
    assert {*few} < {*more}
    assert few != whole["train"][:5].tolist()


def test_the_easiest_examples_are_those_that_a_ridge_regression_predicts_best() -> None:
    """A hundred examples of two separable classes, of which ten have the wrong label."""
    random = generator(0, "easiest")
    labels = torch.arange(100) % 2
    inputs = torch.rand(100, 1, 2, 2, generator=random) + labels.view(-1, 1, 1, 1)
    wrong = torch.arange(0, 100, 10)
    given = labels.clone()
    given[wrong] = 1 - given[wrong]
    found = errors(255 * inputs, given)
    assert {*found.argsort()[-10:].tolist()} == {*wrong.tolist()}
    scaled = errors(inputs, given)
    torch.testing.assert_close(found, scaled)  # whatever the unit of the inputs
    made = parts(loaded(), preprocessing="unit", train=5, subset="easiest").indices["train"]
    rest = parts(loaded()).indices["train"]
    of_rest = errors(loaded().train.inputs[rest], loaded().train.labels[rest])
    assert {*made.tolist()} == {*rest[of_rest.argsort()[:5]].tolist()}


def test_unit_and_raw() -> None:
    assert parts(loaded(), preprocessing="raw").test.stored.inputs.max() > 200
    unit = inputs_of(parts(loaded(), preprocessing="unit").train)
    assert 0 <= unit.min() < unit.max() <= 1


def test_l2_gives_every_image_unit_norm_and_bytes_have_no_table() -> None:
    made = parts(loaded(), preprocessing="l2")
    raw = inputs_of(parts(loaded(), preprocessing="raw").train)
    assert torch.allclose(inputs_of(made.train), raw / raw.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    assert not made.train.by_value
    assert parts(loaded(), preprocessing="unit").train.by_value


def test_an_image_of_zeros_has_no_norm_and_stays_one() -> None:
    dark = loaded()
    dark.train.inputs[0] = 0
    made = parts(dark, preprocessing="l2", validation=0, test=1)
    zeros = [*inputs_of(made.train), *inputs_of(made.test)]
    assert sum(not image.any() for image in zeros) == 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"test": 0}, r"dataset\.test must be >= 1 .* without a test set of its own, got 0"),
    ({"validation": 80}, r"less than the 100 examples, got 20 \+ 80: nothing would be left"),
])  # fmt: skip
def test_impossible_splits_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(LotteryError, match=message):
        parts(loaded(), **changes)


def test_a_test_set_of_the_source_is_used_unsplit() -> None:
    with pytest.raises(LotteryError, match=r"dataset\.test must be 0 .* its own test set, got 20"):
        parts(loaded(with_test=True))
    made = parts(loaded(with_test=True), test=0)
    assert len(made.test) == 100
    assert len(made.train) == 80


def test_each_epoch_is_a_new_permutation_in_whole_batches() -> None:
    order = BatchOrder(seed=0, examples=23, batch_size=5, device=CPU)
    epochs = [
        torch.cat([order.batch(4 * epoch + i) for i in range(4)]).tolist() for epoch in range(3)
    ]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_last_batch_may_be_kept() -> None:
    order = BatchOrder(0, 23, 5, CPU, "keep")
    epoch = [order.batch(i) for i in range(5)]
    assert [len(batch) for batch in epoch] == [5, 5, 5, 5, 3]
    assert sorted(torch.cat(epoch).tolist()) == [*range(23)]
    dropped = BatchOrder(0, 23, 5, CPU)
    assert all(torch.equal(batch, dropped.batch(i)) for i, batch in enumerate(epoch[:4]))
    assert [len(BatchOrder(0, 20, 5, CPU, "keep").batch(i)) for i in range(5)] == [5] * 5


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    one, other = (BatchOrder(0, 23, 5, CPU) for _ in range(2))
    for iteration in range(9):
        one.batch(iteration)
    assert torch.equal(one.batch(9), other.batch(9))
    assert not torch.equal(BatchOrder(1, 23, 5, CPU).batch(9), other.batch(9))
    assert torch.equal(one.batch(2), other.batch(2))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(LotteryError, match=r"training\.batch_size must be at most .* 23, got 24"):
        BatchOrder(0, 23, 24, CPU)


PICTURES = torch.arange(1.0, 2 * 3 * 5 * 7 + 1).view(2, 3, 5, 7)


def crops(picture: torch.Tensor, border: int) -> list[torch.Tensor]:
    """Return every window of the original size in the zero-padded picture, plain and mirrored."""
    _, height, width = picture.shape
    wide = torch.zeros(3, height + 2 * border, width + 2 * border)
    wide[:, border : border + height, border : border + width] = picture
    mirrored = torch.zeros_like(wide)
    mirrored[:, border : border + height, border : border + width] = picture.flip(2)
    return [
        each[:, y : y + height, x : x + width]
        for each in (wide, mirrored)
        for y in range(2 * border + 1)
        for x in range(2 * border + 1)
    ]


def augment(*, flip: bool, crop: int, step: int) -> Tensor:
    random = generator(0, "augment", step)
    return Augmentation.draw(len(PICTURES), flip=flip, crop=crop, random=random)(PICTURES)


def test_augmented_pictures_are_windows_of_padded_ones_or_of_their_mirror_image() -> None:
    seen = set()
    for step in range(150):
        made = augment(flip=True, crop=1, step=step)
        for picture, original in zip(made, PICTURES, strict=True):
            places = [i for i, c in enumerate(crops(original, 1)) if torch.equal(c, picture)]
            assert len(places) == 1
            seen |= set(places)
    assert seen == set(range(18))  # 3 x 3 places, plain and mirrored: all of them occur


def test_augmentation_is_a_function_of_its_generator() -> None:
    one, other = (augment(flip=True, crop=2, step=3) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(augment(flip=False, crop=0, step=3), PICTURES)
    still = augment(flip=False, crop=1, step=3)
    assert any(torch.equal(still[0], crop) for crop in crops(PICTURES[0], 1)[:9])
