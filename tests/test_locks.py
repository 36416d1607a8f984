"""Locks under steps of the clock, reused process numbers, reboots, and stale files of NFS."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lth.engine import engine as polling
from lth.engine.engine import Engine
from lth.store.locks import Locks, holder_of, is_abandoned
from lth.store.processes import start_of
from tests.conftest import Composer
from tests.engines import again, trainings


@pytest.mark.parametrize("step", [1, -1, 3600, -3600])
def test_a_step_of_the_clock_makes_no_live_lock_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    assert Locks(tmp_path).acquire("x") is not None
    create_time, now = psutil.Process.create_time, time.time
    monkeypatch.setattr(psutil.Process, "create_time", lambda own: create_time(own) + step)
    monkeypatch.setattr(time, "time", lambda: now() + step)
    assert not is_abandoned(tmp_path / "x")
    assert Locks(tmp_path).acquire("x") is None


def change_holder(lock: Path, change: Callable[[str], str]) -> None:
    """Write a lock that differs in the start of its holder."""
    holder = json.loads(lock.read_text())
    lock.write_text(json.dumps(holder | {"started": change(str(holder["started"]))}))


def next_tick(started: str) -> str:
    boot, ticks = started.split()
    return f"{boot} {int(ticks) + 1}"


def other_boot(started: str) -> str:
    return f"00000000-0000-4000-8000-000000000000 {started.split()[1]}"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
@pytest.mark.parametrize("change", [next_tick, other_boot])
def test_a_reused_number_and_a_holder_before_a_reboot_are_dead(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    assert Locks(tmp_path).acquire("x") is not None
    change_holder(tmp_path / "x", change)
    assert is_abandoned(tmp_path / "x")
    assert Locks(tmp_path).acquire("x") is not None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_a_holder_is_named_by_its_boot_and_its_ticks(tmp_path: Path) -> None:
    """For a command with spaces and parentheses as well, as `Process.create_time` reads it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ticks = os.sysconf("SC_CLK_TCK")
    since_boot = psutil.Process().create_time() - psutil.boot_time()
    named, number = str(start_of(os.getpid())).split()
    assert named == boot
    assert int(number) / ticks == pytest.approx(since_boot, abs=2 / ticks)
    link = tmp_path / "a) S 1 (b"
    link.symlink_to("/bin/sleep")
    with psutil.Popen([link, "60"]) as process:
        try:
            seconds = process.create_time() - psutil.boot_time()
            found = int(str(start_of(process.pid)).split()[1])
            assert found / ticks == pytest.approx(seconds, abs=2 / ticks)
        finally:
            process.kill()
    assert start_of(process.pid) is None


def test_without_proc_a_holder_is_named_by_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lth.store.processes.PROC", tmp_path / "no proc")
    assert Locks(tmp_path).acquire("x") is not None
    started = json.loads((tmp_path / "x").read_text())["started"]
    assert started == repr(psutil.Process().create_time())
    assert Locks(tmp_path).acquire("x") is None
    change_holder(tmp_path / "x", lambda started: started + "1")
    assert Locks(tmp_path).acquire("x") is not None


@pytest.mark.parametrize("proc", [True, False])
def test_a_process_that_has_ended_is_dead_before_its_parent_has_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: bool
) -> None:
    """In a container without an init process, a killed orphan stays in the list of processes."""
    if not proc:
        monkeypatch.setattr("lth.store.processes.PROC", tmp_path / "no proc")
    process = psutil.Popen(["sleep", "60"])
    assert start_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.status() == psutil.STATUS_ZOMBIE
    assert start_of(process.pid) is None
    process.wait()


def test_a_process_that_cannot_be_examined_is_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hosts hide the processes of others in /proc."""
    assert Locks(tmp_path).acquire("x") is not None
    hidden = tmp_path / "proc"
    (hidden / "sys/kernel/random").mkdir(parents=True)
    (hidden / "sys/kernel/random/boot_id").write_text("0")
    monkeypatch.setattr("lth.store.processes.PROC", hidden)
    assert not is_abandoned(tmp_path / "x")


def stale_once(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Path]:
    """Let a method of Path fail with ESTALE at its first call for a lock `x`."""
    method, failed = getattr(Path, name), list[Path]()

    def fail_first(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "x" and not failed:
            failed.append(path)
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return method(path, *arguments, **options)

    monkeypatch.setattr(Path, name, fail_first)
    return failed


@pytest.mark.parametrize("name", ["open", "read_text", "stat"])
def test_a_lock_that_goes_stale_while_it_is_examined_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    held = Locks(tmp_path).acquire("x")
    assert held is not None
    failed = stale_once(monkeypatch, name)
    assert Locks(tmp_path).acquire("x") is None
    assert failed
    failed.clear()
    assert not is_abandoned(tmp_path / "x")
    failed.clear()
    assert str(os.getpid()) in holder_of(tmp_path / "x")


def test_a_lock_that_cannot_be_created_for_a_stale_folder_is_looked_at_again_by_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = stale_once(monkeypatch, "open")
    assert Locks(tmp_path).acquire("x") is None
    assert failed
    assert Locks(tmp_path).acquire("x") is not None


def test_a_lock_that_goes_stale_while_it_is_released_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Locks(tmp_path).acquire("x")
    assert lock is not None
    with lock:
        failed = stale_once(monkeypatch, "rename")
    assert failed
    assert not list(tmp_path.iterdir())


def test_pauses_grow_while_nothing_changes_and_start_again_when_something_was_made(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (trainings(tiny(f"seed={seed}", "pruning.levels=0"))[0] for seed in (0, 1))
    others = {node: engine.store.lock(node) for node in (first, second)}
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        for number, node in ((6, first), (8, second)):
            lock = others[node]
            assert lock is not None
            if len(pauses) == number:
                lock.__exit__()
                dict(again(engine).ensure([node]))

    monkeypatch.setattr(polling, "SHORTEST_PAUSE", 1.0)
    monkeypatch.setattr(polling, "LONGEST_PAUSE", 3.0)
    monkeypatch.setattr(polling, "time", SimpleNamespace(sleep=sleep))
    assert len(dict(engine.ensure([first, second]))) == 2
    assert pauses == [1, 1.5, 2.25, 3, 3, 3, 1, 1.5]
    assert engine.trained == 0
