"""Signals: what a run does with them, and handlers that were installed before."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from hydra_plugins.lth_launchers import console
from lth.runs import signals
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _not_stopped() -> Iterator[None]:
    yield
    signals.STOP.clear()


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_each_signal_asks_to_stop(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with signals.stop_on_signal() as stopping:
            assert not stopping()
            os.kill(os.getpid(), number)
            assert stopping()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.timeout(30)
def test_a_signal_may_arrive_at_any_line_of_the_handler_of_another() -> None:
    """SLURM sends two at once. A lock that the handler holds would never be free again."""
    tracer, lines = sys.gettrace(), []

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        if event == "line":
            lines.append(frame.f_lineno)
            os.kill(os.getpid(), signal.SIGUSR2)
        return trace

    with signals.stop_on_signal() as stopping:
        sys.settrace(trace)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            sys.settrace(tracer)
        assert stopping()
    assert len(lines) > 2


def test_signals_that_nohup_ignores_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stop_on_signal() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopping()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_installed_before_is_called_once_all_is_saved() -> None:
    events = []
    before = signal.signal(signal.SIGUSR2, lambda *_: events.append("queue again"))
    try:
        with signals.stop_on_signal() as stopping:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stopping()
            events.append("saved")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert events == ["saved", "queue again"]


def test_each_handler_installed_before_gets_its_own_signal_once_in_order_of_arrival() -> None:
    calls: list[tuple[str, int]] = []
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGUSR1, lambda number, _: calls.append(("of USR1", number)))
    signal.signal(signal.SIGUSR2, lambda number, _: calls.append(("of USR2", number)))
    try:
        with signals.stop_on_signal():
            for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)
            assert calls == []
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert calls == [("of USR2", signal.SIGUSR2), ("of USR1", signal.SIGUSR1)]


def test_the_handler_of_a_launcher_is_not_called_again_by_a_run_in_its_process() -> None:
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    try:
        console.stop_jobs_on_signals()
        with signals.stop_on_signal() as stopping:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping()
        assert signal.getsignal(signal.SIGTERM) is console.stop_jobs
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_after_the_end_ends_the_process_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def again(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["run.py"])
    monkeypatch.setattr("logging.raiseExceptions", False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(console, "conclude", again)
    monkeypatch.setattr(console, "stop_jobs_on_signals", lambda: None)
    with pytest.raises(SystemExit) as ended:
        console.show(lambda: None)
    assert ended.value.code == console.INTERRUPTED


@pytest.mark.parametrize(("words", "swept"), [
    ("experiment=figure3 seed=3", True), ("hydra/launcher=plan", True), ("seed=3", False),
    ("-m experiment=figure3", False), ("experiment=figure3 --cfg job", False), ("", False),
    ("experiment=figure3 seed=3 hydra.mode=RUN", False), ("experiment=null", False),
    ("--config-dir=mine hydra/launcher=plan", True), ("-cd mine experiment=figure3", True),
    ("--config-dir=mine -m experiment=figure3", False), ("--config-dir=mine seed=3", False),
])  # fmt: skip
def test_commands_that_are_sweeps_without_a_flag(words: str, swept: bool) -> None:
    assert console.is_sweep(words.split()) == swept


def test_a_run_imports_nothing_of_the_console() -> None:
    """Launchers that pickle `main` would import it in every job."""
    code = "import run, sys; print({'rich', 'analysis'} & {m.split('.')[0] for m in sys.modules})"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
