"""Networks trained side by side against each of them alone: the same bytes."""

import dataclasses
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.status import View
from hydra_plugins.lth_launchers import packed
from hydra_plugins.lth_launchers.packed import PackedLauncher
from lth.engine import maker
from lth.engine.engine import Engine
from lth.errors import Interrupted
from lth.experiment import lottery
from lth.models import prunable, state
from lth.training.loop import Diverged, Progress, train
from lth.training.masks import Mask
from lth.training.networks import Task
from lth.training.seeds import generator
from tests.conftest import ROOT, TINY, Composer, engine_on
from tests.trainings import (
    DATA,
    OPTIMIZERS,
    assert_equal,
    model,
    random_part,
    recipe,
    task_of,
    trained,
)
from tests.typed import command, run, table

SEEDS = (3, 4, 5)
OTHER = dataclasses.replace(
    DATA, train=random_part("other", 45), validation=random_part("another", 25)
)
SPLITS = (DATA, OTHER, DATA)


def starts() -> list[dict[str, Tensor]]:
    def drawn(seed: int) -> dict[str, Tensor]:
        random = generator(seed, "weights")
        return {
            n: v + 0.1 * torch.randn(v.shape, generator=random) for n, v in state(model()).items()
        }

    return [drawn(seed) for seed in SEEDS]


def masks() -> list[Mask]:
    """All of it, two thirds, and a third."""
    random = generator(0, "mask")
    return [
        {n: torch.rand(model().get_parameter(n).shape, generator=random) < density
         for n in prunable(model())}
        for density in (1.1, 0.66, 0.33)
    ]  # fmt: skip


def tasks(
    optimizer: str, pruned: str = "zero", checkpoints: tuple[bytes | None, ...] = (None,) * 3
) -> list[Task]:
    """Return three trainings of 60 iterations, which differ in weights, mask, seed and split."""
    members = zip(starts(), masks(), SEEDS, checkpoints, strict=True)
    return [
        task_of(
            recipe(optimizer, iterations=60), weights=weights, mask=mask, seed=seed, pruned=pruned,
            checkpoint=saved, data=data,
        )
        for (weights, mask, seed, saved), data in zip(members, SPLITS, strict=True)
    ]  # fmt: skip


def alone(optimizer: str, pruned: str = "zero") -> Iterator[Progress]:
    return (trained(task) for task in tasks(optimizer, pruned))


def assert_same(one: Progress, other: Progress) -> None:
    assert_equal(one.network.state(), other.network.state())
    assert repr(one.curve) == repr(other.curve)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("pruned", ["zero", "frozen"])
def test_each_member_ends_where_it_does_alone(optimizer: str, pruned: str) -> None:
    together = train(tasks(optimizer, pruned))
    for ours, theirs in zip(together, alone(optimizer, pruned), strict=True):
        assert_same(ours, theirs)


def test_pruned_weights_of_each_member_are_zero() -> None:
    for progress, mask in zip(train(tasks("momentum")), masks(), strict=True):
        assert all(not progress.network.state()[n][~kept].any() for n, kept in mask.items())


def test_members_resume_to_the_same_bytes_and_one_can_continue_alone() -> None:
    def stop_at_21(running: Sequence[Progress]) -> None:
        if running[0].iteration == 21:
            raise Interrupted(*(progress.checkpoint().to_bytes() for progress in running))

    whole = train(tasks("adam"))
    with pytest.raises(Interrupted) as stopped:
        train(tasks("adam"), on_step=stop_at_21)
    resumed = tasks("adam", checkpoints=stopped.value.args)
    for ours, theirs in zip(train(resumed), whole, strict=True):
        assert_same(ours, theirs)
    seen: list[int] = []
    _, second, _ = tasks("adam", checkpoints=stopped.value.args)
    progress = trained(second, on_step=lambda p: seen.append(p.iteration))
    assert seen[0] == 21
    assert_same(progress, whole[1])


