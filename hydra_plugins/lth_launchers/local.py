"""hydra/launcher=local: each run in a process of its own, as many at once as there are cores.

A run that dies (out of memory, killed) does not affect the others. Processes are forked from a
server that has already imported torch, so a run starts in a fraction of a second.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

PRELOADED = [
    "lth.engine.engine",
    "lth.engine.checks",
    "torch._dynamo",
    "sklearn.datasets",
    "hydra.main",
]
"""Modules that take a second or more to import: imported once, before the processes fork."""


class LocalLauncher(Launcher):
    """Run the jobs of a sweep on this machine, `jobs` at once; None: one for each core."""

    def __init__(self, jobs: int | None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(
                f"hydra.launcher.jobs must be >= 1, or null for every core, got {jobs}"
            )
        self._jobs = jobs or os.cpu_count() or 1

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._work = (hydra_context, config, task_function)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs. Return their results or errors, in the order of the jobs."""
        Path(self._work[1].hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        waiting = deque(enumerate(job_overrides, start=initial_job_idx))
        running: dict[Connection, tuple[int, ForkServerProcess]] = {}
        returned: dict[int, JobReturn] = {}
        while waiting or running:
            while waiting and len(running) < self._jobs:
                number, overrides = waiting.popleft()
                answer, process = self._start(number, overrides)
                running[answer] = (number, process)
            for answer in _ready(running):
                number, process = running.pop(answer)
                returned[number] = _collect(number, answer, process)
        raise_refused(returned.values())
        return [returned[number] for number in sorted(returned)]

    def _start(self, number: int, overrides: Sequence[str]) -> tuple[Connection, ForkServerProcess]:
        import cloudpickle  # the task is a function of __main__, which pickle cannot name

        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        answer, end = context.Pipe(duplex=False)
        work = cloudpickle.dumps((number, list(overrides), *self._work, Singleton.get_state()))
        process = context.Process(target=_work, args=(work, end))
        process.start()
        end.close()
        return answer, process


def _ready(running: dict[Connection, tuple[int, ForkServerProcess]]) -> Iterator[Connection]:
    """Wait until a job has answered or died; return the connections of all that have."""
    return (ready for ready in connection.wait(list(running)) if isinstance(ready, Connection))


def _collect(number: int, answer: Connection, process: ForkServerProcess) -> JobReturn:
    """Return the result of a job; it holds a LotteryError if the process of the job died."""
    import cloudpickle

    from lth.errors import LotteryError

    try:
        returned: JobReturn = cloudpickle.loads(answer.recv_bytes())
    except EOFError:
        returned = JobReturn(status=JobStatus.FAILED)
    process.join()
    if process.exitcode:
        returned.return_value = LotteryError(
            f"run {number}: {ending(process.exitcode)}. "
            "Run the same command again: it resumes from the last checkpoint."
        )
    return returned


def ending(code: int) -> str:
    """Return how a process ended, by its exit code, which is negative after a signal."""
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process ended with {cause}{' (out of memory?)' * (code == -9)}"


def raise_refused(returned: Iterable[JobReturn]) -> None:
    """Raise one LotteryError with the reasons of all jobs that were refused before they started.
    The reason of a job that failed later is in its run.json."""
    from lth.errors import LotteryError

    reasons = {
        str(job._return_value): None
        for job in returned
        if isinstance(job._return_value, LotteryError)
        and job.working_dir
        and str(job._return_value) != _recorded_error(job)
    }
    if reasons:
        raise LotteryError("\n".join(reasons))


def _recorded_error(job: JobReturn) -> object:
    """Return the error in run.json; a job that Hydra did not start has the folder of its run as its
    working directory."""
    from lth.runs.status import read_status

    where = job.hydra_cfg.hydra.runtime.output_dir if job.hydra_cfg else job.working_dir
    return read_status(Path(str(where))).get("error")


def _work(pickled: bytes, answer: Connection) -> None:
    """Run one job in this process, and send its result."""
    import cloudpickle

    from lth.runs.signals import STOP

    number, overrides, hydra_context, config, task_function, state = cloudpickle.loads(pickled)
    Thread(target=_stop_with_the_launcher, args=(STOP.set,), daemon=True).start()
    setup_globals()
    Singleton.set_state(state)
    returned = run_job(
        hydra_context=hydra_context,
        config=job_config(hydra_context, config, number, overrides),
        task_function=task_function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    answer.send_bytes(cloudpickle.dumps(returned))


def job_config(
    context: HydraContext, config: DictConfig, number: int, overrides: Sequence[str]
) -> DictConfig:
    """Compose the configuration of one job of a sweep."""
    composed = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = f"{composed.hydra.job.name}_{number}"
        composed.hydra.job.num = number
    return composed


def _stop_with_the_launcher(stop: Callable[[], None]) -> None:
    """Wait until the launching process has ended, then call `stop`."""
    launcher = parent_process()
    if launcher is not None:
        launcher.join()
        stop()
