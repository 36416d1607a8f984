"""hydra/launcher=slurm: run a sweep as jobs of a SLURM cluster, through submitit.

Jobs run a copy of the code, made at submission: later edits do not affect them. A job that is
pre-empted or runs out of time saves, is queued again, and resumes.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.lth_launchers.local import ending, raise_refused
from hydra_plugins.lth_launchers.scontrol import cancelling, largest_array, scontrol_show
from hydra_plugins.lth_launchers.sweeper import Composer
from lth.errors import LotteryError

T = TypeVar("T")
LOGGING = "hydra.job_logging.root.handlers=[file,console]"
"""Log messages of a run, with the traceback of a failure, go to run.log and to the job's log."""
CODE = ("run.py", "conf", "lth", "analysis", "hydra_plugins")
"""Files and folders that are copied at submission."""
OF_ANY_CLUSTER = ("name", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
"""Parameters that submitit accepts for any kind of cluster; all others are specific to SLURM."""
SAVING_SECONDS = 60.0
"""How long the runs of a job have to save when it is told to stop."""


class SlurmLauncher(Launcher):
    """Submit jobs of `runs_per_job` runs, and wait for them unless `detach`."""

    def __init__(
        self,
        *,
        cluster: str,
        detach: bool,
        runs_per_job: int,
        max_num_timeout: int,
        cpus_per_task: int,
        **parameters: Any,  # noqa: ANN401 - submitit's
    ) -> None:
        if min(runs_per_job, cpus_per_task) < 1:
            raise ValueError(
                "hydra.launcher.runs_per_job and hydra.launcher.cpus_per_task must be >= 1, got "
                f"{runs_per_job} and {cpus_per_task}"
            )
        self._cluster, self._detach, self._runs_per_job = cluster, detach, runs_per_job
        self._timeouts, self._cpus = max_num_timeout, cpus_per_task
        self._parameters = {
            name if name in OF_ANY_CLUSTER else f"slurm_{name}": _plain(value)
            for name, value in {**parameters, "cpus_per_task": cpus_per_task}.items()
            if value is not None
        }

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,  # noqa: ARG002 - jobs run the script
        config: DictConfig,
    ) -> None:
        if find_spec("submitit") is None:
            raise LotteryError(
                "hydra/launcher=slurm needs submitit, which is not installed. Install it (pip "
                "install -e '.[slurm]'), or leave out hydra/launcher=slurm."
            )
        self._compose = Composer(hydra_context.config_loader, config)
        self._hydra = config.hydra
        self._sweep = Path(config.hydra.sweep.dir).absolute()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit all runs. Return their results, or nothing if detached."""
        self._warn_of_cancelling()
        runs = dict(enumerate(job_overrides, start=initial_job_idx))
        code = copy_code(self._sweep / "code")
        where = own_configurations(self._hydra, code)
        jobs = [
            Runs(code / "run.py", self._sweep, {n: [*where, *runs[n]] for n in numbers}, self._cpus)
            for numbers in batches(runs, self._lineage, self._runs_per_job)
        ]
        submitted: list[Any] = []
        try:
            for array in self._submit(jobs, code):
                submitted += array
        except Exception:
            if submitted:
                self._print_commands(submitted)
            raise
        if self._detach:
            self._print_commands(submitted)
            return []
        try:
            for job in submitted:
                job.wait()
        except KeyboardInterrupt:
            self._print_commands(submitted)
            raise
        returned = _returned(self._sweep, runs, [str(job.exception()) for job in submitted])
        raise_refused(returned)
        return returned

    def _lineage(self, overrides: Sequence[str]) -> str:
        """Return the digest of a run's dense network: runs with the same one share work."""
        from lth.experiment.config import from_config
        from lth.experiment.lottery import levels

        _, dense = next(levels(from_config(self._compose(overrides))))
        return dense.digest

    def _submit(self, jobs: list["Runs"], code: Path) -> Iterator[list[Any]]:
        """Submit the jobs in their order, as arrays that the cluster accepts. Yield each array."""
        import submitit

        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns on clusters without sacct
        limits = {"slurm_max_num_timeout": self._timeouts} if self._cluster == "slurm" else {}
        folder = self._sweep / "jobs" / "%j"
        executor = submitit.AutoExecutor(folder, cluster=self._cluster, **limits)
        executor.update_parameters(**self._parameters)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(code), before] if before else [str(code)])
        for part in chunks(jobs, self._largest_array() or len(jobs)):
            with executor.batch():
                array = [executor.submit(job) for job in part]
            yield array

    def _largest_array(self) -> int | None:
        """Return how many jobs one array may have, None if unknown."""
        return largest_array(scontrol_show("config")) if self._cluster == "slurm" else None

    def _warn_of_cancelling(self) -> None:
        """Print one line if jobs that are pre-empted will not be queued again."""
        partition: Any = self._parameters.get("slurm_partition")
        if self._cluster == "slurm" and (
            names := cancelling(scontrol_show("partition"), partition)
        ):
            print(
                f"partition {', '.join(names)}: SLURM cancels jobs that are pre-empted "
                "(PreemptMode=CANCEL). Run the same command again to resume them."
            )

    def _print_commands(self, submitted: list[Any]) -> None:
        """Print how to follow the jobs and how to cancel them."""
        from hydra_plugins.lth_launchers import console

        console.hide_progress()
        ids = " ".join(str(job.job_id) for job in submitted)
        print(
            f"{len(submitted)} jobs submitted: {ids}\n"
            f"to follow them: python -m analysis status {self._sweep} --watch\n"
            f"to stop them:   scancel {ids}  (the same command then resumes from the checkpoints)"
        )


