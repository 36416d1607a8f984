"""hydra/launcher=slurm without a cluster: the batches, and the same jobs on this machine."""

import subprocess
import sys
from pathlib import Path

from hydra_plugins.lth_launchers.slurm import batches
from lth.runs.status import read_statuses
from tests.conftest import ROOT, TINY


def test_runs_that_share_a_lineage_are_neighbours() -> None:
    runs = {n: [f"seed={n % 2}"] for n in range(6)}
    assert list(batches(runs, lambda words: words[0], 2)) == [[0, 2], [4, 1], [3, 5]]
    assert list(batches(runs, lambda words: words[0], 1)) == [[n] for n in range(6)]


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
