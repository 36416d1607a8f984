"""The estimate of the time left, from made-up numbers and a clock that the test sets."""

from pathlib import Path
from typing import Any

import pytest

from analysis.remaining import seconds_left
from analysis.status import View
from lth.engine.forecast import Forecast, costs_of, costs_of_all, iteration_cost
from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.runs.status import read_status
from tests.conftest import Composer, run_spec


def running(pace: float | None, **left: float) -> dict[str, Any]:
    return {"state": "running", "left": left, "pace": pace, "overrides": []}


@pytest.mark.parametrize(("density", "milliseconds"), [
    (1.0, 1.73), (0.64, 1.32), (0.33, 0.708), (0.21, 0.509), (0.07, 0.225), (0.036, 0.182),
    (0.012, 0.151),
])  # fmt: skip
def test_the_cost_of_a_sparse_iteration_is_that_measured(
    density: float, milliseconds: float
) -> None:
    """The numbers are those of the table in docs/speed.md."""
    assert iteration_cost(density, sparse=True) == pytest.approx(milliseconds / 1.73, rel=0.15)
    assert iteration_cost(density, sparse=False) == 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def trainings(tiny: Composer) -> list[Training]:
    """Four trainings of 12 iterations."""
    return [training for _, training in lottery.levels(tiny())]


def test_the_pace_is_work_by_time_from_one_second_on(trainings: list[Training]) -> None:
    """Iterations of level 1 take half as long as those of level 0, and so on."""
    clock, done = Clock(), set[Training]()
    forecast = Forecast(
        pending=lambda: [t for t in trainings if t not in done],
        cost=lambda training: 0.5**training.mask.level,
        clock=clock,
    )
    name = [training.digest[:12] for training in trainings]
    whole = dict(zip(name, (12, 6, 3, 1.5), strict=True))
    assert forecast.at([trainings[0]], 2) == {"left": {**whole, name[0]: 10}, "pace": None}
    clock.now += 0.5
    assert forecast.at([trainings[0]], 8) == {"left": {**whole, name[0]: 4}, "pace": None}
    clock.now += 0.5
    assert forecast.at([trainings[0]], 10) == {"left": {**whole, name[0]: 2}, "pace": 8}
    done.add(trainings[0])
    clock.now += 1
    expected = {name[1]: 4, name[2]: 3, name[3]: 1.5}  # 10 + 2 units in two seconds
    forecast.at([trainings[1]], 0)
    assert forecast.at([trainings[1]], 4) == {"left": expected, "pace": 6}


def test_trainings_that_run_together_count_together(trainings: list[Training]) -> None:
    clock, done = Clock(), set[Training]()
    pending = lambda: [t for t in trainings if t not in done]  # noqa: E731
    forecast = Forecast(pending, cost=lambda training: 0.5**training.mask.level, clock=clock)
    first, second = trainings[:2], trainings[2:]
    assert sum(forecast.at(first, 0)["left"].values()) == 12 + 6 + 3 + 1.5
    clock.now += 2
    assert sum(forecast.at(first, 8)["left"].values()) == 4 + 2 + 3 + 1.5
    assert (forecast.at(first, 8)["pace"], forecast.done) == (6, 12)
    forecast.at(first[:1], 0)  # both did not fit into memory
    assert forecast.done == 12
    forecast.at(first, 8)
    done.update(first)
    assert [*forecast.at(second, 4)["left"].values()] == [2, 1]
    forecast.at(second, 8)
    assert forecast.done == 18 + 1.5


def test_each_run_of_a_sweep_gives_its_trainings_a_cost(composed: Composer) -> None:
    specs = [composed("preset=lenet", "pruning=one_shot", f"pruning.rates=[{r}]") for r in (98, 99)]
    cost = costs_of_all(specs)
    for spec in specs:
        alone = costs_of(spec)
        trainings = [training for _, training in lottery.levels(spec)]
        assert [*map(cost, trainings)] == [*map(alone, trainings)]


def test_one_shot_levels_cost_what_their_densities_do(composed: Composer) -> None:
    spec = composed("preset=lenet", "pruning=one_shot", "pruning.rates=[5,98]")
    cost = costs_of(spec)
    costs = [cost(training) for _, training in lottery.levels(spec)]  # dense, 95 and 2 %
    assert costs[:2] == [1, 1]
    assert costs[2] == pytest.approx(0.07 + 1.1 * 0.02, rel=0.1)


def test_a_training_that_continues_from_a_checkpoint_did_no_work_before(
    trainings: list[Training],
) -> None:
    clock = Clock()
    forecast = Forecast(pending=lambda: trainings, cost=lambda _: 1.0, clock=clock)
    forecast.at([trainings[0]], 9)
    clock.now += 2
    assert forecast.at([trainings[0]], 11)["pace"] == 1


def test_shared_trainings_count_once_and_runs_work_at_once() -> None:
    runs = [running(10, a=100, b=50), running(20, b=50, c=200)]
    assert seconds_left(runs) == pytest.approx((10 + 2.5 + 10) / 2)
    assert seconds_left([*runs, {"state": "finished"}]) == pytest.approx((10 + 2.5 + 10) / 2)


def test_runs_that_have_not_started_need_as_much_as_the_others() -> None:
    assert seconds_left([running(10, a=100)], unstarted=300) == pytest.approx((100 + 300) / 10)


def test_a_run_without_a_pace_has_that_of_the_others() -> None:
    assert seconds_left([running(10, a=100), running(None, b=60)]) == pytest.approx((10 + 6) / 2)
    assert seconds_left([running(None, b=60)]) is None
    assert seconds_left([]) is None


def test_the_view_says_that_it_is_estimating_until_it_can(tmp_path: Path) -> None:
    view = View(tmp_path, 2)
    first = (tmp_path / "0", running(None, a=100))
    assert "estimating" in view.line([first])
    assert "estimating" not in view.line([])
    shown = view.line([(tmp_path / "0", running(10, a=50))])
    assert "0:15 min left" in shown  # 5 s of this run, 10 s of the other one like it


def test_the_view_shows_what_a_launcher_trains_for_all_runs(tmp_path: Path) -> None:
    view = View(tmp_path, 2)
    view.ahead = (0.25, None)
    assert "runs: starting | 25% in " in view.line([])
    assert view.line([]).endswith(" min, estimating the time left")
    view.ahead = (0.25, 90.0)
    assert view.line([]).endswith(" min, about 1:30 min left")


def test_a_run_records_what_it_has_left_while_it_trains(tiny: Composer, tmp_path: Path) -> None:
    spec = tiny(f"store={tmp_path / 'store'}", "rewind=reinit", "pruning.levels=1")
    seen = []

    def stopping() -> bool:
        status = read_status(tmp_path / "run")
        seen.extend([status["left"]] if "left" in status else [])
        return False

    run_spec(spec, tmp_path / "run", stopping)
    (_, dense), (_, control) = lottery.levels(spec)
    assert seen[0] == {dense.digest[:12]: 12, control.digest[:12]: 12}
    assert "left" not in read_status(tmp_path / "run")
