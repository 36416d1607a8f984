import json
import math
from pathlib import Path

import pytest

from analysis.collect import read_csv
from lth.errors import Interrupted, LotteryError
from lth.experiment.results import Evaluation, Outcome, curve_from_csv, curve_to_csv
from lth.runs.folder import RunFolder
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS

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


def test_the_tables_of_a_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.add(1, "digest 1", OUTCOME, cached=True)
        folder.add(0, "digest 0", OUTCOME, cached=False)
    levels = read_csv(tmp_path / "levels.csv")
    assert tuple(levels.columns) == (*LEVEL_COLUMNS, "density/a", "density/b")
    assert levels["level"].tolist() == [0, 1]
    first = levels.iloc[0]
    assert (first.density, first.weights_remaining) == (0.5, 40)
    assert (first.early_stop_iteration, first.early_stop_test_accuracy) == (10, 0.75)
    assert (first.early_stop_train_accuracy, first.final_train_accuracy) == (0.95, 1.0)
    assert (first.final_iteration, first.final_test_accuracy) == (20, 0.9)
    assert levels["cached"].tolist() == [False, True]
    metrics = read_csv(tmp_path / "metrics.csv")
    assert tuple(metrics.columns) == METRIC_COLUMNS
    assert metrics["iteration"].tolist() == [0, 10, 20] * 2
    assert metrics["train_loss"].isna().tolist() == [True, False, False] * 2
    assert metrics["train_loss"][1] == 1 / 3


def status(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run.json").read_bytes())
    return content


def test_run_json_says_how_a_run_ended(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a", {"overrides": ["seed=1"]}) as folder:
        assert status(tmp_path / "a")["state"] == "running"
        folder.add(0, "digest", OUTCOME, cached=False)
    assert status(tmp_path / "a")["state"] == "finished"
    assert status(tmp_path / "a")["overrides"] == ["seed=1"]
    with pytest.raises(Interrupted), RunFolder(tmp_path / "b", {}):
        raise Interrupted
    assert status(tmp_path / "b")["state"] == "interrupted"
    with pytest.raises(LotteryError, match="seed=-1"), RunFolder(tmp_path / "c", {}):
        raise LotteryError("seed=-1: too low")
    assert status(tmp_path / "c")["error"] == "seed=-1: too low"
    with pytest.raises(LotteryError, match="ZeroDivisionError"), RunFolder(tmp_path / "d", {}):
        print(1 / 0)
    assert status(tmp_path / "d")["state"] == "failed"
    assert not (tmp_path / "d" / "lock").exists()


def test_tables_of_an_earlier_run_in_the_folder_are_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}) as folder:
        folder.add(0, "digest", OUTCOME, cached=False)
    with pytest.raises(LotteryError), RunFolder(tmp_path, {}):
        raise LotteryError("killed in level 0")
    assert not (tmp_path / "levels.csv").exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {}), pytest.raises(LotteryError, match="is writing its run there"):
        RunFolder(tmp_path, {}).__enter__()
