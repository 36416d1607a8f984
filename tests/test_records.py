"""The tables and run.json of a run's folder."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lth.errors import Interrupted, LotteryError
from lth.experiment.node import FORMAT
from lth.experiment.nodes import Measurement
from lth.experiment.results import (
    Evaluation,
    Outcome,
    Row,
    curve_from_csv,
    curve_to_csv,
    numbers,
    rows_from_csv,
)
from lth.runs.folder import RunFolder
from lth.runs.records import (
    LEVEL_COLUMNS,
    METRIC_COLUMNS,
    PROBE_COLUMNS,
    RUN_COLUMNS,
    is_whole,
)
from lth.store.files import checksum
from tests.trainings import recipe, task_of

NAN = float("nan")
CURVE = [
    Evaluation(0, 0.1, NAN, 2.3, 0.1, 2.4, 0.15),
    Evaluation(10, 0.1, 1 / 3, 0.5, 0.8, 0.6, 0.75),
    Evaluation(20, 0.1, 0.25, 0.7, 0.85, 0.8, 0.9),
]
OUTCOME = Outcome(CURVE, 0.95, 1.0, {"a": (30, 60), "b": (10, 20)}, 1.23456)


def test_a_curve_reads_back_as_it_was() -> None:
    read = curve_from_csv(curve_to_csv(CURVE))
    assert math.isnan(read[0].train_loss)
    assert read[1:] == CURVE[1:]


TRAINING = task_of(recipe()).training


class Twice(Measurement):
    """A probe with one column."""

    tag = "twice"
    table = "twice"
    columns = ("value",)

    def content(self) -> dict[str, Any]:
        return {}


def read(file: Path) -> dict[str, list[str]]:
    """Return the columns of a table."""
    rows = rows_from_csv(file.read_bytes())
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_the_tables_of_a_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.add(1, TRAINING, OUTCOME, cached=True)
        folder.add(0, TRAINING, OUTCOME, cached=False)
    levels = read(tmp_path / "levels.csv")
    assert tuple(levels) == (*LEVEL_COLUMNS, *RUN_COLUMNS, "density/a", "density/b")
    assert levels["level"] == ["0", "1"]
    assert levels["training"] == [TRAINING.digest] * 2
    expected = {
        "density": 0.5, "weights_remaining": 40, "early_stop_iteration": 10,
        "early_stop_test_accuracy": 0.75, "early_stop_train_accuracy": 0.95,
        "final_train_accuracy": 1.0, "final_iteration": 20, "final_test_accuracy": 0.9,
        "collapsed": 0, "seconds": 1.235, "density/a": 0.5, "density/b": 0.5,
    }  # fmt: skip
    assert {name: float(levels[name][0]) for name in expected} == expected
    assert levels["cached"] == ["False", "True"]
    metrics = read(tmp_path / "metrics.csv")
    assert tuple(metrics) == METRIC_COLUMNS
    assert metrics["iteration"] == ["0", "10", "20"] * 2
    assert metrics["train_loss"] == ["", repr(1 / 3), "0.25"] * 2


def test_the_table_of_a_probe_has_its_name_and_the_levels_that_are_there(tmp_path: Path) -> None:
    rows: list[Row] = [{"value": 1 / 3}, {"value": NAN}]
    with RunFolder(tmp_path, {}) as folder:
        folder.add(1, Twice(), rows, cached=True)  # of a level that is not recorded yet
        folder.add(0, TRAINING, OUTCOME, cached=True)
        folder.add(0, Twice(), rows, cached=False)
        assert read(tmp_path / "twice.csv")["level"] == ["0", "0"]
        folder.add(1, TRAINING, OUTCOME, cached=False)
    table = rows_from_csv((tmp_path / "twice.csv").read_bytes())
    assert tuple(table[0]) == (*PROBE_COLUMNS, "value")
    found = [numbers(row) for row in table]
    assert repr(found) == repr([[n, 0.5, value] for n in (0, 1) for value in (1 / 3, NAN)])
    written = status(tmp_path)["tables"]
    assert written == {
        name: checksum((tmp_path / name).read_bytes())
        for name in ("levels.csv", "metrics.csv", "twice.csv")
    }


def status(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_bytes())
    return content


def test_run_json_has_the_state_in_which_a_run_ended(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a", {"overrides": ["seed=1"]}) as folder:
        assert status(tmp_path / "a")["state"] == "running"
        folder.add(0, TRAINING, OUTCOME, cached=False)
    assert status(tmp_path / "a")["state"] == "finished"
    assert status(tmp_path / "a")["overrides"] == ["seed=1"]
    assert (status(tmp_path / "a")["format"], status(tmp_path / "a")["done"]) == (FORMAT, 1)
    assert is_whole(status(tmp_path / "a"))
    assert not is_whole(status(tmp_path / "a") | {"done": 2})
    with pytest.raises(Interrupted), RunFolder(tmp_path / "b", {}):
        raise Interrupted
    assert status(tmp_path / "b")["state"] == "interrupted"
    with pytest.raises(LotteryError, match="seed must be >= 0"), RunFolder(tmp_path / "c", {}):
        raise LotteryError("seed must be >= 0, got -1")
    assert status(tmp_path / "c")["error"] == "seed must be >= 0, got -1"
    with pytest.raises(LotteryError, match="ZeroDivisionError"), RunFolder(tmp_path / "d", {}):
        print(1 / 0)
    assert status(tmp_path / "d")["state"] == "failed"
    assert not (tmp_path / "d" / "lock").exists()


def test_tables_of_an_earlier_run_in_the_folder_are_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.add(0, TRAINING, OUTCOME, cached=False)
    with pytest.raises(LotteryError), RunFolder(tmp_path, {}):
        raise LotteryError("killed in level 0")
    assert not (tmp_path / "levels.csv").exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, {}),
        pytest.raises(LotteryError, match=r"is in use: .* writes its run there"),
    ):
        RunFolder(tmp_path, {}).__enter__()
