"""Learning rates by hand."""

import pytest

from lth.experiment.schedule import constant_at_end, factor
from lth.experiment.settings import Optimizer, Schedule


def factors(
    kind: str, steps: int, *, milestones: tuple[int, ...] = (), warmup: int = 0
) -> list[float]:
    schedule = Schedule(kind, milestones, 0.1, warmup)  # type: ignore[arg-type]
    return [factor(schedule, iteration, steps) for iteration in range(steps + 1)]


def test_constant() -> None:
    assert factors("constant", 3) == [1, 1, 1, 1]


def test_warmup_rises_from_zero_to_the_whole_rate() -> None:
    assert factors("constant", 5, warmup=4) == [0, 0.25, 0.5, 0.75, 1, 1]


def test_multistep_falls_at_its_milestones() -> None:
    assert factors("multistep", 5, milestones=(2, 4)) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_papers_resnet_reaches_its_rate_where_it_first_falls() -> None:
    schedule = Schedule("multistep", (20_000, 25_000), 0.1, 20_000)
    found = [factor(schedule, i, 30_000) for i in (0, 10_000, 19_999, 20_000, 25_000)]
    assert found == pytest.approx([0, 0.5, 0.99995, 0.1, 0.01])


def test_cosine_goes_from_one_to_zero() -> None:
    assert factors("cosine", 4) == pytest.approx([1, 0.8535534, 0.5, 0.1464466, 0])


def test_fine_tuning_holds_the_last_rate() -> None:
    optimizer = Optimizer(
        "some.SGD", {"lr": 0.5, "momentum": 0.9}, None, Schedule("multistep", (6, 8), 0.1, 3)
    )
    held = constant_at_end(optimizer, 10)
    assert held.options == {"lr": pytest.approx(0.005), "momentum": 0.9}
    assert [factor(held.schedule, i, 10) for i in (0, 9)] == [1, 1]
