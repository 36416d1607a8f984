"""Locks: at most one process makes a node or writes a run at a time, on one host or on several.

A lock is a file, created exclusively. It names its holder, which touches it every `TOUCH_EVERY`
seconds. It is stale when its holder is known to be dead (same host), or when it has not been
touched for `STALE_AFTER` seconds of the observer's own clock: clocks of different hosts are never
compared. Taking over the lock of a live process by mistake is harmless: both make the same content,
and the first to publish wins.

A network file system answers ESTALE for a file that another host has replaced or removed in the
meantime. It is no fault: the lock has changed, and is looked at again.
"""

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil

from lth.store.files import make_folder
from lth.store.processes import start_of

T = TypeVar("T")

TOUCH_EVERY = 15.0
STALE_AFTER = 120.0
LOOKS = 3
"""Attempts to look at a file that is replaced all the time."""


@dataclass
class Locks:
    """The locks in one folder, as seen from this process."""

    folder: Path
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)
    """Lock file -> its time of modification, and since when this process has seen that time."""

    def acquire(self, name: str) -> "Lock | None":
        """Return the lock `name`, or None while another process holds it. Raises OSError if the
        folder cannot be written."""
        path, holder = self.folder / name, _this_process()
        try:
            make_folder(path.parent)
            taken = _create(path, holder) or (self._remove_stale(path) and _create(path, holder))
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None
        return Lock(path, holder) if taken else None

    def _remove_stale(self, path: Path) -> bool:
        """Remove a lock if it is stale. Return whether it was."""
        holder = _read(path)
        if holder is None or not self._is_stale(path, holder):
            return False
        _remove(path, holder)
        return True

    def _is_stale(self, path: Path, holder: str) -> bool:
        about = _unless_gone(path.stat)
        if about is None:
            return False
        if _is_alive(holder) is False:
            return True
        touched, now = about.st_mtime_ns, time.monotonic()
        seen, since = self._seen.setdefault(path, (touched, now))
        if seen != touched:
            self._seen[path] = (touched, now)
            return False
        return now - since > STALE_AFTER


class Lock:
    """A lock that this process holds: a context manager that touches its file while the body runs,
    and removes it at the end."""

    def __init__(self, path: Path, holder: str) -> None:
        self._path, self._holder = path, holder
        self._released = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._keep_touching, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._released.set()
        _remove(self._path, self._holder)

    def _keep_touching(self) -> None:
        while not self._released.wait(TOUCH_EVERY):
            with contextlib.suppress(OSError):
                if _read(self._path) == self._holder:
                    os.utime(self._path)


def is_abandoned(path: Path, now: float | None = None) -> bool:
    """Return whether a lock is free, as far as one look can tell: its file is gone, its holder on
    this host is dead, or a holder elsewhere has not touched it for long.

    `now`: the time in seconds by the clock of the file server; by default by the clock of this
    host, which is accurate enough for a message to a person.
    """
    holder, about = _read(path), _unless_gone(path.stat)
    if holder is None or about is None:
        return True
    alive = _is_alive(holder)
    if alive is not None:
        return not alive
    untouched = (time.time() if now is None else now) - about.st_mtime
    return untouched > STALE_AFTER + TOUCH_EVERY


def is_held_here(path: Path) -> bool:
    """Return whether the holder of a lock is on this host."""
    return _holder(path).get("host") == socket.gethostname()


def holder_of(path: Path) -> str:
    """Return the holder of a lock for messages, e.g. `process 12 on node3`."""
    holder = _holder(path)
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"


def _this_process() -> str:
    """Return the content of a new lock file; the token makes each one unique."""
    holder = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": start_of(os.getpid()),
        "token": uuid.uuid4().hex,
    }
    return json.dumps(holder)


def _create(path: Path, holder: str) -> bool:
    """Create a lock file. Return whether it did not exist before."""
    try:
        file = path.open("x")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(holder)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()  # an empty lock has no holder, and is stale only after STALE_AFTER
        raise
    return True


def _holder(path: Path) -> dict[str, object]:
    try:
        holder: dict[str, object] = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return holder


def _read(path: Path) -> str | None:
    return _unless_gone(path.read_text)


def _unless_gone(look: Callable[[], T]) -> T | None:
    """Return what `look` returns, or None if its file is gone."""
    for _ in range(LOOKS):
        try:
            return look()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return None


def _is_alive(holder: str) -> bool | None:
    """Return whether a holder on this host still runs; None if it is elsewhere or unknown."""
    try:
        content = json.loads(holder)
        if content["host"] != socket.gethostname():
            return None
        return bool(start_of(content["pid"]) == content["started"])
    except (ValueError, TypeError, KeyError):  # half-written
        return None
    except (OSError, psutil.Error):  # the process cannot be examined
        return None


def _remove(path: Path, holder: str) -> None:
    """Remove the lock of `holder` only: rename it first, then check its content."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        _unless_gone(partial(path.rename, aside))
        if aside.read_text() != holder:
            os.link(aside, path)  # another process created it a moment ago: restore it
    with contextlib.suppress(OSError):
        aside.unlink()
