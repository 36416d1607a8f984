"""Where a result comes from: code, versions, machine."""

import functools
import json
import platform
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

COPIED_FROM = Path(__file__).parents[1] / "commit.json"
"""Stands beside code that is a copy: which commit, and whether it was edited."""
PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "lth")


@functools.cache
def provenance() -> dict[str, object]:
    """Commit and dirty flag of this code, versions, host."""
    return {
        **_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _commit() -> dict[str, object]:
    """Those of the checkout, or of the one that this is a copy of; None where there is neither."""
    if COPIED_FROM.is_file():
        copied: dict[str, object] = json.loads(COPIED_FROM.read_bytes())
        return copied
    edited = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if edited is None else bool(edited)}


def changes() -> str:
    """What differs from the commit, as a patch."""
    return _git("diff", "HEAD") or ""


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
