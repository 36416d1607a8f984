"""Probes: what they measure, what is computed, and what a run records."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lth import models
from lth.engine.engine import Engine
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Final, Measurement, Snapshot
from lth.experiment.results import rows_from_csv
from lth.experiment.settings import Spec
from lth.probes import Connectivity
from lth.training import interpolation, masks
from lth.training.data import Batch, BatchOrder, Examples, Part
from tests.conftest import Composer, engine_on
from tests.typed import run, run_folders


def measured(spec: Spec) -> dict[int, Measurement]:
    """Return what the probe of a run measures, by level."""
    return dict(lottery.measurements(spec, dict(lottery.levels(spec))))


def lines(spec: Spec) -> dict[int, Connectivity]:
    found = measured(spec)
    assert all(isinstance(line, Connectivity) for line in found.values())
    return found  # type: ignore[return-value]


def test_a_line_goes_evenly_from_one_end_to_the_other() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    one, other = ({"1.weight": torch.tensor(w)} for w in ([[4.0], [0.0]], [[0.0], [2.0]]))
    part = Part(Examples(torch.ones(2, 1, 1, 1), torch.tensor([0, 1])), lambda x: x)
    found = list(interpolation.along(model, one, other, points=3, part=part))
    assert [point.fraction for point in found] == [0.0, 0.5, 1.0]
    for point, logits in zip(found, [(4.0, 0.0), (2.0, 1.0), (0.0, 2.0)], strict=True):
        losses = torch.logsumexp(torch.tensor(logits), 0) - torch.tensor(logits)
        torch.testing.assert_close(torch.tensor(point.test_loss), losses.mean())
        assert point.test_accuracy == 0.5


def test_counters_are_not_interpolated() -> None:
    assert interpolation.between(torch.tensor(3), torch.tensor(8), 0.5) == 3


def test_the_copies_differ_in_their_data_order_alone(tiny: Composer) -> None:
    levels = dict(lottery.levels(tiny()))
    from_start = lines(tiny("probe=connectivity"))
    assert from_start.keys() == levels.keys()
    for level, line in from_start.items():
        assert line.one == levels[level]  # nothing to train for it
        assert (line.one.data_order, line.other.data_order) == (0, 1)
        assert line.one.weights == line.other.weights
        assert line.one.mask == line.other.mask
    for level, line in lines(tiny("probe=connectivity", "probe.iteration=5")).items():
        assert line.one.weights == line.other.weights == Snapshot(levels[level], 5)
        assert line.one.start == line.other.start == 5


def test_late_rewound_tickets_part_where_they_start(tiny: Composer) -> None:
    spec = tiny("probe=connectivity", "probe.iteration=5", "rewind=late", "rewind.iteration=5")
    levels = dict(lottery.levels(spec))
    assert all(line.one == levels[level] for level, line in lines(spec).items() if level)


def test_gradient_flow_is_the_squared_norm_over_what_survives(
    engine: Engine, tiny: Composer
) -> None:
    spec = tiny("probe=gradient_flow", "probe.iterations=[0,5,12]", "training.iterations=12")
    trainings, build = dict(lottery.levels(spec)), engine.maker.build
    found = dict(engine.ensure(measured(spec).values()))
    for level, node in measured(spec).items():
        training = trainings[level]
        train = build.data(training.recipe).train
        inputs, labels = Batch(train, torch.arange(len(train))).examples()
        rows = found[node]
        assert [row["iteration"] for row in rows] == [0, 5, 12]
        for row, weights in zip(
            rows, (training.weights, Snapshot(training, 5), Final(training)), strict=True
        ):
            model, mask = build.model(training), build.stored_mask(training)
            state = build.weights(weights, training.recipe.network)
            models.load(model, masks.apply(state, mask))
            loss = cross_entropy(model(inputs), labels)
            names, parameters = zip(*model.named_parameters(), strict=True)
            gradients = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
            total = sum(float((g * mask.get(n, 1)).square().sum()) for n, g in gradients.items())
            assert row["gradient_flow"] == pytest.approx(total, rel=1e-4)
            assert row["train_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_gradient_flow_uses_the_statistics_of_batches(engine: Engine, composed: Composer) -> None:
    spec = composed(
        "model=resnet20", "dataset=digits", "dataset.train=23", "training.iterations=1",
        "training.batch_size=10", "pruning.levels=0", "probe=gradient_flow", "probe.iterations=[0]",
    )  # fmt: skip
    ((_, (row,)),) = engine.ensure(measured(spec).values())
    training, build = dict(lottery.levels(spec))[0], engine.maker.build
    model, train = build.model(training), build.data(training.recipe).train
    model.train()
    order = BatchOrder(training.seed, len(train), 10, train.labels.device)
    batches = (Batch(train, order.batch(number)).examples() for number in (0, 1))
    losses = [cross_entropy(model(inputs), labels) for inputs, labels in batches]
    loss = torch.stack(losses).mean()
    total = sum(float((g**2).sum()) for g in torch.autograd.grad(loss, [*model.parameters()]))
    assert row["gradient_flow"] == pytest.approx(total, 1e-3)
    assert row["train_loss"] == pytest.approx(float(loss.detach()), 1e-5)


def test_operations_count_each_use_of_a_surviving_weight(
    engine: Engine, composed: Composer
) -> None:
    spec = composed(
        "model=conv2", "dataset=digits", "training.iterations=2", "pruning.levels=1",
        "probe=flops",
    )  # fmt: skip
    found = dict(engine.ensure(measured(spec).values()))
    dense, pruned = (found[node][0] for node in measured(spec).values())
    # 8x8 images: two 3x3 convolutions at 64 places, then 4x4x64 inputs, 256, 256, 10
    weights = [64 * 9 * 64, 64 * 64 * 9 * 64, 1024 * 256, 256 * 256, 2560]
    assert dense == {"flops": 2 * sum(weights), "speed_up": 1}
    training = dict(lottery.levels(spec))[1]
    kept = [int(k.sum()) for k in engine.maker.build.stored_mask(training).values()]
    uses = [64, 64, 1, 1, 1]
    assert pruned["flops"] == 2 * sum(n * times for n, times in zip(kept, uses, strict=True))
    assert pruned["speed_up"] == pytest.approx(dense["flops"] / pruned["flops"])


@pytest.mark.parametrize("given", ["[]", "[-1]", "[0,99]", "[0.5]", "5"])
def test_iterations_out_of_range_are_refused(tiny: Composer, given: str) -> None:
    with pytest.raises(LotteryError, match=r"^probe\.iterations must be integers in \[0, "):
        measured(tiny("probe=gradient_flow", f"probe.iterations={given}"))


def test_without_a_probe_nothing_is_measured(tiny: Composer) -> None:
    assert not measured(tiny())


@pytest.mark.parametrize("probe", ["connectivity", "level_connectivity"])
@pytest.mark.parametrize("points", ["2", "3.5", "true", "[3]"])
def test_points_out_of_range_are_refused(tiny: Composer, probe: str, points: str) -> None:
    with pytest.raises(LotteryError, match=r"^probe\.points must be an integer >= 3, got "):
        measured(tiny(f"probe={probe}", f"probe.points={points}"))


@pytest.mark.parametrize(("iteration", "given"), [("-1", "-1"), ("12", "12"), ("1.5", "1.5"),
                                                  ("true", "True"), ("x", "x")])  # fmt: skip
def test_copies_must_part_at_an_iteration_of_the_training(
    tiny: Composer, iteration: str, given: str
) -> None:
    with pytest.raises(LotteryError) as refused:
        measured(tiny("probe=connectivity", f"probe.iteration={iteration}"))
    assert str(refused.value).startswith(
        f"probe.iteration must be an integer in [0, training.iterations = 12), got {given}"
    )


def test_the_ends_are_the_trainings_and_one_training_has_no_barrier(
    engine: Engine, tiny: Composer
) -> None:
    (_, dense), *_ = lottery.levels(tiny())
    outcomes = dict(engine.ensure([dense]))
    ((_, line),) = engine.ensure([Connectivity(dense, dense, 4)])
    last = outcomes[dense].curve[-1]
    assert len(line) == 4
    assert {(p["test_loss"], p["test_accuracy"]) for p in line} == {
        (last.test_loss, last.test_accuracy)
    }


def test_a_copy_gets_other_batches(engine: Engine, tiny: Composer) -> None:
    line = lines(tiny("probe=connectivity"))[0]
    found = dict(engine.ensure([line.one, line.other]))
    assert found[line.one].curve[0][3:] == found[line.other].curve[0][3:]  # the same start
    assert found[line.one].curve[1] != found[line.other].curve[1]


def test_rows_that_another_process_has_stored_stay(engine: Engine, tiny: Composer) -> None:
    line = lines(tiny("probe=connectivity"))[0]
    ((_, rows),) = engine.ensure([line])
    assert engine.store.is_made(line)
    engine.store.publish(line, {"rows.csv": b"another"})
    assert engine.store.results(line) == rows


def test_a_line_between_levels_has_their_results_at_its_ends(
    engine: Engine, tiny: Composer
) -> None:
    spec = tiny("probe=level_connectivity", "probe.points=4")
    levels, found = dict(lottery.levels(spec)), measured(spec)
    assert list(found) == [0, 1, 2]  # the last level has no next one
    results = dict(engine.ensure([*levels.values(), *found.values()]))
    assert engine.trained == 4  # nothing is trained for the probe
    for level, node in found.items():
        rows = results[node]
        assert [row["fraction"] for row in rows] == [0.0, 1 / 3, 2 / 3, 1.0]
        for row, end in ((rows[0], levels[level]), (rows[-1], levels[level + 1])):
            last = results[end].curve[-1]
            assert row["test_accuracy"] == last.test_accuracy
            assert row["test_loss"] == pytest.approx(last.test_loss, rel=1e-5)
        assert all(row["test_accuracy"] != rows[0]["test_accuracy"] for row in rows[1:3])


def test_lines_between_levels_are_shared_by_runs(engine: Engine, tiny: Composer) -> None:
    probe = ("probe=level_connectivity", "probe.points=3")
    short, long = (measured(tiny(*probe, f"pruning.levels={levels}")) for levels in (1, 3))
    assert long[0] == short[0]
    dict(engine.ensure(short.values()))
    longer = engine_on(engine.store.root)
    dict(longer.ensure(long.values()))
    assert {node for node in longer.made if isinstance(node, Measurement)} == {long[1], long[2]}
    control = measured(tiny(*probe, "rewind=reinit"))
    assert not {*control.values()} & {*long.values()}
    other = measured(tiny("probe=level_connectivity", "probe.points=4"))
    assert not {*other.values()} & {*long.values()}


def table(folder: Path, name: str) -> list[dict[str, str]]:
    return rows_from_csv((folder / name).read_bytes())


@pytest.mark.slow
def test_a_run_records_its_lines_once_and_keeps_the_snapshots_they_need(tmp_path: Path) -> None:
    probed = ("probe=connectivity", "probe.iteration=5", "probe.points=4", "pruning.levels=1")
    first = run(tmp_path, *probed, "hydra.run.dir=multirun/a/b")
    assert first.returncode == 0, first.stderr
    again = run(tmp_path, *probed, "hydra.run.dir=multirun/a/c")
    one, other = run_folders(tmp_path)
    assert "0 networks trained" in again.stdout
    rows = table(one, "connectivity.csv")
    assert rows == table(other, "connectivity.csv")
    assert [row["level"] for row in rows] == ["0"] * 4 + ["1"] * 4
    assert {row["iteration"] for row in rows} == {"5"}
    assert [float(row["fraction"]) for row in rows[:4]] == [0.0, 1 / 3, 2 / 3, 1.0]
    status = json.loads((one / "run.json").read_bytes())
    assert status["trained"] == 2 + 4  # two levels, two copies of each
    assert "connectivity.csv" in status["tables"]
