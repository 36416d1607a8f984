"""run.py as users type it, in a process of its own, and what it leaves behind."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lth.runs.records import TIMING_COLUMNS
from tests.conftest import ROOT, TINY


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *arguments]


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A tiny run or, with -m first, sweep typed in `folder`, on a store there."""
    flags = [word for word in arguments if word == "-m"]
    overrides = {word.partition("=")[0]: word for word in (*TINY, *arguments) if word not in flags}
    words = command(*flags, *overrides.values())
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def run_folders(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("multirun/*/**/run.json"))


def table(file: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in rows]


def statuses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((run / "run.json").read_bytes()) for run in run_folders(folder)]


def importing(folder: Path) -> dict[str, str]:
    """The environment of a process that can import the modules in a folder."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def left_behind(folder: Path) -> list[Path]:
    """Everything in a folder apart from an empty `multirun`."""
    return [path for path in folder.rglob("*") if path != folder / "multirun"]
