"""What stands between a person at a terminal and Hydra: progress, errors, exit codes, signals."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.status import View, read_statuses, summary

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


def count_runs(config: DictConfig) -> int | None:
    """The number of points of a sweep; None where only Hydra's sweeper can know (globs)."""
    parameters = OmegaConf.select(config, "hydra.sweeper.params") or {}
    typed = [*(f"{key}={value}" for key, value in parameters.items()), *config.hydra.overrides.task]
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
    if failure is not None and not states & {"failed", "interrupted"}:
        cause = f"\n{failure.__cause__}" if failure.__cause__ else ""
        print(f"error: {failure or type(failure).__name__}{cause}", file=sys.stderr)
        return 1
    return 1 if "failed" in states else INTERRUPTED if failure is not None else 0


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come yet; a second one has its usual effect at once."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    previous = {number: signal.getsignal(number) for number in signals}

    def note(*_: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in signals:
        signal.signal(number, note)
    try:
        yield stop.is_set
    finally:
        restore()
