"""Read files in spite of passing faults, and write them atomically: a file has its complete content
or does not exist."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lth.errors import LotteryError

PAUSES: tuple[float, ...] = (0.1, 0.3, 0.6, 1.0, 1.5)
"""Seconds between the attempts to read a file."""

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors which say that there is no such file. All others may pass."""


def read(path: Path) -> bytes | None:
    """Return the content of a file, or None if there is no such file.

    Any other error says nothing about the content: too many files are open, or a file server does
    not answer. Reading is tried again after each of PAUSES; then LotteryError is raised.
    """
    try:
        return _read_patiently(path)
    except ABSENT:
        return None
    except OSError as error:
        raise cannot_read(path, error) from error


def _read_patiently(path: Path) -> bytes:
    for pause in PAUSES:
        try:
            return path.read_bytes()
        except ABSENT:
            raise
        except OSError:
            time.sleep(pause)
    return path.read_bytes()


def cannot_read(path: Path, error: OSError) -> LotteryError:
    """Return the error for a file or folder that may be sound, but cannot be read now."""
    return LotteryError(
        f"{path}: cannot be read ({error.strerror}). It may be sound, so it is left as it is. "
        "Check the file system, its permissions, and the number of open files (ulimit -n); then "
        "run the same command again."
    )


def checksum(content: bytes) -> str:
    """Return the SHA-256 of `content`: 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Raise LotteryError with a remedy in place of an OSError: a full disk, a read-only folder.

    `where`: the setting or path to name in the message, e.g. `store=multirun/store`.
    """
    try:
        yield
    except OSError as error:
        raise LotteryError(
            f"{where}: cannot write there ({error.strerror}). Finished trainings are safe. Free "
            "space or permit writing, or name another folder (store=FOLDER, hydra.run.dir=FOLDER, "
            "hydra.sweep.dir=FOLDER), and run the same command again: it resumes from the store."
        ) from error


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write to a temporary file, then rename it. A reader sees the old or the new content, also
    after a kill at any moment. Raises OSError.

    `durable`: the content and the name also survive a power failure; this waits for the disk.
    """
    if durable:
        make_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(aside, content, durable=durable)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a new file; if `durable`, wait until it is on the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and its parents, and make their names durable. Raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the file names in a folder durable. Does nothing where folders cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
