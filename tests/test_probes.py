"""Lines between copies of a network: what is described, what is computed, what a run records."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from lth.engine.engine import Engine
from lth.experiment import lottery
from lth.experiment.nodes import Line, Snapshot
from lth.training import interpolation
from lth.training.data import Examples, Part
from tests.conftest import Composer
from tests.test_run import run, run_folders


def test_a_line_goes_evenly_from_the_one_end_to_the_other() -> None:
    model = nn.Linear(1, 2, bias=False)
    one, other = {"weight": torch.tensor([[4.0], [0.0]])}, {"weight": torch.tensor([[0.0], [2.0]])}
    part = Part(Examples(torch.ones(2, 1), torch.tensor([0, 1])), lambda x: x)
    found = list(interpolation.along(model, one, other, 3, part))
    assert [point.share for point in found] == [0.0, 0.5, 1.0]
    for point, logits in zip(found, [(4.0, 0.0), (2.0, 1.0), (0.0, 2.0)], strict=True):
        losses = torch.logsumexp(torch.tensor(logits), 0) - torch.tensor(logits)
        torch.testing.assert_close(torch.tensor(point.test_loss), losses.mean())
        assert point.test_accuracy == 0.5


def test_counts_of_batches_are_not_put_between() -> None:
    assert interpolation.between(torch.tensor(3), torch.tensor(8), 0.5) == 3


def test_the_copies_differ_in_their_order_alone(tiny: Composer) -> None:
    levels = dict(lottery.levels(tiny()))
    from_start = dict(lottery.lines(tiny("probe=connectivity")))
    assert from_start.keys() == levels.keys()
    for level, line in from_start.items():
        assert line.one == levels[level]  # nothing to train for it
        assert (line.one.order, line.other.order) == (0, 1)
        assert line.one.weights == line.other.weights
        assert line.one.mask == line.other.mask
    for level, line in lottery.lines(tiny("probe=connectivity", "probe.iteration=5")):
        assert line.one.weights == line.other.weights == Snapshot(levels[level], 5)
        assert line.one.start == line.other.start == 5


def test_late_rewound_tickets_part_where_they_start(tiny: Composer) -> None:
    spec = tiny("probe=connectivity", "probe.iteration=5", "rewind=late", "rewind.iteration=5")
    levels = dict(lottery.levels(spec))
    assert all(line.one == levels[level] for level, line in lottery.lines(spec) if level)


def test_without_a_probe_there_are_no_lines(tiny: Composer) -> None:
    assert not list(lottery.lines(tiny()))


def test_the_ends_are_the_trainings_and_one_training_has_no_barrier(
    engine: Engine, tiny: Composer
) -> None:
    (_, dense), *_ = lottery.levels(tiny())
    outcomes = dict(engine.ensure([dense]))
    ((_, line),) = engine.lines([Line(dense, dense, 4)])
    last = outcomes[dense].curve[-1]
    assert {(p.test_loss, p.test_accuracy) for p in line} == {(last.test_loss, last.test_accuracy)}


def test_a_copy_sees_other_batches(engine: Engine, tiny: Composer) -> None:
    (_, line), *_ = lottery.lines(tiny("probe=connectivity"))
    found = dict(engine.ensure([line.one, line.other]))
    assert found[line.one].curve[0][3:] == found[line.other].curve[0][3:]  # the same start
    assert found[line.one].curve[1] != found[line.other].curve[1]


def test_a_line_that_another_process_has_drawn_stays(engine: Engine, tiny: Composer) -> None:
    (_, line), *_ = lottery.lines(tiny("probe=connectivity"))
    ((_, points),) = engine.lines([line])
    assert engine.store.is_made(line)
    engine.store.publish(line, {"line.csv": b"another"})
    assert engine.store.line(line) == points


@pytest.mark.slow
def test_a_run_records_its_lines_once_and_keeps_the_snapshots_they_need(tmp_path: Path) -> None:
    probed = ("probe=connectivity", "probe.iteration=5", "probe.points=4", "pruning.levels=1")
    first = run(tmp_path, *probed, "hydra.run.dir=multirun/a/b")
    assert first.returncode == 0, first.stderr
    again = run(tmp_path, *probed, "hydra.run.dir=multirun/a/c")
    one, other = run_folders(tmp_path)
    assert "0 networks trained" in again.stdout
    table = pd.read_csv(one / "connectivity.csv")
    assert table.equals(pd.read_csv(other / "connectivity.csv"))
    assert list(table["level"]) == [0] * 4 + [1] * 4
    assert set(table["iteration"]) == {5}
    assert list(table["share"][:4]) == [0.0, 1 / 3, 2 / 3, 1.0]
    status = json.loads((one / "run.json").read_bytes())
    assert status["trained"] == 2 + 4  # two levels, two copies of each
    assert "connectivity.csv" in status["tables"]
