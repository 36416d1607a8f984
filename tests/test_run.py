"""run.py as users type it: real Hydra, real processes, real kills."""

import csv
import dataclasses
import io
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf

from lth.experiment import lottery
from lth.experiment.settings import Spec
from lth.runs.records import TIMING_COLUMNS
from lth.runs.signals import stop_on_signal
from lth.runs.status import read_statuses
from lth.store.store import Store
from tests.conftest import ROOT, TINY, Composer, run_spec


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *arguments]


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A tiny run or, with -m first, sweep typed in `folder`, on a store there."""
    flags = [word for word in arguments if word == "-m"]
    overrides = {word.partition("=")[0]: word for word in (*TINY, *arguments) if word not in flags}
    words = command(*flags, *overrides.values())
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def run_folders(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("multirun/*/**/run.json"))


def table(file: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in rows]


def statuses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((run / "run.json").read_bytes()) for run in run_folders(folder)]


def test_a_sweep_trains_each_network_once_then_none_then_only_new_levels(tmp_path: Path) -> None:
    sweep = ("-m", "pruning.rate=10,20", "seed=0,1", "rewind=init,reinit")
    levels = 3
    first = run(tmp_path, *sweep, f"pruning.levels={levels}")
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"{2 + 8 * levels} networks trained" in first.stdout
    assert "8 finished" in first.stdout
    second = run(tmp_path, *sweep, f"pruning.levels={levels}")
    assert "0 networks trained" in second.stdout
    third = run(tmp_path, *sweep, f"pruning.levels={levels + 1}")
    assert "8 networks trained" in third.stdout
    folders = run_folders(tmp_path)
    assert len(folders) == 24
    tables = {(f.parent, f.name): table(f / "levels.csv") for f in folders}
    sweeps = sorted({sweep for sweep, _ in tables})
    for job in map(str, range(8)):
        one, two, longer = (tables[sweep, job] for sweep in sweeps)
        assert one == two == longer[: levels + 1]
        assert [row["level"] for row in longer] == ["0", "1", "2", "3", "4"]


def test_a_single_run_lands_in_hydras_folders_with_its_table(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    assert folder.relative_to(tmp_path).parts[0] == "multirun"
    assert len(folder.relative_to(tmp_path).parts) == 3
    assert {f.name for f in folder.iterdir()} == {
        ".hydra", "run.json", "run.log", "levels.csv", "metrics.csv"
    }  # fmt: skip
    (status,) = statuses(tmp_path)
    assert status["state"] == "finished"
    assert status["trained"] == 4
    assert "winning" in done.stdout


@pytest.mark.parametrize(("arguments", "says"), [
    (["pruning.typo=1"], "Key 'typo' is not in struct"),
    (["model=nope"], "Could not find 'model/nope'"),
    (["store=/dev/null/store"], "store=/dev/null/store: cannot write there"),
    (["hydra.run.dir=/dev/null/run"], "Not a directory"),
])  # fmt: skip
def test_a_mistake_ends_in_one_paragraph_and_exit_code_1(
    tmp_path: Path, arguments: Sequence[str], says: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


BROKEN = "def score(evidence):\n    return 1 / 0\n"


def test_one_failed_run_does_not_stop_or_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    words = command("-m", *TINY, "pruning.criterion=random,broken.score,magnitude")
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, env=importing(tmp_path)
    )
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "2 finished" in done.stdout
    assert "ZeroDivisionError: division by zero" in done.stdout
    (failed,) = (folder for folder in run_folders(tmp_path) if folder.name == "1")
    assert "broken.py" in (failed / "run.log").read_text()
    assert [row["level"] for row in table(failed / "levels.csv")] == ["0"]


def importing(folder: Path) -> dict[str, str]:
    """The environment of a process that can import the modules in a folder."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


RATE = "pruning.rate must be in (0, 100), got {}"


def left_behind(folder: Path) -> list[Path]:
    """Everything in a folder apart from an empty `multirun`."""
    return [path for path in folder.rglob("*") if path != folder / "multirun"]


@pytest.mark.parametrize(("override", "message"), [
    ("pruning.rate=0", RATE.format(0)), ("pruning.rate=100", RATE.format(100)),
    ("pruning.levels=80", "Set pruning.levels="),
])  # fmt: skip
def test_a_refused_run_prints_its_message_and_leaves_nothing_behind(
    tmp_path: Path, override: str, message: str
) -> None:
    done = run(tmp_path, override)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert left_behind(tmp_path) == []


