"""Results survive a power failure: what is renamed is on the disk before, and its name after."""

import os
from pathlib import Path

import pytest

from lth.store.files import write_atomically
from lth.store.store import Store
from tests.test_store import NODE

Event = tuple[str, int]
"""Operation on the file or folder with an inode."""


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Every new folder, sync and rename, in order; a file keeps its inode when it is renamed."""
    found: list[Event] = []
    fsync, mkdir, rename, replace = os.fsync, Path.mkdir, Path.rename, Path.replace

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        found.append(("sync", os.fstat(descriptor).st_ino))

    def make(path: Path, **options: bool) -> None:
        existed = path.exists()
        mkdir(path, **options)
        if not existed:
            found.append(("make", path.stat().st_ino))

    def move(path: Path, target: Path) -> None:
        rename(path, target)
        found.append(("rename", target.stat().st_ino))

    def put(path: Path, target: Path) -> None:
        replace(path, target)
        found.append(("rename", target.stat().st_ino))

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rename", move)
    monkeypatch.setattr(Path, "replace", put)
    return found


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_file_is_synced_before_its_rename_and_its_folder_after(
    tmp_path: Path, events: list[Event]
) -> None:
    file = tmp_path / "a" / "b" / "file"
    write_atomically(file, b"1")
    a, b = tmp_path / "a", tmp_path / "a" / "b"
    assert events == [
        ("make", inode(a)), ("sync", inode(tmp_path)), ("make", inode(b)), ("sync", inode(a)),
        ("sync", inode(file)), ("rename", inode(file)), ("sync", inode(b)),
    ]  # fmt: skip


def test_a_file_that_need_not_be_durable_waits_for_no_disk(
    tmp_path: Path, events: list[Event]
) -> None:
    write_atomically(tmp_path / "a" / "file", b"1", durable=False)
    assert [kind for kind, _ in events] == ["make", "rename"]


def test_a_published_folder_is_found_after_a_power_failure(
    tmp_path: Path, events: list[Event]
) -> None:
    store = Store(tmp_path / "multirun" / "store")
    lock = store.lock(NODE)
    store.publish(NODE, {"a": b"1"})
    assert lock is not None
    folder = store.path(NODE)
    moved = events.index(("rename", inode(folder)))
    for path in (*folder.iterdir(), folder):
        assert ("sync", inode(path)) in events[:moved]
    assert ("sync", inode(folder.parent)) in events[moved:]
    for path in (folder.parent, store.root, store.root.parent):
        made = events.index(("make", inode(path)))
        assert ("sync", inode(path.parent)) in events[made:moved]
