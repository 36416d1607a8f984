"""Files that are there whole or not at all."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lth.errors import LotteryError


def checksum(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into the LotteryError that says what to do."""
    try:
        yield
    except OSError as error:
        raise LotteryError(
            f"{where}: cannot write there ({error.strerror}). Finished trainings are safe. Free "
            "space or permit writing, or name another folder (store=FOLDER, hydra.run.dir=FOLDER, "
            "hydra.sweep.dir=FOLDER), and run the same command again: it goes on from the store."
        ) from error


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write aside, then rename: a reader, or a kill at any moment, sees the old or the new content.

    `durable`: also survives a power cut, at the price of waiting for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(aside, content, durable=durable)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a new file, through to the disk where it has to be `durable`."""
    with path.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
