"""The plan measures steps on this machine."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hydra_plugins.lth_launchers.plan import of_bfloat16, report
from lth.engine import step_cost
from lth.engine.plan import plan
from lth.engine.step_cost import Comparison, compare_precisions, dense_seconds
from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.store.store import Store
from tests.conftest import Composer

CPU = torch.device("cpu")


def trainings(compose: Composer, *overrides: str) -> list[Training]:
    return [training for _, training in lottery.levels(compose(*overrides))]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the clock by one that takes three seconds in float32 and one in bfloat16."""
    called: list[str] = []

    def seconds(recipe: object, *precisions: str, device: torch.device) -> list[float]:
        assert device == CPU
        called.append(repr(recipe))
        return [{"float32": 3.0, "bfloat16": 1.0}[name] for name in precisions]

    monkeypatch.setattr(step_cost, "step_seconds", seconds)
    return called


def test_the_network_with_the_most_iterations_is_measured(
    tiny: Composer, measured: list[str]
) -> None:
    few = trainings(tiny, "model.widths=[9,8]", "pruning.levels=1")
    many = trainings(tiny, "model.widths=[7,5]", "pruning.levels=3")
    assert compare_precisions([*few, *many], CPU) == Comparison("lenet", 3.0, 1.0)
    assert len(measured) == 1
    assert "[7, 5]" in measured[0]


def test_trainings_in_bfloat16_are_measured_and_those_in_tf32_are_not(
    tiny: Composer, measured: list[str]
) -> None:
    assert compare_precisions(trainings(tiny, "training.precision=tf32"), CPU) is None
    assert compare_precisions([], CPU) is None
    assert not measured
    rounded = trainings(tiny, "training.precision=bfloat16")
    assert compare_precisions(rounded, CPU) == Comparison("lenet", 3.0, 1.0)


def test_a_step_is_measured_in_each_precision(
    tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_cost, "SECONDS", 0.0)
    (training,) = trainings(tiny, "pruning.levels=0")
    times = step_cost.step_seconds(training.recipe, "float32", "bfloat16", device=CPU)
    assert len(times) == 2
    assert min(times) > 0


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (Comparison("conv", 0.16, 0.05), "takes 50 ms instead of 160 .* 3.2 times faster"),
        (Comparison("lenet", 0.0015, 0.0014), "takes 1.4 ms instead of 1.5 .* no difference"),
        (Comparison("conv", 0.36, 4.7), "takes 4,700 ms instead of 360 .* 13.1 times slower"),
    ],
)
def test_the_line_says_what_is_saved_or_lost(comparison: Comparison, expected: str) -> None:
    assert re.search(expected, of_bfloat16(comparison))


def test_the_steps_of_each_kind_are_measured_once(tiny: Composer, measured: list[str]) -> None:
    exact = trainings(tiny, "pruning.levels=1")
    rounded = trainings(tiny, "pruning.levels=2", "training.precision=bfloat16")
    assert dense_seconds([*exact, *rounded], CPU) == 2 * 12 * 3.0 + 3 * 12 * 1.0
    assert len(measured) == 2
    assert dense_seconds([], CPU) == 0


def test_without_timing_data_the_plan_gives_the_time_of_dense_steps(
    tiny: Composer, tmp_path: Path
) -> None:
    made = plan({"": tiny}, Store(tmp_path))
    assert (len(made.untimed), made.iterations) == (4, 48)
    (line,) = [line for line in report(made, 480.0, None, "store", jobs=2) if "[bold]time" in line]
    assert line == (
        "[bold]time[/]: networks like which none is in the store (4): their steps alone take 8:00 "
        "min of one process, 4:00 min of 2 at once, if each takes as long as a dense one does here"
    )
    some = replace(made, untimed=made.untimed[:1], seconds=60.0)
    (line,) = [line for line in report(some, 90.0, None, "store", jobs=1) if "[bold]time" in line]
    assert "1:00 min of one process; networks like which none is in the store (1): the" in line
