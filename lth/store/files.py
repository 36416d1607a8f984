"""Write files atomically: a file has its complete content or does not exist."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lth.errors import LotteryError


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

    `durable`: the content also survives a power failure; this waits for the disk.
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
    """Write a new file; if `durable`, wait until it is on the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


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
