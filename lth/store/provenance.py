"""Record where a result comes from: code, versions, machine."""

import functools
import json
import platform
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED_FROM = ROOT / "commit.json"
"""Exists in a copy of the code (`hydra/launcher=slurm`): its commit and whether it was edited."""
PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "lth")


@functools.cache
def provenance() -> dict[str, object]:
    """Return the commit of this code, whether it was edited, package versions and the host."""
    return {
        **_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _commit() -> dict[str, object]:
    """Return `commit` and `dirty` of this checkout, or of the one that this code was copied from;
    None for both where there is neither."""
    if COPIED_FROM.is_file():
        copied: dict[str, object] = json.loads(COPIED_FROM.read_bytes())
        return copied
    edited = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if edited is None else bool(edited)}


def changes() -> str:
    """Return the difference between this code and its commit, as a patch."""
    return _git("diff", "HEAD") or ""


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
