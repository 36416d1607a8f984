"""Accuracy against the number of examples that found the mask, from hand-written tables."""

from pathlib import Path

import pytest

from analysis.collect import collect
from analysis.needs import Lacking
from analysis.source_figures import data_share
from tests.test_analysis import numbers, write_run

DATA = {
    "optimizer.name": "sgd", "dataset.subset": "random", "dataset.examples": 1000,
    "dataset.validation": 100, "dataset.test": 0, "dataset.train": None,
}  # fmt: skip


def write(
    folder: Path, train: int | None, subset: str | None, *, shift: float, **other: object
) -> None:
    source = {"source.dataset.train": train, "source.dataset.subset": subset,
              "source.optimizer.name": "sgd", "source.optimizer.options.lr": 0.1}  # fmt: skip
    own = DATA | (source if train else {}) | other
    name = f"ticket of {train} {subset} {other}"
    write_run(folder / name, seed=0, arm=name, shift=shift, settings=own)


def test_the_last_point_of_each_line_is_the_ticket_of_all_examples(tmp_path: Path) -> None:
    write(tmp_path, None, None, shift=0.0)
    for train, subset, shift in ((90, "random", -0.1), (9, "random", -0.2), (90, "easiest", -0.3)):
        write(tmp_path, train, subset, shift=shift)
    random = {"pruning.criterion.name": "random"}
    write(tmp_path, None, None, shift=0.05, **random)  # no ticket of all examples
    write(tmp_path, 90, "random", shift=0.05, **{"source.optimizer.options.lr": 0.2})
    write(tmp_path, 900, "random", shift=0.05)  # these are all examples
    write(tmp_path, 90, "random", shift=0.05, **{"rewind.shuffle": True})
    write(tmp_path, 90, "random", shift=0.05, **{"rewind.pruned": "frozen"})
    found = numbers(data_share(collect([tmp_path]))).reset_index()
    level = found[found["level"] == 1].set_index(["arm", "examples"])["mean"]
    dense = 0.9 - 0.01 - 0.001
    assert level.to_dict() == pytest.approx({
        ("random examples", 9): dense - 0.2, ("random examples", 90): dense - 0.1,
        ("random examples", 900): dense,
        ("easiest examples", 90): dense - 0.3, ("easiest examples", 900): dense,
    })  # fmt: skip
    assert set(found["level"]) == {1, 2}  # level 0 has no mask


def test_it_needs_tickets_that_were_found_with_fewer(tmp_path: Path) -> None:
    write(tmp_path, None, None, shift=0.0)
    with pytest.raises(Lacking, match="found with fewer examples"):
        data_share(collect([tmp_path]))
