"""Eight processes at once on one store, all with overlapping work."""

import dataclasses
import json
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.experiment.settings import Spec
from lth.store import cleanup, locks
from lth.store.store import Store
from tests.conftest import ROOT, Composer, run_spec

Specs = Sequence[Spec]
ELSEWHERE = json.dumps(
    {"host": "elsewhere", "pid": 1, "started": 0.0, "token": "of a killed process"}
)


def work(spec: Spec, folder: Path) -> None:
    """Record a run, in a process for which locks of other hosts are stale after seconds."""
    locks.STALE_AFTER, locks.TOUCH_EVERY = 10.0, 0.3  # a loaded machine may pause for seconds
    run_spec(spec, folder)


def start(spec: Spec, folder: Path) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lth.engine.engine", "lth.engine.checks", "sklearn.datasets"])
    process = context.Process(target=work, args=(spec, folder))
    process.start()
    return process


def start_with_a_clock_two_hours_fast(spec: Spec, folder: Path) -> "subprocess.Popen[bytes]":
    code = "import pickle, sys, tests.test_together as t; t.work(*pickle.load(sys.stdin.buffer))"
    words = ["faketime", "-f", "+2h", sys.executable, "-c", code]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((spec, folder)))
    process.stdin.close()
    return process


@pytest.fixture
def specs(tiny: Composer, tmp_path: Path) -> list[Spec]:
    """Two seeds of a ticket and its control, to 3 levels and to 4."""
    arms = [tiny(f"seed={seed}", f"rewind={arm}") for seed in (0, 1) for arm in ("init", "reinit")]
    store = str(tmp_path / "store")
    return [
        dataclasses.replace(arm, store=store, pruning=dataclasses.replace(arm.pruning, levels=many))
        for arm in arms
        for many in (3, 4)
    ]


def all_of(specs: Specs) -> set[Training]:
    return {training for spec in specs for _, training in lottery.levels(spec)}


def trained(folder: Path) -> int:
    statuses = [json.loads(file.read_bytes()) for file in folder.glob("run*/run.json")]
    assert {status["state"] for status in statuses} == {"finished"}
    assert not [line for status in statuses for line in status["damaged"]]
    return sum(status["trained"] for status in statuses)


def check_store(folder: Path, specs: Specs) -> None:
    store = Store(folder / "store")
    assert all(map(store.exists, all_of(specs)))
    assert not list(cleanup.faults(store))
    assert not list(store.locks.iterdir())
    assert not list(store.unfinished.iterdir())


def test_each_training_is_made_once_and_all_finish(tmp_path: Path, specs: Specs) -> None:
    for process in [start(spec, tmp_path / f"run{n}") for n, spec in enumerate(specs)]:
        process.join()
        assert process.exitcode == 0
    assert trained(tmp_path) == len(all_of(specs)) == 2 * (1 + 4 + 4)
    check_store(tmp_path, specs)


@pytest.mark.slow
def test_locks_of_killed_processes_are_taken_over(tmp_path: Path, specs: Specs) -> None:
    long = dataclasses.replace(specs[0].training, iterations=100_000)
    victims = [
        start(dataclasses.replace(spec, training=long), tmp_path / f"victim{n}")
        for n, spec in enumerate(specs[::4])  # one of each seed
    ]
    store = Store(tmp_path / "store")
    while cleanup.busy(store) < len(victims):
        assert all(victim.is_alive() for victim in victims)
    left = sorted(all_of(specs), key=lambda training: training.digest)
    for victim, training in zip(victims, left, strict=False):
        victim.kill()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
        (lock,) = [file for file in store.locks.iterdir() if str(victim.pid) in file.read_text()]
        lock.rename(store.locks / training.digest)
    (store.locks / left[-1].digest).write_text(ELSEWHERE)
    test_each_training_is_made_once_and_all_finish(tmp_path, specs)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("faketime") is None, reason="apt-get install faketime")
def test_a_clock_that_is_two_hours_fast_steals_nothing(tmp_path: Path, specs: Specs) -> None:
    shifted = start_with_a_clock_two_hours_fast(specs[0], tmp_path / "run7")
    while not (tmp_path / "run7" / "lock").exists():
        assert shifted.poll() is None
    others = [start(spec, tmp_path / f"run{n}") for n, spec in enumerate(specs[1:])]
    assert shifted.wait() == 0
    for process in others:
        process.join()
        assert process.exitcode == 0
    assert trained(tmp_path) == len(all_of(specs))
    check_store(tmp_path, specs)
