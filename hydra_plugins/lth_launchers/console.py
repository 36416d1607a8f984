"""What stands between a person at a terminal and Hydra: progress, errors, exit codes, signals."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import psutil
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.status import View, summary
from lth.errors import Interrupted
from lth.runs.status import read_statuses

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Those that mean: save and stop. A closed terminal sends SIGHUP; SLURM sends the last two, or
SIGTERM, before it takes a machine away."""
STOP = threading.Event()
PATIENCE_SECONDS = 20.0
"""How long the jobs of a sweep have to save when it is told to stop."""
INTERRUPTED = 130
"""The exit code of what a signal stopped, as shells have it."""


class Terminal(Callback):
    """Hydra's callback that starts the view, where the folder of a run or sweep is first known."""

    view: View | None = None  # of the class, not of the instance: launchers pickle that to jobs

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        Terminal.view = View(Path(config.hydra.run.dir), runs=1)
        Terminal.view.start()

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        Terminal.view = View(Path(config.hydra.sweep.dir), runs=count_runs(config))
        Terminal.view.start()


def dismiss() -> None:
    """No view, and no summary at the end: for launchers that run nothing here."""
    if Terminal.view is not None:
        Terminal.view.stop()
        Terminal.view = None


def count_runs(config: DictConfig) -> int | None:
    """The number of points of a sweep; None where only Hydra's sweeper can know (globs)."""
    parameters = OmegaConf.select(config, "hydra.sweeper.params") or {}
    task = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(task, list)
    typed = [*(f"{key}={value}" for key, value in parameters.items()), *map(str, task)]
    overrides = {o.key_or_group: o for o in OverridesParser.create().parse_overrides(typed)}
    swept = [override for override in overrides.values() if override.is_sweep_override()]
    if not all(override.is_discrete_sweep() for override in swept):
        return None
    return prod(sum(1 for _ in override.sweep_iterator()) for override in swept)


def show(main: Callable[[], object]) -> None:
    """Run a Hydra application: errors as a paragraph, a summary at the end, an honest exit code."""
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback and exits by itself
    failure: BaseException | None = None
    if any(word.startswith("hydra/launcher=") for word in sys.argv[1:]):
        plain = not any(word.startswith("-") for word in sys.argv[1:])
        sys.argv += ["-m"] * plain  # launchers launch sweeps, be they of one run
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has its way
            signal.signal(number, stop_jobs)
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        if wants_traceback:
            raise
        failure = error
    sys.exit(conclude(failure))


def conclude(failure: BaseException | None) -> int:
    """Say how it ended, in the runs' own words where they have any; the exit code."""
    runs = []
    if Terminal.view is not None:
        Terminal.view.stop()
        runs = read_statuses(Terminal.view.folder)
        Console(highlight=False, soft_wrap=True).print(summary(Terminal.view.folder, runs))
    states = {status["state"] for _, status in runs}
    told = {status.get("error") for _, status in runs}
    if isinstance(failure, Interrupted | KeyboardInterrupt):
        return INTERRUPTED
    if failure is not None and str(failure) not in told:
        cause = f"\n{failure.__cause__}" if failure.__cause__ else ""
        print(f"error: {failure or type(failure).__name__}{cause}", file=sys.stderr)
    return 1 if failure is not None or "failed" in states else 0


def stop_jobs(number: int, _: object) -> None:
    """What a signal does to the process that launched a sweep: its jobs are told to stop, and get
    the time to save; then it ends. A second signal ends it at once."""
    signal.signal(number, signal.default_int_handler)
    jobs = [j for j in psutil.Process().children(recursive=True) if not _is_detached(j.pid)]
    for job in jobs:
        with contextlib.suppress(psutil.Error):
            job.send_signal(signal.SIGTERM)
    patience = time.monotonic() + PATIENCE_SECONDS
    while jobs and Terminal.view is not None and time.monotonic() < patience:
        states = {status["state"] for _, status in read_statuses(Terminal.view.folder)}
        if "running" not in states:
            break
        time.sleep(0.1)
    for job in jobs:
        with contextlib.suppress(psutil.Error):
            job.kill()
    raise KeyboardInterrupt


def _is_detached(pid: int) -> bool:
    """Whether a process has a session of its own, as trackers have: they end when their runs do."""
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return True


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Whether a job has been told to stop by one of SIGNALS; a second SIGINT has its usual effect,
    others are patient. A worker that has been told starts no further job.

    A handler that somebody else had set gets its signal too, once everything is saved: submitit's
    queues the job again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield STOP.is_set
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    received: list[int] = []

    def note(number: int, _: object) -> None:
        STOP.set()
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    for number in SIGNALS:
        if previous[number] is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield STOP.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for handler in (previous[signal.Signals(number)] for number in received):
            if callable(handler) and handler not in (stop_jobs, signal.default_int_handler):
                handler(received[0], None)
