"""Early stops near the lowest validation loss, on the published trials."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.collect import collect
from analysis.early import near_minimum
from analysis.reading import METRICS
from analysis.runs import Runs
from lth.errors import LotteryError
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def runs() -> Runs:
    return collect([ROOT / "multirun/reference/lenet/iterative"])


def test_without_tolerance_early_stops_are_those_of_the_runs(runs: Runs) -> None:
    pd.testing.assert_frame_equal(near_minimum(runs, 0.0).levels, runs.levels)


@pytest.mark.parametrize("tolerance", [0.05, 0.5])
def test_the_stop_is_the_first_loss_within_the_tolerance(runs: Runs, tolerance: float) -> None:
    near = near_minimum(runs, tolerance).levels.set_index(["run", "level"])
    for (run, level), row in near.iterrows():
        curve = pd.read_csv(Path(run) / METRICS).query(f"level == {level}")
        bound = curve["val_loss"].min() * (1 + tolerance)
        stop = row["early_stop_iteration"]
        assert (curve.loc[curve["iteration"] < stop, "val_loss"] > bound).all()
        (at_stop,) = curve[curve["iteration"] == stop].to_dict("records")
        assert at_stop["val_loss"] <= bound
        assert row["early_stop_test_accuracy"] == at_stop["test_accuracy"]


def test_a_tiny_tolerance_gives_the_minimum(runs: Runs) -> None:
    stops = [of.levels.set_index(["run", "level"]) for of in (runs, near_minimum(runs, 1e-9))]
    both = [of.sort_index()["early_stop_iteration"].tolist() for of in stops]
    assert both[0] == both[1]


def test_titles_name_the_tolerance(runs: Runs) -> None:
    near = near_minimum(runs, 0.05)
    ending = " (early stop: loss within 5 % of the lowest)"
    assert near.levels["experiment"].str.endswith(ending).all()


@pytest.mark.parametrize("tolerance", [-0.1, 1, 5])
def test_a_tolerance_outside_0_to_1_is_refused(runs: Runs, tolerance: float) -> None:
    with pytest.raises(LotteryError, match=r"a fraction, got .*; 0\.05 is 5 %"):
        near_minimum(runs, tolerance)