@pytest.mark.xfail(strict=True, reason="Hydra writes .hydra/ before the run is refused")
def test_a_refused_run_leaves_an_earlier_run_in_its_folder_as_it_was(tmp_path: Path) -> None:
    assert run(tmp_path, "hydra.run.dir=run").returncode == 0
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert run(tmp_path, "hydra.run.dir=run", "pruning.rate=0").returncode == 1
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("launcher", ["local", "packed"])
def test_a_sweep_with_invalid_values_is_refused_before_anything_is_trained(
    tmp_path: Path, launcher: str
) -> None:
    done = run(tmp_path, "-m", f"hydra/launcher={launcher}", "pruning.rate=20,0,100", "seed=0,1")
    assert done.returncode == 1
    assert done.stdout == ""
    for rate in (0, 100):
        assert len(re.findall(rf"{re.escape(RATE.format(rate))}\b", done.stderr)) == 1
    assert "Traceback" not in done.stderr
    assert left_behind(tmp_path) == []


def test_a_point_that_only_its_network_rules_out_is_refused_by_itself(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "pruning.levels=1,80", "hydra.sweep.dir=sweep")
    assert done.returncode == 1
    assert done.stderr.count("pruning.levels=80 with") == 1
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()] == ["0"]


@pytest.mark.slow
def test_optuna_searches_for_the_best_objective(tmp_path: Path) -> None:
    search = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2")
    settings = ("hydra.sweeper.direction=maximize", "pruning.rate=interval(10,40)")
    done = run(tmp_path, "-m", *search, *settings, "hydra.sweep.dir=search")
    assert done.returncode == 0, done.stderr
    objectives = [
        json.loads(file.read_text())["objective"] for file in tmp_path.glob("search/*/run.json")
    ]
    assert len(objectives) == 2
    found = OmegaConf.load(tmp_path / "search" / "optimization_results.yaml")
    assert found.best_value == max(objectives)
    assert 10 <= found.best_params["pruning.rate"] <= 40


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
        patience *= 1.1  # on any machine it gets to the end
    assert stopped >= 3
    for name in ("levels.csv", "metrics.csv"):
        assert table(tmp_path / "run" / name) == table(tmp_path / "undisturbed" / name)
    store, other = Store(Path(spec.store)), Store(Path(undisturbed.store))
    for _, training in lottery.levels(spec):
        for name in ("final.safetensors", "mask.safetensors", "curve.csv"):
            assert store.read(training, name) == other.read(training, name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130)])
def test_the_same_command_goes_on_after_a_signal(tmp_path: Path, number: int, code: int) -> None:
    long = "training.iterations=3000"
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
    assert not any(store.glob("checkpoints/*"))
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


@pytest.mark.slow
def test_an_experiment_is_a_sweep_by_itself_and_its_axes_can_be_replaced(tmp_path: Path) -> None:
    words = ["experiment=figure10", "smoke=true", "seed=3", "preset=conv4"]
    done = subprocess.run(
        command(*words, "model.widths=[8]", "model.channels=[4,4]"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 finished" in done.stdout
    made = [(status["preset"], status["groups"]["rewind"]) for status in statuses(tmp_path)]
    assert made == [("conv4", "init"), ("conv4", "continue")]
    assert {status["spec"]["seed"] for status in statuses(tmp_path)} == {3}


@pytest.mark.slow
def test_the_stock_launcher_of_submitit_works_too(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "hydra/launcher=submitit_local", "seed=0,1", "pruning.levels=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 finished" in done.stdout
    assert "4 networks trained" in done.stdout


def test_a_launcher_without_a_process_to_run_in_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "hydra.launcher.jobs=0")
    assert done.returncode == 1
    assert "hydra.launcher.jobs must be >= 1, or null for every core, got 0" in done.stderr


def test_a_smoke_run_is_refused_where_the_whole_run_would_be(tmp_path: Path) -> None:
    done = run(tmp_path, "smoke=true", "pruning.levels=80")
    assert (done.returncode, left_behind(tmp_path)) == (1, [])
    assert "pruning.levels=80 with" in done.stderr


def test_no_file_of_a_user_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    own = {folder / "notes.txt": "mine", folder / "table.csv": "a,b"}
    for file, text in own.items():
        file.write_text(text)
    for rate in (200, 20):  # refused, and run twice
        for _ in range(2):
            run(tmp_path, "hydra.run.dir=folder", f"pruning.rate={rate}")
            assert {file: file.read_text() for file in own} == own


def test_a_training_that_stands_for_two_levels_is_reported_at_both(tmp_path: Path) -> None:
    words = ("pruning=one_shot", "pruning.rates=[80,50,80]", "hydra.run.dir=run")
    assert run(tmp_path, *words).returncode == 0
    rows = table(tmp_path / "run" / "levels.csv")
    assert [row["level"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["training"] == rows[3]["training"]
