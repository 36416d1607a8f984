"""Turn signals into a request to save and stop. No Hydra, no torch."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that mean: save and stop. A closed terminal sends SIGHUP; SLURM sends one of the last two
or SIGTERM before it takes a machine away."""


class Flag:
    """A flag that a signal handler can set. The lock of a threading.Event would stay locked forever
    if another signal arrived in the meantime, since its handler runs in the same thread."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set


STOP = Flag()
"""Set once this process has been told to stop; a worker then starts no further run."""
ENDING: set[object] = {signal.default_int_handler}
"""Handlers that only end the process: `stop_on_signal` does not call them once all is saved."""


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether one of SIGNALS has arrived. A second SIGINT has its
    usual effect; repeats of other signals are ignored, and so are signals that nohup ignores.

    At the end, once everything is saved, the handlers that were installed before get their signals,
    each signal once, in order of arrival: submitit's handler queues the job again. Outside the main
    thread no handlers are installed.
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
        for arrived in dict.fromkeys(received):
            handler = previous[signal.Signals(arrived)]
            if callable(handler) and handler not in ENDING:
                handler(arrived, None)
