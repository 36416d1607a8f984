"""python -m analysis publish: finished runs as a few small files, to be shared or committed.

What figures, claims and reports read stays: of curves, the points where the test set was evaluated
(an eighth of them). Paths, host and tracker go, and the store stays behind: an audit of published
runs looks at their tables alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from analysis.status import find_runs
from lth.care import read_status
from lth.errors import LotteryError
from lth.files import checksum, write_atomically
from lth.records import sealed

PRIVATE = ("dataset.root", "store", "tracker")
"""Settings that say where a run was made, not what it is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs or sweeps")
    parser.add_argument("--out", type=Path, required=True, help="where to: multirun/reference/NAME")


def publish(arguments: argparse.Namespace) -> int:
    """Write each run to OUT/SWEEP/RUN; the exit code is 1 where one was left out, or none found."""
    published, left_out = 0, 0
    for folder in arguments.folders:
        for run in sorted(find_runs(folder)):
            try:
                publish_run(run, arguments.out / run.resolve().relative_to(folder.resolve().parent))
                published += 1
            except (LotteryError, OSError) as error:
                print(f"left out: {error}", file=sys.stderr)
                left_out += 1
    print(f"{arguments.out}: {published} runs")
    return int(left_out > 0 or published == 0)


def publish_run(run: Path, target: Path) -> None:
    """Raises LotteryError where the run has not finished, or is not as it was written."""
    status = read_status(run)
    if status["state"] != "finished":
        raise LotteryError(f"{run}: {status['state']}. The same command goes on to its end.")
    tables = {name: _whole(run / name, written) for name, written in status["tables"].items()}
    tables["metrics.csv"] = _tested(tables["metrics.csv"])
    checksums = {name: checksum(content) for name, content in tables.items()}
    status = sealed(_without_the_machine(status) | {"tables": checksums})
    for name, content in tables.items():
        write_atomically(target / name, content)
    write_atomically(target / "run.json", json.dumps(status, indent=1).encode())


def _whole(file: Path, written: str) -> bytes:
    content = file.read_bytes()
    if checksum(content) != written:
        raise LotteryError(f"{file} is not as it was written: run it once more.")
    return content


def _tested(metrics: bytes) -> bytes:
    """The rows whose last cell, the test accuracy, is not empty."""
    rows = metrics.splitlines(keepends=True)
    return b"".join(row for row in rows if not row.endswith(b",\n"))


def _without_the_machine(status: dict[str, Any]) -> dict[str, Any]:
    spec = status["spec"]
    dataset = spec["dataset"] | {"root": "data"}
    return status | {
        "spec": spec | {"dataset": dataset, "store": "not-published", "tracker": None},
        "overrides": [word for word in status["overrides"] if not _is_private(word)],
        "groups": status["groups"] | {"tracker": "none"},
        "damaged": [],
        "host": None,
    }


def _is_private(override: str) -> bool:
    return override.lstrip("+~").partition("=")[0] in PRIVATE
