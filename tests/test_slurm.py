"""hydra/launcher=slurm without a cluster: the batches, and the same jobs on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.lth_launchers import slurm
from hydra_plugins.lth_launchers.scontrol import cancelling, largest_array
from hydra_plugins.lth_launchers.slurm import Runs, SlurmLauncher, batches, chunks
from lth.errors import LotteryError
from lth.runs.status import read_statuses
from tests.conftest import ROOT, TINY


def test_runs_that_share_a_lineage_are_neighbours() -> None:
    runs = {n: [f"seed={n % 2}"] for n in range(6)}
    assert list(batches(runs, lambda words: words[0], 2)) == [[0, 2], [4, 1], [3, 5]]
    assert list(batches(runs, lambda words: words[0], 1)) == [[n] for n in range(6)]


@pytest.mark.parametrize(("count", "size", "lengths"), [
    (25, 11, [11, 11, 3]), (22, 11, [11, 11]), (3, 11, [3]), (2, 1, [1, 1]), (0, 11, []),
])  # fmt: skip
def test_arrays_are_within_the_limit_and_keep_the_order(
    count: int, size: int, lengths: list[int]
) -> None:
    arrays = list(chunks(list(range(count)), size))
    assert [len(array) for array in arrays] == lengths
    assert [job for array in arrays for job in array] == list(range(count))


def test_without_submitit_a_sweep_is_refused_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm, "find_spec", lambda _: None)
    launcher = SlurmLauncher(
        cluster="slurm", detach=False, runs_per_job=1, max_num_timeout=1, cpus_per_task=1
    )
    hydra: Any = SimpleNamespace(config_loader=None)
    with pytest.raises(LotteryError, match=r"needs submitit, .*pip install -e '\.\[slurm\]'"):
        launcher.setup(hydra_context=hydra, task_function=print, config=DictConfig({}))


def test_jobs_that_were_submitted_before_an_error_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cluster accepts the first array, and refuses the second one."""

    def submit(*_: object) -> Iterator[list[SimpleNamespace]]:
        yield [SimpleNamespace(job_id="7_0"), SimpleNamespace(job_id="7_1")]
        raise OSError("too many jobs")

    launcher = SlurmLauncher(
        cluster="local", detach=True, runs_per_job=1, max_num_timeout=0, cpus_per_task=1
    )
    launcher._sweep = tmp_path
    launcher._hydra = OmegaConf.create(
        {"searchpath": [], "runtime": {"config_sources": [{"path": "conf", "provider": "main"}]}}
    )
    monkeypatch.setattr(slurm, "copy_code", Path)
    monkeypatch.setattr(SlurmLauncher, "_submit", submit)
    with pytest.raises(OSError, match="too many jobs"):
        launcher.launch([["seed=0"]], 0)
    assert "2 jobs submitted: 7_0 7_1" in capsys.readouterr().out