def test_packs_that_do_not_fit_into_memory_are_halved(
    tiny: Composer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def attempt(tasks: Sequence[Task], **more: Any) -> list[Progress]:  # noqa: ANN401
        sizes.append(len(tasks))
        if len(tasks) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(tasks, **more)

    monkeypatch.setattr(maker, "train", attempt)
    specs = [tiny(f"seed={seed}", "pruning.levels=0") for seed in range(5)]
    engine.pack = 5
    dict(engine.ensure([t for spec in specs for _, t in lottery.levels(spec)]))
    assert sizes == [5, 2, 2, 1]
    assert engine.trained == 5


def test_the_network_of_a_pack_that_diverges_is_the_one_that_could_not_be_made(
    tiny: Composer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def attempt(tasks: Sequence[Task], **more: Any) -> list[Progress]:  # noqa: ANN401
        sizes.append(len(tasks))
        for task in tasks:
            if task.training == second:
                raise Diverged("the loss is nan", second)
        return train(tasks, **more)

    monkeypatch.setattr(maker, "train", attempt)
    specs = [tiny(f"seed={seed}", "pruning.levels=0") for seed in range(3)]
    first, second, third = (dict(lottery.levels(spec))[0] for spec in specs)
    engine.pack = 3
    with pytest.raises(Diverged):
        dict(engine.ensure([first, second, third]))
    assert engine.making == (second,)
    dict(engine.ensure([first, third]))
    assert sizes == [3, 2]
    assert len(engine.making) == 0


def test_the_launcher_shows_how_much_of_all_runs_is_done(
    tiny: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds with two levels each, in packs of two: 4 networks of 12 iterations."""
    specs = [
        tiny(f"seed={seed}", "pruning.levels=1", f"store={tmp_path / 'store'}") for seed in (0, 1)
    ]
    nodes = {node for spec in specs for _, node in lottery.nodes(spec)}
    from hydra_plugins.lth_launchers.console import ConsoleCallback  # Hydra has loaded it again

    view, shown = View(tmp_path, 2), []
    monkeypatch.setattr(ConsoleCallback, "view", view)
    monkeypatch.setattr("lth.engine.monitor.REPORT_SECONDS", -1)
    show = packed._show

    def record(*of: Any) -> None:  # noqa: ANN401 - what _show receives
        show(*of)
        shown.append(view.line([]))

    monkeypatch.setattr(packed, "_show", record)
    dict(PackedLauncher(2)._engine(specs, lambda: nodes).ensure(nodes))
    assert len(shown) == 2 * 12
    assert "runs: starting | 25% in" in shown[6]
    assert "0 of 4 networks trained, level 0, iteration 6 of 12, " in shown[6]
    assert "75% in" in shown[18]
    assert "2 of 4 networks trained, level 1, iteration 6 of 12, " in shown[18]


@pytest.mark.slow
def test_a_packed_sweep_makes_what_any_other_makes(tmp_path: Path) -> None:
    words = ("-m", "hydra/launcher=packed", "hydra.launcher.pack=3", "seed=0,1")
    done = run(tmp_path, *words, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert "8 networks trained for the 8 levels reported." in done.stdout
    again = run(tmp_path, "-m", "seed=0,1", "hydra.sweep.dir=again")
    assert again.returncode == 0, again.stderr
    assert "0 networks trained" in again.stdout
    for number in ("0", "1"):
        one, other = (
            table(tmp_path / sweep / number / "levels.csv") for sweep in ("sweep", "again")
        )
        assert one == other


def test_runs_that_fail_in_a_packed_sweep_leave_the_others(tmp_path: Path) -> None:
    words = ("-m", "hydra/launcher=packed", "hydra.launcher.pack=2", "pruning.levels=1", "seed=0,1")
    done = run(tmp_path, *words, "dataset.shape=[1,4,16],[1,8,8]")
    assert done.returncode == 1
    assert "2 failed, 2 finished" in done.stdout
    assert "dataset.shape=[1, 4, 16]" in done.stdout
    origins = [json.loads(f.read_text()) for f in tmp_path.glob("**/provenance.json")]
    assert [origin["backend"] for origin in origins] == 4 * ["eager"]


@pytest.mark.slow
def test_a_fault_of_user_code_in_a_packed_sweep_is_recorded_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def bad(inputs):\n    raise ValueError('a fault of mine')")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    words = ("-m", "hydra/launcher=packed", "hydra.launcher.pack=2", "pruning.levels=1", "seed=0,1")
    done = run(tmp_path, *words, "pruning.criterion=mine.bad,magnitude")
    assert done.returncode == 1
    assert "2 failed, 2 finished" in done.stdout
    assert "ValueError: a fault of mine" in done.stdout


@pytest.mark.slow
def test_a_packed_sweep_that_is_stopped_saves_and_resumes(tmp_path: Path) -> None:
    launcher = ("hydra/launcher=packed", "hydra.launcher.pack=2", "pruning.levels=0")
    length = ("training.iterations=3000", "training.evaluate_every=1000")
    words = (*launcher, *length, "seed=0,1", "hydra.sweep.dir=sweep")
    process = subprocess.Popen(
        command("-m", *TINY, *words), cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    store = tmp_path / "multirun" / "store"
    while len(list(store.glob("locks/*"))) < 2:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.terminate()
    assert process.wait() == 130
    assert len(list(store.glob("checkpoints/*"))) in (0, 2)
    assert not list(store.glob("locks/*"))
    assert run(tmp_path, "-m", *words).returncode == 0


def test_a_sweep_in_packs_makes_the_same_trainings(tmp_path: Path, composed: Composer) -> None:
    wide = ("model.widths=[20,10]", "training.iterations=40", "pruning.levels=2", "threads=1")
    arms = [
        composed(*wide, f"seed={seed}", f"rewind={arm}")
        for seed in (0, 1)
        for arm in ("init", "reinit")
    ]
    requested = list(dict.fromkeys(t for arm in arms for _, t in lottery.levels(arm)))
    singly = engine_on(tmp_path / "singly")
    at_once = engine_on(tmp_path / "at once", pack=3)
    plain, together = dict(singly.ensure(requested)), dict(at_once.ensure(requested))
    assert at_once.trained == singly.trained == 2 * (1 + 2 + 2)
    for training, outcome in plain.items():
        theirs = together[training]._replace(seconds=outcome.seconds)
        assert repr(theirs) == repr(outcome)
