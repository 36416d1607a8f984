"""Plans against what then happens; the compositions of the grid sweeper against Hydra's own."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from hydra_plugins.lth_launchers.sweeper import Composer
from lth.engine.engine import Engine
from lth.engine.plan import plan
from lth.experiment import lottery
from lth.experiment.config import VERSION_BASE
from lth.experiment.settings import Spec
from tests.conftest import ROOT, TINY
from tests.conftest import Composer as Compose


def jobs(compose: Compose, *each: tuple[str, ...]) -> dict[str, Callable[[], Spec]]:
    return {" ".join(overrides): partial(compose, *overrides) for overrides in each}


SWEEP = [(f"seed={s}", f"rewind={r}") for s in (0, 1) for r in ("init", "reinit")]


def test_a_plan_counts_what_is_then_trained(engine: Engine, tiny: Compose) -> None:
    made = plan(jobs(tiny, *SWEEP), engine.store)
    assert (made.reported, made.distinct, made.stored) == (16, 14, 0)
    assert len(made.trainings) == 2 + 4 * 3
    assert made.iterations == 14 * 12
    assert len(made.untimed) == 14
    assert made.counts == {(464, 376, 306, 249): [" ".join(o) for o in SWEEP]}
    for overrides in SWEEP:
        dict(engine.ensure([t for _, t in lottery.levels(tiny(*overrides))]))
    assert engine.trained == 14
    after = plan(jobs(tiny, *SWEEP), engine.store)
    assert (after.stored, after.trainings, after.disk) == (14, [], 0)


def test_time_is_that_of_similar_trainings_at_the_nearest_density(
    engine: Engine, tiny: Compose
) -> None:
    dict(engine.ensure([t for _, t in lottery.levels(tiny())]))
    made = plan(jobs(tiny, ("seed=1",), ("seed=1", "training.batch_size=30")), engine.store)
    assert len(made.untimed) == 4  # other batches have another speed
    measured = [engine.store.results(t).seconds for _, t in lottery.levels(tiny())]
    assert made.seconds == pytest.approx(sum(measured), rel=1e-6)


def test_disk_is_about_what_is_then_written(engine: Engine, tiny: Compose) -> None:
    sized = ("model.widths=[300,100]", "pruning.levels=1")
    expected = plan(jobs(tiny, sized), engine.store).disk
    dict(engine.ensure([t for _, t in lottery.levels(tiny(*sized))]))
    written = sum(f.stat().st_size for d in engine.store.folders() for f in d.iterdir())
    assert expected == pytest.approx(written, rel=0.1)


def test_refused_runs_are_reported_and_the_rest_planned(engine: Engine, tiny: Compose) -> None:
    made = plan(jobs(tiny, ("pruning.levels=80",), ("pruning.rate=0",), ("seed=1",)), engine.store)
    assert set(made.refused) == {"pruning.levels=80", "pruning.rate=0"}
    assert made.reported == 4
    probes = [("probe=connectivity", f"probe.iteration={at}") for at in (0, 99)]
    assert list(plan(jobs(tiny, *probes), engine.store).refused) == [" ".join(probes[1])]


def test_a_control_costs_its_tickets_too(engine: Engine, tiny: Compose) -> None:
    made = plan(jobs(tiny, ("rewind=reinit",)), engine.store)
    assert (made.distinct, len(made.trainings)) == (4, 1 + 2 + 3)


@pytest.mark.slow
def test_the_command_plans_and_does_nothing(tmp_path: Path) -> None:
    words = ["-m", "hydra/launcher=plan", "seed=0,1", "pruning.conv_rate=null,10", *TINY]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "runs: 2, which report 8 levels; 0 of them share" in done.stdout
    assert "to train: 8 networks, 96 iterations" in done.stdout
    assert "refused seed=1 pruning.conv_rate=10" in done.stdout
    assert "bfloat16: a dense step of lenet takes" in done.stdout
    assert "2 of 4 runs are refused" in done.stderr
    assert not list(tmp_path.glob("**/run.json"))
    assert not (tmp_path / "multirun" / "store").exists()


@pytest.mark.parametrize("overrides", [
    ["seed=3", "pruning.rate=10"], ["rewind=late", "rewind.iteration=5", "seed=0"],
    ["preset=conv2", "optimizer=sgd", "optimizer.lr=0.5", "model.widths=[8]"],
    ["+dataset.loader.extra=1", "~optimizer.fused"], ["pruning.criterion=mine.score"],
    ["experiment=figure3", "hydra.sweep.dir=x"],
    ["++seed=4", "++model.depth=2", "+model.own.deep=[1,{a: null}]", "optimizer=sgd"],
    ["seed=${split_seed}", "split_seed=7", "store='a, b=c'", "dataset.root=\"it's\""],
    ["optimizer={lr: 0.5}", "~dataset.loader", "~seed=0", "+new=", "training={iterations: 3}"],
])  # fmt: skip
def test_the_sweeper_composes_as_hydra_does(overrides: list[str]) -> None:
    with composers(overrides) as (quick, hydra):
        theirs = hydra(overrides)
        assert [quick(overrides), quick(overrides)] == [theirs, theirs]


@pytest.mark.parametrize("override", [
    "typo=1", "model=nope", "model.depth=3", "~typo", "+seed=1", "seed@x=1", "seed.x=1", "a=[",
    "~seed=3",
])  # fmt: skip
def test_the_sweeper_refuses_what_hydra_refuses(override: str) -> None:
    with composers([]) as (quick, hydra):
        with pytest.raises(HydraException) as theirs:
            hydra([override])
        with pytest.raises(HydraException) as ours:
            quick([override])
        assert str(ours.value) == str(theirs.value)


def test_hydras_sweeper_checks_a_batch_before_it_launches_it() -> None:
    """GridSweeper replaces this method, which is not part of Hydra's public interface."""
    assert [*inspect.signature(BasicSweeper.validate_batch_is_legal).parameters] == [
        "self",
        "batch",
    ]
    check, launch = "self.validate_batch_is_legal(batch)", "self.launcher.launch(batch"
    before, found, after = inspect.getsource(BasicSweeper.sweep).partition(check)
    assert found
    assert launch in after
    assert launch not in before


@contextmanager
def composers(
    sweep: list[str],
) -> Iterator[tuple[Composer, Callable[[list[str]], DictConfig]]]:
    """Yield the sweeper's function that composes a run, and one that does it by Hydra alone."""
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = hydra.compose_config("config", sweep, RunMode.MULTIRUN)
        yield Composer(hydra.config_loader, config), lambda words: compose("config", words)
