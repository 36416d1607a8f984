"""The plan measures bfloat16 on the network that the sweep trains most."""

import re
from pathlib import Path

import pytest
import torch

from hydra_plugins.lth_launchers.plan import of_bfloat16, report
from lth.engine import precision_cost
from lth.engine.plan import Plan, plan
from lth.engine.precision_cost import Saving, bfloat16_saving
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

    monkeypatch.setattr(precision_cost, "step_seconds", seconds)
    return called


def test_the_network_with_the_most_iterations_is_measured(
    tiny: Composer, measured: list[str]
) -> None:
    few = trainings(tiny, "model.widths=[9,8]", "pruning.levels=1")
    many = trainings(tiny, "model.widths=[7,5]", "pruning.levels=3")
    assert bfloat16_saving([*few, *many], CPU) == Saving("lenet", 3.0, 1.0)
    assert len(measured) == 1
    assert "[7, 5]" in measured[0]


def test_trainings_in_bfloat16_and_nothing_at_all_are_not_measured(
    tiny: Composer, measured: list[str]
) -> None:
    assert bfloat16_saving(trainings(tiny, "training.precision=bfloat16"), CPU) is None
    assert bfloat16_saving([], CPU) is None
    assert not measured


def test_a_step_is_measured_in_each_precision(
    tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_cost, "SECONDS", 0.0)
    (training,) = trainings(tiny, "pruning.levels=0")
    times = precision_cost.step_seconds(training.recipe, "float32", "bfloat16", device=CPU)
    assert len(times) == 2
    assert min(times) > 0


@pytest.mark.parametrize(
    ("saving", "expected"),
    [
        (Saving("conv", 0.16, 0.05), "takes 50 ms instead of 160 .* 3.2 times faster"),
        (Saving("lenet", 0.0015, 0.0014), "takes 1.4 ms instead of 1.5 .* no gain here"),
    ],
)
def test_the_line_says_what_would_be_saved(saving: Saving, expected: str) -> None:
    assert re.search(expected, of_bfloat16(saving))


def time_line(made: Plan, saving: Saving | None) -> str:
    (line,) = [line for line in report(made, saving, "store", jobs=2) if "[bold]time" in line]
    return line


def test_without_timing_data_the_plan_gives_the_time_of_dense_steps(
    tiny: Composer, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    made = plan({"": tiny}, store)
    assert (made.untimed, made.iterations) == (4, 48)
    lacking = "4 of the networks have no timing data: run one of their kind with few levels"
    assert time_line(made, Saving("lenet", 10.0, 5.0)) == (
        "[bold]time[/]: unknown; 8:00 min of one process if every step took as long as a dense "
        f"one does here; {lacking}"
    )
    assert time_line(made, None) == f"[bold]time[/]: unknown; {lacking}"
    both = plan({"": tiny, "other": lambda: tiny("model.widths=[7,5]")}, store)
    assert "dense" not in time_line(both, Saving("lenet", 10.0, 5.0))
