"""Write a run that has ended as a few small files, to be shared or committed.

Everything that figures, claims and reports read is kept, which is only the evaluations on the test
set of each curve (about an eighth of it). Paths, host and tracker are removed. The store is not
copied, so that an audit of published runs can check only their tables.
"""

import json
from pathlib import Path
from typing import Any

from analysis.reading import check_tables
from lth.runs.records import sealed
from lth.runs.status import NOT_PUBLISHED, read_whole
from lth.store.files import checksum, write_atomically

PRIVATE = ("dataset.root", "source.dataset.root", "store", "tracker")
"""Settings that depend on the machine of a run, not on its experiment."""


def publish_run(run: Path, target: Path) -> None:
    """Write a run to the folder `target`; one that was interrupted, with the levels that it has.
    Raises LotteryError or ValueError if it has not ended with a level, or its files are damaged."""
    status = read_whole(run)
    if status["state"] not in ("finished", "interrupted") or not status.get("tables"):
        raise ValueError(f"{status['state']}: run the same command again to finish it")
    check_tables(run, status, status["state"])
    tables = {name: (run / name).read_bytes() for name in status["tables"]}
    tables["metrics.csv"] = _only_tested(tables["metrics.csv"])
    checksums = {name: checksum(content) for name, content in tables.items()}
    status = sealed(_without_the_machine(status) | {"tables": checksums})
    for name, content in tables.items():
        write_atomically(target / name, content)
    write_atomically(target / "run.json", json.dumps(status, indent=1).encode())


def _only_tested(metrics: bytes) -> bytes:
    """Return the rows whose last cell, the test accuracy, is not empty."""
    rows = metrics.splitlines(keepends=True)
    return b"".join(row for row in rows if not row.endswith(b",\n"))


def _without_the_machine(status: dict[str, Any]) -> dict[str, Any]:
    """Remove paths, host and tracker from the content of run.json."""
    spec = _without_folders(status["spec"]) | {"store": NOT_PUBLISHED, "tracker": None}
    if spec.get("source"):
        spec["source"] = _without_folders(spec["source"])
    return status | {
        "spec": spec,
        "overrides": [word for word in status["overrides"] if not _is_private(word)],
        "groups": status["groups"] | {"tracker": "none"},
        "damaged": [],
        "host": None,
    }


def _without_folders(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, or of a source, without the folder of their dataset."""
    return spec | {"dataset": spec["dataset"] | {"root": "data"}}


def _is_private(override: str) -> bool:
    name = override.lstrip("+~").partition("=")[0]
    return any(f"{name}.".startswith(f"{private}.") for private in PRIVATE)
