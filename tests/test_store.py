"""The store: folders are whole or absent, and one process at a time makes a node."""

import json
import multiprocessing as mp
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from lth.errors import LotteryError
from lth.experiment.node import Stored
from lth.store import locks
from lth.store.locks import Locks, holder_of
from lth.store.processes import start_of
from lth.store.store import Damaged, Store


@dataclass(frozen=True, eq=False, repr=False)
class Numbered(Stored):
    """A node for tests."""

    tag = "numbered"
    number: int

    def content(self) -> dict[str, int]:
        return {"number": self.number}


NODE = Numbered(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_published_files_are_read_back(store: Store) -> None:
    assert not store.exists(NODE)
    store.publish(NODE, {"a": b"1", "b": b""})
    assert store.read(NODE, "a") == b"1"
    assert store.read(NODE, "b") == b""
    assert json.loads(store.read(NODE, "node.json"))["digest"] == NODE.digest
    assert Store(store.root).is_whole(NODE)
    assert not list((store.root / "unfinished").iterdir())


def test_the_first_to_publish_wins(store: Store) -> None:
    store.publish(NODE, {"final.safetensors": b"1"})
    Store(store.root).publish(NODE, {"final.safetensors": b"2"})
    assert Store(store.root).read(NODE, "final.safetensors") == b"1"


def test_a_folder_without_a_valid_done_does_not_exist(store: Store) -> None:
    store.publish(NODE, {"a": b"1"})
    (store.path(NODE) / "done").write_text("{")
    other = Store(store.root)
    assert not other.exists(NODE)
    other.publish(NODE, {"a": b"2"})
    assert other.read(NODE, "a") == b"2"
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_a_damaged_file_is_never_returned(store: Store) -> None:
    store.publish(NODE, {"a": b"1"})
    (store.path(NODE) / "a").write_bytes(b"2")
    with pytest.raises(Damaged, match="the checksum of a is wrong"):
        store.read(NODE, "a")
    assert not store.is_whole(NODE)


@pytest.mark.parametrize("name", ["node.json", "a", "done"])
def test_a_flipped_byte_in_any_file_is_found(store: Store, name: str) -> None:
    store.publish(NODE, {"a": b"1"})
    file = store.path(NODE) / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not Store(store.root).is_whole(NODE)


def test_a_whole_folder_is_not_set_aside(store: Store) -> None:
    store.publish(NODE, {"a": b"1"})
    store.set_aside(NODE)
    assert store.read(NODE, "a") == b"1"


def test_the_error_for_a_store_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(LotteryError, match=r"cannot write there .*store=FOLDER.*resumes"):
        store.lock(NODE)
    with pytest.raises(LotteryError, match="Finished trainings are safe"):
        store.publish(NODE, {})


def test_a_full_disk_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "done":
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("lth.store.store.write", full)
    with pytest.raises(LotteryError, match="No space left on device"):
        store.publish(NODE, {"a": b"1"})
    assert not store.exists(NODE)
    assert not list((store.root / "unfinished").iterdir())


def test_a_lock_is_exclusive_and_released(tmp_path: Path) -> None:
    mine, other = Locks(tmp_path), Locks(tmp_path)
    lock = mine.acquire("x")
    assert lock is not None
    with lock:
        assert other.acquire("x") is None
        assert other.acquire("y") is not None
        assert str(os.getpid()) in holder_of(tmp_path / "x")
    assert other.acquire("x") is not None


def write_lock(path: Path, **changes: object) -> None:
    holder = {"host": "elsewhere", "pid": os.getpid(), "started": start_of(os.getpid())}
    path.write_text(json.dumps(holder | changes))


def test_a_dead_holder_on_this_host_is_known_at_once(tmp_path: Path) -> None:
    write_lock(tmp_path / "x", host=socket.gethostname(), started="1 0")
    assert Locks(tmp_path).acquire("x") is not None
    write_lock(tmp_path / "y", host=socket.gethostname())
    assert Locks(tmp_path).acquire("y") is None


def test_a_holder_elsewhere_is_stale_when_untouched_by_our_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("lth.store.locks.time.monotonic", lambda: now)
    watching = Locks(tmp_path)
    path = tmp_path / "x"
    write_lock(path)
    os.utime(path, (1, 1))  # decades off by any clock: only changes count
    assert watching.acquire("x") is None
    now += locks.STALE_AFTER - 1
    assert watching.acquire("x") is None
    os.utime(path, (2, 2))
    now += 2
    assert watching.acquire("x") is None
    now += locks.STALE_AFTER + 1
    assert watching.acquire("x") is not None


def test_a_process_removes_only_its_own_lock(tmp_path: Path) -> None:
    lock = Locks(tmp_path).acquire("x")
    assert lock is not None
    with lock:
        write_lock(tmp_path / "x")  # taken over in the meantime
    assert json.loads((tmp_path / "x").read_text())["host"] == "elsewhere"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def contend(root: Path, rounds: int, start: "mp.synchronize.Event") -> None:
    start.wait()
    for number in range(rounds):
        store, node = Store(root), Numbered(number)
        while not store.exists(node):
            lock = store.lock(node)
            if lock is not None:
                with lock:
                    if not Store(root).exists(node):
                        (root / f"made-{number}-{os.getpid()}").touch()
                        store.publish(node, {"a": b"1"})


def test_two_processes_and_one_node_fifty_times(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    start = context.Event()
    workers = [context.Process(target=contend, args=(tmp_path, 50, start)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(list(tmp_path.glob("made-*"))) == 50
    assert all(Store(tmp_path).exists(Numbered(number)) for number in range(50))


def hold(root: Path, held: "mp.synchronize.Event") -> None:
    lock = Locks(root).acquire("x")
    assert lock is not None
    with lock:
        held.set()
        signal.pause()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    held = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, held))
    holder.start()
    held.wait()
    assert Locks(tmp_path).acquire("x") is None
    holder.kill()
    holder.join()
    assert Locks(tmp_path).acquire("x") is not None
