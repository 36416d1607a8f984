"""Sweeps on a real SLURM with requeued, cancelled, pre-empted and failed jobs (make slurm-test)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.kills import differences, results
from lth.runs.status import read_statuses
from tests.conftest import ROOT, TINY

pytestmark = [pytest.mark.usefixtures("slurm"), pytest.mark.timeout(1200)]
MEMORY = "hydra.launcher.mem_gb=2"
DETACHED = (
    "hydra/launcher=slurm", "hydra.launcher.detach=true", MEMORY, "hydra.sweep.dir=sweep",
)  # fmt: skip


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a sweep of tiny networks in `folder`, with the store there."""
    overrides = {word.partition("=")[0]: word for word in (*TINY, *words)}
    command = [sys.executable, str(ROOT / "run.py"), "-m", *overrides.values()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def submit(folder: Path, *words: str) -> list[str]:
    """Submit a detached sweep to `folder`/sweep. Return the ids of its jobs."""
    done = run(folder, *DETACHED, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to follow them: python -m analysis status" in done.stdout
    return done.stdout.partition("submitted: ")[2].splitlines()[0].split()


def states(folder: Path) -> dict[str, str]:
    return {path.name: status["state"] for path, status in read_statuses(folder / "sweep")}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < deadline, queue() + log_of_slurm()
        time.sleep(0.2)


def queue() -> str:
    return subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout


def log_of_slurm() -> str:
    return Path(os.environ["SLURM_CONF"]).with_name("slurmctld.log").read_text()[-3000:]


def ended() -> bool:
    return not queue().strip()


SWEEP = (
    "seed=0,1,2", "rewind=init,reinit", "training.iterations=2500", "pruning.levels=2",
    "store=store",
)  # fmt: skip
"""Six runs, which share 3 dense networks; the controls use the masks of the tickets."""


@pytest.fixture(scope="module")
def done_locally(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    assert run(folder, *SWEEP, "hydra.sweep.dir=sweep").returncode == 0
    return folder


def test_a_detached_sweep_with_a_requeued_and_a_cancelled_job_ends_as_it_does_locally(
    tmp_path: Path, done_locally: Path
) -> None:
    ids = submit(tmp_path, *SWEEP)
    assert len(ids) == 6
    wait_until(lambda: list(states(tmp_path).values()).count("running") >= 2)
    first, second = list(states(tmp_path))[:2]
    subprocess.run(["scontrol", "requeue", ids[int(first)]], check=True)
    wait_until(lambda: states(tmp_path)[first] == "interrupted")
    subprocess.run(["scancel", ids[int(second)]], check=True)
    wait_until(lambda: states(tmp_path)[second] in ("interrupted", "finished"))
    wait_until(ended)
    assert states(tmp_path)[first] == "finished"
    trained = sum(status["trained"] for _, status in read_statuses(tmp_path / "sweep"))
    assert trained <= 3 + 3 * 4  # each training once
    assert run(tmp_path, *SWEEP, "hydra.sweep.dir=sweep").returncode == 0
    assert len(list(results(tmp_path))) == 2 * 6 + 5 * (3 + 3 * 4)  # tables, stored results
    assert differences(tmp_path, done_locally) == []


def test_a_pre_empted_job_saves_and_goes_on(tmp_path: Path) -> None:
    (job,) = submit(tmp_path, "training.iterations=200000", "pruning.levels=0")
    wait_until(lambda: states(tmp_path).get("0") == "running" and seen(tmp_path) > 0)
    pre_empt()
    wait_until(lambda: states(tmp_path)["0"] in ("interrupted", "killed"))
    assert states(tmp_path)["0"] == "interrupted"
    before = seen(tmp_path)
    wait_until(lambda: states(tmp_path)["0"] == "running" and seen(tmp_path) > before)
    subprocess.run(["scancel", job], check=True)
    wait_until(ended)


def pre_empt() -> None:
    """Submit a job that needs the whole machine and has a higher priority."""
    everything = ["--partition=urgent", "--exclusive", "--mem=100", "--wrap=sleep 1"]
    subprocess.run(["sbatch", "--output=/dev/null", *everything], check=True)


def seen(folder: Path) -> int:
    """Return the last iteration that the first run has recorded."""
    return int(read_statuses(folder / "sweep")[0][1].get("iteration", 0))


def test_a_job_that_runs_out_of_time_saves_and_goes_on(tmp_path: Path) -> None:
    """SLURM may send the signal up to a minute early."""
    long = ("training.iterations=200000", "pruning.levels=0", "checkpoint_seconds=600")
    time_is_short = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=30")
    (job,) = submit(tmp_path, *long, *time_is_short)
    wait_until(lambda: states(tmp_path).get("0") == "interrupted")
    assert list((tmp_path / "multirun/store/checkpoints").iterdir())
    before = seen(tmp_path)
    wait_until(lambda: states(tmp_path)["0"] == "running" and seen(tmp_path) > before)
    subprocess.run(["scancel", job], check=True)
    wait_until(ended)


def test_a_failed_run_names_the_reason_and_its_job_fails(tmp_path: Path) -> None:
    done = run(
        tmp_path, "hydra/launcher=slurm", MEMORY, "hydra.sweep.dir=sweep",
        "dataset=digits,image_folder", "model.widths=[5]", f"dataset.root={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 1
    assert states(tmp_path) == {"0": "finished", "1": "failed"}
    assert "no images in" in done.stdout
    assert "1 failed, 1 finished" in done.stdout
    logs = {file.suffix: file.read_text() for file in tmp_path.glob("sweep/jobs/*_1/*_log.*")}
    assert "in image_folder" in logs[".out"]  # the traceback
    assert "\nrun 1: no images in" in logs[".err"]


def test_runs_that_share_work_share_a_job_and_later_edits_change_nothing(tmp_path: Path) -> None:
    ids = submit(tmp_path, "rewind=init,reinit", "seed=0,1", "hydra.launcher.runs_per_job=2")
    assert len(ids) == 2
    wait_until(ended)
    assert set(states(tmp_path).values()) == {"finished"}
    code = tmp_path / "sweep" / "code"
    file = "lth/experiment/lottery.py"
    assert (code / file).read_bytes() == (ROOT / file).read_bytes()
    status = read_statuses(tmp_path / "sweep")[0][1]
    assert status["commit"] == json.loads((code / "commit.json").read_bytes())["commit"]


def test_a_sweep_larger_than_the_largest_array_is_several_arrays(tmp_path: Path) -> None:
    """All 13 runs report the same trainings: the setting that is swept is not identity."""
    ids = submit(tmp_path, "checkpoint_seconds=range(100,113)")
    wait_until(ended)
    assert [int(job.partition("_")[2]) for job in ids] == [*range(11), *range(2)]
    assert list(states(tmp_path).values()) == ["finished"] * 13


def test_a_job_cancelled_at_pre_emption_goes_on_with_the_same_command(
    tmp_path: Path, done_locally: Path
) -> None:
    """Where SLURM sends a signal first, submitit queues a job again unless that is not allowed."""
    final = "hydra.launcher.additional_parameters={no-requeue: true}"
    sweep = (*SWEEP, "hydra.launcher.partition=spot", final)
    submitted = run(tmp_path, *DETACHED, *sweep)
    assert "partition spot: SLURM cancels" in submitted.stdout, submitted.stderr
    wait_until(lambda: "running" in states(tmp_path).values())
    pre_empt()
    wait_until(ended)
    assert "interrupted" in states(tmp_path).values()
    submit(tmp_path, *sweep)
    wait_until(ended)
    assert set(states(tmp_path).values()) == {"finished"}
    assert differences(tmp_path, done_locally) == []
