"""Runs that are killed, told to stop, or out of space: real signals, real disks."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from lth.experiment import lottery
from lth.experiment.settings import Spec
from lth.runs.signals import stop_on_signal
from lth.runs.status import read_statuses
from lth.store.store import Store
from tests.conftest import TINY, Composer, run_spec
from tests.typed import command, run, run_folders, statuses, table

SLOW = (*TINY, "training.iterations=600", "training.evaluate_every=50", "checkpoint_seconds=0.02")
"""Long enough to be killed in the middle of each training, with checkpoints all along."""


def work(spec: Spec, output: Path) -> None:
    """Do what a Hydra job does, in a process of its own."""
    with stop_on_signal() as stopping:
        run_spec(spec, output, stopping)


def attempt(spec: Spec, output: Path, seconds: float, number: int) -> int:
    """The exit code of the work, which gets a signal after `seconds` unless it ends before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["lth.engine.engine", "lth.engine.checks", "torch._dynamo", "sklearn.datasets"]
    )
    process = context.Process(target=work, args=(spec, output))
    process.start()
    process.join(seconds)
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, number)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_at_random_moments_ends_with_the_same_bytes(
    tmp_path: Path, composed: Composer, number: int
) -> None:
    spec = composed(*SLOW, f"store={tmp_path / 'store'}")
    undisturbed = dataclasses.replace(spec, store=str(tmp_path / "other store"))
    assert attempt(undisturbed, tmp_path / "undisturbed", 300, number) == 0
    moment = random.Random(number)
    patience, stopped = 0.3, 0
    while attempt(spec, tmp_path / "run", moment.uniform(0, patience), number) != 0:
        stopped += 1
        patience *= 1.3  # on any machine it gets to the end
    assert stopped >= 3
    for name in ("levels.csv", "metrics.csv"):
        assert table(tmp_path / "run" / name) == table(tmp_path / "undisturbed" / name)
    store, other = Store(Path(spec.store)), Store(Path(undisturbed.store))
    for _, training in lottery.levels(spec):
        for name in ("final.safetensors", "mask.safetensors", "curve.csv"):
            assert store.read(training, name) == other.read(training, name)


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow), (signal.SIGTERM, 130)],
)
def test_the_same_command_goes_on_after_a_signal(tmp_path: Path, number: int, code: int) -> None:
    long = "training.iterations=1500"
    words = command(*TINY, long, "checkpoint_seconds=0.02", "hydra.run.dir=run")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL)
    store = tmp_path / "multirun/store"
    while not any(store.glob("checkpoints/*")):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.send_signal(number)
    assert process.wait() == code
    assert any(store.glob("checkpoints/*"))
    state = json.loads((tmp_path / "run/run.json").read_bytes())["state"]
    assert state == ("interrupted" if number == signal.SIGTERM else "running")
    ((_, seen),) = read_statuses(tmp_path / "run")
    assert seen["state"] == ("interrupted" if number == signal.SIGTERM else "killed")
    done = run(tmp_path, long, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert not any(store.glob("checkpoints/[!.]*"))  # a kill may leave a temporary file
    assert not any(store.glob("locks/*"))


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False])
def test_a_sweep_told_to_stop_lets_its_runs_save(tmp_path: Path, to_all: bool) -> None:
    words = command("-m", "seed=0,1,2", "training.iterations=20000", "hydra.sweep.dir=sweep")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True)
    while not any(status.get("iteration", 0) > 0 for status in sweep_statuses(tmp_path / "sweep")):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    else:
        process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"run the same command again" in output
    assert {status["state"] for status in sweep_statuses(tmp_path / "sweep")} == {"interrupted"}
    store = tmp_path / "multirun/store"
    assert any(store.glob("checkpoints/*"))
    assert not any(store.glob("locks/*"))


@pytest.mark.slow
def test_a_killed_run_takes_nobody_with_it_and_a_killed_launcher_loses_nothing(
    tmp_path: Path,
) -> None:
    words = command("-m", "seed=0,1,2", "training.iterations=20000", "hydra.sweep.dir=sweep")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL)
    sweep = tmp_path / "sweep"

    def wait_for(state: str, runs: set[str]) -> None:
        while not runs <= {path.name for path, s in read_statuses(sweep) if s["state"] == state}:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)

    wait_for("running", {"0"})
    os.kill(json.loads((sweep / "0" / "lock").read_bytes())["pid"], signal.SIGKILL)
    wait_for("killed", {"0"})
    wait_for("running", {"1", "2"} if os.cpu_count() != 1 else {"1"})
    jobs = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(jobs, timeout=60)
    assert not alive
    assert {status["state"] for _, status in read_statuses(sweep)} == {"killed", "interrupted"}
    assert any((tmp_path / "multirun/store").glob("checkpoints/*"))


def sweep_statuses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_bytes()) for file in folder.glob("*/run.json")]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs there, of that size."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root, and a machine that lets it")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "96k"):
        full = run(tmp_path, f"store={disk}/store")
        assert full.returncode == 1
        assert "No space left on device" in full.stdout + full.stderr
        assert "Traceback" not in full.stdout + full.stderr
        remount(disk, "size=10m")
        again = run(tmp_path, f"store={disk}/store")
        assert again.returncode == 0
        trained = [status.get("trained", 0) for status in statuses(tmp_path)]
        assert trained[-1] < 4  # some were there already


@pytest.mark.slow
def test_a_store_that_is_read_only_serves_what_it_has(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "10m"):
        assert run(tmp_path, f"store={disk}/store").returncode == 0
        remount(disk, "ro")
        assert run(tmp_path, f"store={disk}/store").returncode == 0
        more = run(tmp_path, f"store={disk}/store", "pruning.levels=4")
        remount(disk, "rw")
    assert more.returncode == 1
    assert f"store={disk}/store: cannot write there (Read-only file system)" in more.stdout
    first, cached, _ = run_folders(tmp_path)
    assert table(first / "levels.csv") == table(cached / "levels.csv")