def _plain(value: object) -> object:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


class Runs:
    """Some runs of a sweep as one job: each in a process of its own, `at_once` at a time."""

    def __init__(
        self, script: Path, sweep: Path, runs: Mapping[int, list[str]], at_once: int
    ) -> None:
        self._work = (script, sweep, runs, at_once)
        self._processes: list[subprocess.Popen[str]] = []
        self._stopping = False

    def __call__(self) -> None:
        """Run them. Raises RuntimeError with the reasons if a run fails, so that the job fails."""
        _, sweep, runs, at_once = self._work
        with ThreadPoolExecutor(at_once) as pool:
            reasons = dict(zip(runs, pool.map(self._run, runs), strict=True))
        failed = [f"run {number}: {reason}" for number, reason in reasons.items() if reason]
        if failed:
            count = f"{len(failed)} of {len(runs)} runs of {sweep} failed:"
            raise RuntimeError("\n".join([count, *failed]))

    def _run(self, number: int) -> str:
        """Run one. Return the reason if it fails, on one line, else nothing."""
        script, sweep, runs, _ = self._work
        if self._stopping:
            return "not started: the job was told to stop"
        run = sweep / str(number)
        words = [*runs[number], f"hydra.run.dir={run}", "hydra.mode=RUN", LOGGING]
        process = subprocess.Popen(
            [sys.executable, str(script), *words],
            env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"},  # submission's
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        self._processes.append(process)
        return _reason(run, _passed_on(process), process.wait())

    def checkpoint(self) -> Any:  # noqa: ANN401 - submitit's
        """Stop the runs and return the same job to be queued again. submitit calls this when time
        is up or the machine is needed."""
        import submitit

        self._stopping = True
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAVING_SECONDS)
        return submitit.helpers.DelayedSubmission(Runs(*self._work))


def _passed_on(process: "subprocess.Popen[str]") -> str:
    """Print what a process prints as errors, until it ends. Return the end of it."""
    assert process.stderr is not None
    last = deque[str](maxlen=100)
    with process.stderr as lines:
        for line in lines:
            sys.stderr.write(line)
            last.append(line)
    return "".join(last)


def _reason(run: Path, printed: str, code: int) -> str:
    """Return why a run failed, on one line; nothing if it did not. `printed`: its last errors;
    those that run.json does not record begin with `error: `."""
    from hydra_plugins.lth_launchers.console import INTERRUPTED
    from lth.runs.status import read_status

    if code == INTERRUPTED:
        return "interrupted, and its progress is saved"
    _, unrecorded, message = f"\n{printed}".rpartition("\nerror: ")
    if not unrecorded and code > 0:
        message = read_status(run).get("error", "")
    return " ".join(message.split()) or (ending(code) if code else "")


def batches(
    runs: Mapping[int, Sequence[str]], lineage: Callable[[Sequence[str]], str], size: int
) -> Iterator[list[int]]:
    """Yield batches of `size` run numbers. If `size` > 1, runs of one lineage are neighbours."""
    numbers = sorted(runs, key=lambda n: (lineage(runs[n]), n)) if size > 1 else list(runs)
    return chunks(numbers, size)


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield the items in their order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def copy_code(target: Path) -> Path:
    """Copy the code and configuration to `target`, with their commit and the difference from it."""
    from lth.store.provenance import changes, provenance

    root = Path(__file__).parents[2]
    target.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        source, ignored = root / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target / name)
    origin = provenance()
    commit = {"commit": origin["commit"], "dirty": origin["dirty"]}
    (target / "commit.json").write_text(json.dumps(commit))
    (target / "changes.diff").write_text(changes())
    return target


def own_configurations(hydra: DictConfig, code: Path) -> list[str]:
    """Return the words of a command that name the user's own folders of YAMLs, as this sweep has
    them. The folder of `--config-dir` is copied to the code."""
    words = [f"hydra.searchpath=[{','.join(hydra.searchpath)}]"] * bool(hydra.searchpath)
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            shutil.copytree(source.path, code / "config-dir", dirs_exist_ok=True)
            words.insert(0, f"--config-dir={code / 'config-dir'}")
    return words


def _returned(sweep: Path, runs: Iterable[int], errors: Iterable[str]) -> list[JobReturn]:
    """Return the results of runs that have ended, from their folders. `errors`: those of the jobs,
    with a line for each run that failed."""
    reasons = dict(re.findall(r"^run (\d+): (.+)$", "\n".join(errors), re.MULTILINE))
    return [_result(sweep / str(number), reasons.get(str(number))) for number in runs]


def _result(run: Path, reason: str | None) -> JobReturn:
    """Return the result of a run. `reason`: why it failed, if its job says so."""
    from lth.runs.status import read_statuses

    status = next((status for _, status in read_statuses(run)), {"state": "missing"})
    returned = JobReturn(working_dir=str(run))
    if status["state"] == "finished" and reason is None:
        returned.status = JobStatus.COMPLETED
        returned.return_value = status.get("objective")
    else:
        returned.status = JobStatus.FAILED
        recorded = status.get("error", "")
        known = reason in (None, " ".join(recorded.split()))
        unknown = f"it is {status['state']}: see {run.parent}/jobs/"
        returned.return_value = LotteryError(
            recorded if recorded and known else f"run {run.name}: {reason or unknown}"
        )
    return returned
