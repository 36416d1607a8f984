"""Signals, as a run and as whoever launched it see them."""

import os
import signal
from collections.abc import Iterator

import pytest

from hydra_plugins.lth_launchers import console


@pytest.fixture(autouse=True)
def _not_stopped() -> Iterator[None]:
    yield
    console.STOP.clear()


@pytest.mark.parametrize("number", console.SIGNALS)
def test_a_signal_is_a_wish_to_stop(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with console.stop_on_signal() as stopping:
            assert not stopping()
            os.kill(os.getpid(), number)
            assert stopping()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with console.stop_on_signal() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopping()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_somebody_else_gets_its_signal_once_all_is_saved() -> None:
    events = []
    before = signal.signal(signal.SIGUSR2, lambda *_: events.append("queue again"))
    try:
        with console.stop_on_signal() as stopping:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stopping()
            events.append("saved")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert events == ["saved", "queue again"]
