"""A finished run as a few small files, to be shared or committed.

What figures, claims and reports read stays: of curves, the points where the test set was evaluated
(an eighth of them). Paths, host and tracker go, and the store stays behind: an audit of published
runs looks at their tables alone.
"""

import json
from pathlib import Path
from typing import Any

from analysis.collect import check_whole
from lth.runs.records import sealed
from lth.store.files import checksum, write_atomically

PRIVATE = ("dataset.root", "store", "tracker")
"""Settings that say where a run was made, not what it is."""


def publish_run(run: Path, target: Path) -> None:
    """Write it to the folder `target`. Raises ValueError where the run has not finished, or is not
    as it was written."""
    status = json.loads((run / "run.json").read_bytes())
    if status["state"] != "finished":
        raise ValueError(f"{status['state']}: the same command goes on to its end")
    check_whole(run, status)
    tables = {name: (run / name).read_bytes() for name in status["tables"]}
    tables["metrics.csv"] = _tested(tables["metrics.csv"])
    checksums = {name: checksum(content) for name, content in tables.items()}
    status = sealed(_without_the_machine(status) | {"tables": checksums})
    for name, content in tables.items():
        write_atomically(target / name, content)
    write_atomically(target / "run.json", json.dumps(status, indent=1).encode())


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
    name = override.lstrip("+~").partition("=")[0]
    return any(f"{name}.".startswith(f"{private}.") for private in PRIVATE)
