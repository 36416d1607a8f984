"""Networks trained as one against each of them alone: equal up to rounding."""

import dataclasses
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lth.engine.engine import Engine
from lth.errors import Interrupted
from lth.experiment import lottery
from lth.models import ResNet, fresh, prunable, state
from lth.training import eager, networks, packed
from lth.training.data import Batch, Examples, Part
from lth.training.loop import Progress, train
from lth.training.masks import Mask
from lth.training.networks import Task
from lth.training.packed import Pack
from lth.training.seeds import generator
from tests.conftest import TINY, Composer, NormNet, engine_on
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
    return (trained(task, only_eager=True) for task in tasks(optimizer, pruned))


def assert_close(one: Progress, other: Progress) -> None:
    ours, theirs = one.network.state(), other.network.state()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=2e-2, atol=1e-4)
    for ours_at, theirs_at in zip(one.curve, other.curve, strict=True):
        assert ours_at == pytest.approx(theirs_at, rel=2e-2, nan_ok=True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("pruned", ["zero", "frozen"])
def test_each_member_ends_where_it_does_alone(optimizer: str, pruned: str) -> None:
    together = train(tasks(optimizer, pruned))
    for ours, theirs in zip(together, alone(optimizer, pruned), strict=True):
        assert_close(ours, theirs)


def test_in_bfloat16_each_member_ends_near_where_it_does_alone() -> None:
    def rounded(task: Task) -> Task:
        given = task.training.recipe
        budget = dataclasses.replace(given.training, precision="bfloat16", iterations=10)
        given = dataclasses.replace(given, training=budget)
        return dataclasses.replace(task, training=dataclasses.replace(task.training, recipe=given))

    together = train([rounded(task) for task in tasks("momentum")])
    single = [trained(rounded(task), only_eager=True) for task in tasks("momentum")]
    exact = trained(tasks("momentum")[0], until=10, only_eager=True)
    for ours, theirs in zip(together, single, strict=True):
        assert {value.dtype for value in ours.network.state().values()} == {torch.float32}
        for name, value in ours.network.state().items():
            torch.testing.assert_close(value, theirs.network.state()[name], rtol=0.05, atol=5e-3)
    assert repr(together[0].curve) != repr(exact.curve)


def test_pruned_weights_of_each_member_are_zero() -> None:
    for progress, mask in zip(train(tasks("momentum")), masks(), strict=True):
        assert all(not progress.network.state()[n][~kept].any() for n, kept in mask.items())


def test_members_resume_to_the_same_bytes_and_one_can_continue_alone() -> None:
    def stop_at_23(running: Sequence[Progress]) -> None:
        if running[0].iteration == 23:
            raise Interrupted(*(progress.checkpoint().to_bytes() for progress in running))

    whole = train(tasks("adam"))
    with pytest.raises(Interrupted) as stopped:
        train(tasks("adam"), on_step=stop_at_23)
    resumed = tasks("adam", checkpoints=stopped.value.args)
    for ours, theirs in zip(train(resumed), whole, strict=True):
        assert_equal(ours.network.state(), theirs.network.state())
        assert repr(ours.curve) == repr(theirs.curve)
    seen: list[int] = []
    _, second, _ = tasks("adam", checkpoints=stopped.value.args)
    progress = trained(second, only_eager=True, on_step=lambda p: seen.append(p.iteration))
    assert seen[0] == 23
    assert_close(progress, whole[1])


@pytest.mark.parametrize("network", [
    lambda: ResNet((1, 8, 8), 4, 8),
    lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 4)),
])  # fmt: skip
def test_running_statistics_are_each_members_own(network: type[nn.Module]) -> None:
    models = [fresh(network, generator(seed, "init")) for seed in SEEDS]
    weights = [state(one) for one in models]
    full = {n: torch.ones_like(models[0].get_parameter(n)).bool() for n in prunable(models[0])}
    optimizer = recipe("momentum").optimizer
    several = Pack(
        fresh(network, generator(0, "init")), weights, [full] * 3, optimizer, pruned="zero"
    )
    random = generator(0, "inputs")
    parts = [
        Part(Examples(torch.randn(6, 1, 8, 8, generator=random), torch.arange(6) % 4), Tensor.clone)
        for _ in SEEDS
    ]
    batches = [Batch(part, torch.arange(6)) for part in parts]
    for _ in range(3):
        several.step(batches)
    for one, start, batch, member in zip(models, weights, batches, several.members, strict=True):
        single = eager.Eager(one, start, full, optimizer, pruned="zero")
        for _ in range(3):
            single.step(batch)
        ours, theirs = member.state(), single.state()
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[n], theirs[n], rtol=1e-3, atol=1e-5) for n in ours)
        assert member.evaluate(batch.part) == pytest.approx(single.evaluate(batch.part), rel=1e-3)


def test_modules_that_draw_and_unknown_ones_are_not_packed() -> None:
    optimizer = recipe("adam").optimizer
    assert packed.fits(model(), optimizer)
    assert not packed.fits(nn.Sequential(*model(), nn.Dropout(0.5)), optimizer)
    assert not packed.fits(NormNet((1, 4, 4), 4), optimizer)
    assert not packed.fits(model(), dataclasses.replace(optimizer, name="mine.Optimizer"))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert not packed.fits(tied, optimizer)


def test_packs_that_do_not_fit_into_memory_are_halved(
    tiny: Composer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def make(model: nn.Module, weights: list[dict[str, Tensor]], *rest: Any, **more: Any) -> Pack:  # noqa: ANN401
        sizes.append(len(weights))
        if len(weights) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Pack(model, weights, *rest, **more)

    monkeypatch.setattr(networks, "Pack", make)
    specs = [tiny(f"seed={seed}", "pruning.levels=0") for seed in range(5)]
    engine.pack = 5
    dict(engine.ensure([t for spec in specs for _, t in lottery.levels(spec)]))
    assert sizes == [5, 2, 2]
    assert engine.trained == 5


@pytest.mark.slow
def test_a_packed_sweep_makes_what_any_other_makes(tmp_path: Path) -> None:
    words = ("-m", "hydra/launcher=packed", "hydra.launcher.pack=3", "seed=0,1")
    done = run(tmp_path, *words, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert "8 networks trained for these runs" in done.stdout  # 2 seeds of 4 levels
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
    assert [origin["backend"] for origin in origins] == 4 * ["member"]


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
    singly = engine_on(tmp_path / "singly", backend="eager")
    at_once = engine_on(tmp_path / "at once", pack=3)
    plain, together = dict(singly.ensure(requested)), dict(at_once.ensure(requested))
    assert at_once.trained == singly.trained == 2 * (1 + 2 + 2)
    backends = [file.read_text() for file in at_once.store.root.glob("??/*/provenance.json")]
    assert sum('"member"' in backend for backend in backends) >= 6
    for training, outcome in plain.items():
        assert together[training].weights == outcome.weights
        assert together[training].curve[-1] == pytest.approx(
            outcome.curve[-1], rel=0.05, nan_ok=True
        )