@pytest.mark.slow
def test_jobs_on_this_machine_run_a_copy_of_the_code(tmp_path: Path) -> None:
    words = [
        "-m", "hydra/launcher=slurm", "hydra.launcher.cluster=local", "seed=0,1",
        "rewind=init,reinit", "hydra.launcher.runs_per_job=2", "hydra.sweep.dir=sweep", *TINY,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 finished" in done.stdout
    statuses = dict(read_statuses(tmp_path / "sweep"))
    assert sum(status["trained"] for status in statuses.values()) == 2 + 4 * 3
    assert all(0 < status["objective"] <= 1 for status in statuses.values())
    code = tmp_path / "sweep" / "code"
    file = "lth/experiment/lottery.py"
    assert (code / file).read_bytes() == (ROOT / file).read_bytes()
    assert (code / "commit.json").is_file()


@pytest.mark.parametrize(("shown", "largest"), [
    ("MaxArraySize            = 1001\nMaxDBDMsgs = 20\n", 1001),
    ("MaxArraySize            = 0\n", 1),
    ("MaxJobCount             = 10000\n", None),
    ("", None),
])  # fmt: skip
def test_the_largest_array_is_read_from_the_configuration(shown: str, largest: int | None) -> None:
    assert largest_array(shown) == largest


PARTITIONS = """\
PartitionName=debug AllowGroups=ALL Default=YES QoS=N/A PreemptMode=REQUEUE State=UP
PartitionName=spot AllowGroups=ALL Default=NO QoS=N/A PreemptMode=CANCEL State=UP
PartitionName=spot2 AllowGroups=ALL Default=NO QoS=N/A PreemptMode=GANG,CANCEL State=UP
"""


@pytest.mark.parametrize(("wanted", "found"), [
    (None, []), ("debug", []), ("spot", ["spot"]), ("spot2,debug", ["spot2"]),
    ("debug,spot,spot2", ["spot", "spot2"]), ("nope", []),
])  # fmt: skip
def test_partitions_that_cancel_pre_empted_jobs_are_named(
    wanted: str | None, found: list[str]
) -> None:
    assert cancelling(PARTITIONS, wanted) == found
    assert cancelling(PARTITIONS.replace("REQUEUE", "CANCEL"), None) == ["debug"]
    assert cancelling("", wanted) == []


REASONS = {
    "unrecorded": ("print('warning', file=sys.stderr); sys.exit('error: not\\nlike this')",
                   "not like this"),
    "recorded": ("record('failed'); sys.exit(1)", "no images in x. Put yours there."),
    "killed": ("os.kill(os.getpid(), 9)", "its process ended with SIGKILL (out of memory?)"),
    "stopped": ("record('interrupted'); sys.exit(130)", "interrupted, and its progress is saved"),
    "crashed": ("sys.exit(3)", "its process ended with exit code 3"),
}  # fmt: skip
SCRIPT = """
import json, os, sys
from pathlib import Path
def record(state):
    run = Path({sweep!r}, "0")
    run.mkdir()
    error = "no images in x.\\nPut yours there."
    (run / "run.json").write_text(json.dumps(dict(state=state, error=error)))
{code}
"""


@pytest.mark.parametrize(("code", "reason"), REASONS.values(), ids=REASONS)
def test_a_job_names_the_reason_of_a_failed_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], code: str, reason: str
) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(sweep=str(tmp_path), code=code))
    with pytest.raises(RuntimeError) as failed:
        Runs(script, tmp_path, {0: []}, 1)()
    assert str(failed.value).splitlines()[1:] == [f"run 0: {reason}"]
    assert ("warning" in capfd.readouterr().err) == ("warning" in code)


@pytest.mark.slow
def test_the_log_of_a_job_has_the_traceback_of_a_crash(tmp_path: Path) -> None:
    """One run crashes, the other one is refused. Both have a model of the user's own YAMLs."""
    (tmp_path / "my_conf/model").mkdir(parents=True)
    (tmp_path / "my_conf/model/mine.yaml").write_text("defaults: [lenet_300_100, _self_]")
    (tmp_path / "mine.py").write_text("def crash(inputs):\n    raise ZeroDivisionError('my fault')")
    words = [
        "-m", "--config-dir=my_conf", "model=mine", *TINY, "hydra/launcher=slurm",
        "hydra.launcher.cluster=local", "hydra.sweep.dir=sweep", "hydra.launcher.runs_per_job=2",
        "pruning.criterion=mine.crash,mine.missing",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=tmp_path, capture_output=True,
        text=True, check=False, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )  # fmt: skip
    assert done.returncode == 1
    (output,) = tmp_path.glob("sweep/jobs/*/*_log.out")
    (errors,) = tmp_path.glob("sweep/jobs/*/*_log.err")
    assert 'mine.py", line 2, in crash' in output.read_text()
    assert "run 0: ZeroDivisionError: my fault" in errors.read_text()
    assert errors.read_text().splitlines()[-1].startswith("run 1: mine.missing must be")
    assert "mine.missing must be" in done.stderr
    assert "ZeroDivisionError: my fault" in done.stdout
