"""Show runs on the console: progress, errors, a summary, the exit code."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from math import prod
from multiprocessing import active_children
from pathlib import Path

import psutil
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.status import View, summary
from hydra_plugins.lth_launchers.mistakes import explained, several_experiments
from lth.errors import Interrupted, LotteryError
from lth.runs.signals import ENDING, SIGNALS
from lth.runs.status import Status, read_statuses

SAVING_SECONDS = 20.0
"""How long the jobs of a sweep have to save when it is told to stop."""
INTERRUPTED = 130
"""Exit code after a signal, by the convention of shells."""
USAGE = 2
"""Exit code after an unknown flag, by the convention of argparse."""
OF_CONFIGURATION = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}
"""Flags of Hydra that say nothing of what is done with a configuration."""
Runs = list[tuple[Path, Status]]
"""Run folders with their status."""


class ConsoleCallback(Callback):
    """A Hydra callback that starts the progress view once the folder of a run or sweep is known."""

    view: View | None = None  # an attribute of the class: launchers pickle instances to jobs

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        show_progress(Path(config.hydra.run.dir), runs=1)

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        show_progress(Path(config.hydra.sweep.dir), runs=count_runs(config))


def show_progress(folder: Path, runs: int | None) -> None:
    """Start the progress view of a folder."""
    ConsoleCallback.view = View(folder, runs)
    ConsoleCallback.view.start()


def hide_progress() -> None:
    """Stop the progress view, and show no summary: for launchers that run no jobs themselves."""
    if ConsoleCallback.view is not None:
        ConsoleCallback.view.stop()
        ConsoleCallback.view = None


def count_runs(config: DictConfig) -> int | None:
    """Return the number of runs of a sweep; None if it is not known before Hydra sweeps (globs)."""
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
    """Run a Hydra application: print errors without a traceback and a summary at the end; exit
    with 0, 1 (a run failed or was refused) or 130 (a signal)."""
    logging.raiseExceptions = False  # a log that cannot be written does not fill the console
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a traceback and exits itself
    failure: BaseException | None = None
    sys.argv += ["-m"] * is_sweep(sys.argv[1:])
    sys.argv[1:] = flags_first(sys.argv[1:])
    stop_jobs_on_signals()
    if reason := several_experiments(sys.argv[1:]):
        sys.exit(f"error: {reason}")
    try:
        main()
    except SystemExit as refused:  # its message is all that is printed
        hide_progress()
        if refused.code == USAGE:
            print("Settings have no dashes, e.g. seed=1; --help lists flags.", file=sys.stderr)
        raise
    except (Exception, KeyboardInterrupt) as error:
        if wants_traceback:
            raise
        failure = error
    try:
        sys.exit(conclude(failure))
    except KeyboardInterrupt:  # another signal
        sys.exit(INTERRUPTED)


def is_sweep(words: Sequence[str]) -> bool:
    """Return whether a command means a sweep, though it has neither `-m` nor another flag. Hydra
    uses launchers only with -m; since 1.4, an experiment's file cannot make itself a sweep."""
    flags = {word.partition("=")[0] for word in words if word.startswith(("-", "hydra.mode="))}
    swept = any(word.startswith(("hydra/launcher=", "experiment=")) for word in words)
    return swept and flags <= OF_CONFIGURATION and "experiment=null" not in words


def flags_first(words: Sequence[str]) -> list[str]:
    """Return a command with the flag of a sweep in front: behind it, argparse refuses settings."""
    return sorted(words, key=lambda word: word not in ("-m", "--multirun"))


def stop_jobs_on_signals() -> None:
    """Install `stop_jobs` for every signal that the shell does not ignore."""
    ENDING.add(stop_jobs)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # signals that nohup ignores stay so
            signal.signal(number, stop_jobs)


def conclude(failure: BaseException | None) -> int:
    """Print a summary of the runs, and an error that no run has recorded; return the exit code."""
    runs: Runs = []
    if ConsoleCallback.view is not None:
        ConsoleCallback.view.stop()
        folder = ConsoleCallback.view.folder
        try:
            runs = show_summary(folder, ConsoleCallback.view.trained)
            if not runs and isinstance(failure, LotteryError):
                _remove_empty(folder)
        except (OSError, LotteryError) as error:
            failure = failure or LotteryError(f"{folder} cannot be read: {error}")
    if isinstance(failure, Interrupted | KeyboardInterrupt):
        return INTERRUPTED
    recorded = {status.get("error") for _, status in runs}
    if failure is not None and str(failure) not in recorded:
        print(f"error: {message(failure)}", file=sys.stderr)
    return 1 if failure is not None or "failed" in _states(runs) else 0


def message(failure: BaseException) -> str:
    """Return what is printed of an exception. A LotteryError says all that its cause says."""
    if isinstance(failure, HydraException | ValueError):
        return explained(failure, sys.argv[1:])
    known = isinstance(failure, LotteryError) or failure.__cause__ is None
    return f"{failure or type(failure).__name__}" + ("" if known else f"\n{failure.__cause__}")


def show_summary(folder: Path, trained: int) -> Runs:
    """Print the outcome of the runs in a folder, and return them with their status. `trained`:
    networks that a launcher trained itself."""
    runs = read_statuses(folder)
    if runs:
        from analysis.tables import tables_of  # imports pandas, which is slow

        text = summary(folder, runs, tables_of(folder), trained)
        Console(highlight=False, soft_wrap=True).print(text)
    return runs


def _remove_empty(sweep: Path) -> None:
    """Remove the folder of a sweep that started no run, and the folder of the day, if empty."""
    (sweep / "multirun.yaml").unlink(missing_ok=True)
    for folder in (sweep, sweep.parent):
        with contextlib.suppress(OSError):  # there is something else in it
            folder.rmdir()


def stop_jobs(number: int, _: object) -> None:
    """Handle a signal in the process that launched a sweep: tell its jobs to stop, wait until they
    have saved, then raise KeyboardInterrupt. A second signal raises it at once."""
    signal.signal(number, signal.default_int_handler)
    jobs = [j for j in psutil.Process().children(recursive=True) if not _is_detached(j.pid)]
    for job in jobs:
        with contextlib.suppress(psutil.Error):
            job.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + SAVING_SECONDS
    while (active_children() or _any_running()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for job in jobs:
        with contextlib.suppress(psutil.Error):
            job.kill()
    raise KeyboardInterrupt


def _any_running() -> bool:
    view = ConsoleCallback.view
    return view is not None and "running" in _states(read_statuses(view.folder))


def _states(runs: Runs) -> set[str]:
    return {status["state"] for _, status in runs}


def _is_detached(pid: int) -> bool:
    """Return whether a process has a session of its own. Trackers have one: they end by
    themselves."""
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return True
