"""Compare a sweep that is killed at random moments with an undisturbed one.

python -m benchmarks.kills [--kills 100]
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track

from lth.runs.records import TIMING_COLUMNS
from lth.store.files import checksum

ROOT = Path(__file__).parents[1]
SWEEP = (
    "-m", "seed=0,1,2,3", "rewind=init,reinit", "pruning.levels=6", "checkpoint_seconds=1",
    "training.iterations=24000", "training.evaluate_every=1000", "hydra.sweep.dir=sweep",
    "store=store",
)  # fmt: skip
"""52 trainings, more than a minute of work."""
LATEST_SECONDS = 12.0
"""Latest moment of a kill after each start; training begins some seconds after the start."""
RESULTS = ("curve.csv", "final.safetensors", "mask.safetensors", "node.json", "summary.json")
Published = dict[Path, tuple[int, int, str]]
"""File of the store -> inode, size and checksum."""
GONE = (0, 0, "")


def main() -> int:
    """Print the kills, the bytes lost and the trainings repeated. Return 1 if anything was lost or
    differs, else 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("disturbed", "undisturbed"):
            (folder / part).mkdir()
        lost, repeated = disturb(folder / "disturbed", kills)
        subprocess.run(command(), cwd=folder / "undisturbed", check=True, stdout=subprocess.DEVNULL)
        differing = differences(folder / "disturbed", folder / "undisturbed")
        total = len(list((folder / "undisturbed" / "store").glob("??/*")))
    print(f"{kills} kills; {lost} bytes lost; {repeated} of {total} finished trainings repeated; "
          f"{len(differing)} files differ from the undisturbed sweep")  # fmt: skip
    for file in differing:
        print(f"differs: {file}")
    return int(bool(differing or lost or repeated))


def command() -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *SWEEP]


def disturb(folder: Path, kills: int) -> tuple[int, int]:
    """Start the sweep and kill all its processes, `kills` times; then let it finish. Return the
    bytes of published files that were lost or changed, and the number of repeated trainings."""
    moment = random.Random(0)
    seen: Published = {}
    for _ in track(range(kills), "killing"):
        process = subprocess.Popen(
            command(), cwd=folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(moment.uniform(0.5, LATEST_SECONDS))
        if process.poll() is not None:
            raise SystemExit("the sweep ended before all kills: use more iterations in SWEEP")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen = {**published(folder), **seen}
    subprocess.run(command(), cwd=folder, check=True, stdout=subprocess.DEVNULL)
    now = published(folder)
    lost = [size for file, (_, size, old) in seen.items() if now.get(file, GONE)[2] != old]
    repeated = {f.parent for f, (inode, *_) in seen.items() if now.get(f, GONE)[0] != inode}
    return sum(lost), len(repeated)


def published(folder: Path) -> Published:
    """Return all published files of the store."""
    found = {}
    for file in (folder / "store").glob("??/*/*"):
        about = file.stat()
        found[file] = (about.st_ino, about.st_size, checksum(file.read_bytes()))
    return found


def differences(one: Path, other: Path) -> list[Path]:
    """Return the tables (without timing) and stored results that differ between two folders."""
    found = {path.relative_to(one) for path in results(one)}
    expected = {path.relative_to(other) for path in results(other)}
    both = (path for path in found & expected if content(one / path) != content(other / path))
    return sorted({*both, *(found ^ expected)})


def results(folder: Path) -> Iterator[Path]:
    """Yield the tables of all runs and the stored results."""
    yield from folder.glob("sweep/*/*.csv")
    yield from (file for file in folder.glob("store/??/*/*") if file.name in RESULTS)


def content(file: Path) -> object:
    """Return the rows of a table without its timing columns, or the bytes of a stored file."""
    if file.parent.parent.name != "sweep":
        return file.read_bytes()
    with file.open() as table:
        rows = list(csv.DictReader(table))
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
