"""Claims: at most one process makes a thing at a time, on one host or on many.

A claim is a file, created exclusively, that says who holds it and is touched while they live. It is
stale when its holder is known to be dead (same host), or when nobody has touched it for
`STALE_AFTER` seconds *of the observer's own clock*: clocks of different hosts are never compared.
Losing a claim to a mistake is harmless: both would make the same content, and the first to publish
wins.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TOUCH_EVERY = 15.0
STALE_AFTER = 120.0


@dataclass
class Claims:
    """The claims in one folder, as seen from this process."""

    folder: Path
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)

    def acquire(self, name: str) -> "Claim | None":
        """The claim on `name`, or None while somebody else holds it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = Claim(path)
        if claim.create():
            return claim
        holder = _read(path)
        if holder is not None and self._is_stale(path, holder):
            _remove(path, holder)
            return claim if claim.create() else None
        return None

    def _is_stale(self, path: Path, holder: str) -> bool:
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if _is_dead(holder):
            return True
        now = time.monotonic()
        seen, since = self._seen.setdefault(path, (touched, now))
        if seen != touched:
            self._seen[path] = (touched, now)
            return False
        return now - since > STALE_AFTER


class Claim:
    """One claim; a context manager that touches its file while it is held, then removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        process = psutil.Process()
        self._holder = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": process.pid,
                "started": process.create_time(),
                "token": uuid.uuid4().hex,
            }
        )
        self._released = threading.Event()

    def create(self) -> bool:
        """Take the claim unless its file exists."""
        try:
            file = self._path.open("x")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(self._holder)
        except OSError:
            self._path.unlink(missing_ok=True)  # an empty claim would be nobody's
            raise
        return True

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
    """Whether nobody holds a claim any more, as far as one look can tell: its file is gone, its
    holder on this host is dead, or it has long not been touched. By the clock of the file server
    against ours, which is good enough to tell a person; `now` is the time by the former."""
    holder = _read(path)
    try:
        silent = (time.time() if now is None else now) - path.stat().st_mtime
    except FileNotFoundError:
        return True
    return holder is None or _is_dead(holder) or silent > STALE_AFTER + TOUCH_EVERY


def is_held_here(path: Path) -> bool:
    """Whether the holder of a claim is on this host."""
    return _holder(path).get("host") == socket.gethostname()


def holder_of(path: Path) -> str:
    """Who holds a claim, for messages."""
    holder = _holder(path)
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"


def _holder(path: Path) -> dict[str, object]:
    try:
        holder: dict[str, object] = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return holder


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _is_dead(holder: str) -> bool:
    """Whether a holder on this host has ended; its process number may be another's by now."""
    try:
        claim = json.loads(holder)
        if claim["host"] != socket.gethostname():
            return False
        return bool(psutil.Process(claim["pid"]).create_time() != claim["started"])
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError, psutil.Error):  # being written just now, or not to be known
        return False


def _remove(path: Path, holder: str) -> None:
    """Remove the claim of `holder` and of nobody else: rename it first, then look at what came."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.rename(aside)
        if aside.read_text() != holder:
            os.link(aside, path)  # another's, created a moment ago: back with it
    except OSError:
        pass
    finally:
        aside.unlink(missing_ok=True)
