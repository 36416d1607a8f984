"""Fail each file operation of a run in turn, below Python, and run the same command again.

python -m benchmarks.faults [--every 1] [--first 1]

A shim in C (faults.c, loaded with LD_PRELOAD) makes one operation on the run's files fail, or all
operations from one on. The run must complete, or end with exit code 1 and a sentence; the same
command without faults must then end with the bytes of an undisturbed run. Needs a C compiler.
"""

import argparse
import ctypes
import errno
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.kills import ROOT, differences
from lth.store import files

SHIM = "LTH_FAULT_SHIM"
OPEN, READ, WRITE, NAME, LOOK = 1, 2, 4, 8, 16
"""Kinds of operation, as in faults.c: on content, on names, and looking a name up."""
ANY = OPEN | READ | WRITE | NAME | LOOK
RUN = (
    "model.widths=[6,5]", "training.iterations=6", "training.evaluate_every=3",
    "training.batch_size=20", "pruning.levels=1", "rewind=late", "rewind.iteration=2",
    "checkpoint_seconds=0.001", "store=store", "hydra.run.dir=sweep/0",
)  # fmt: skip
"""Two trainings and a snapshot, with a checkpoint before every step."""
PRELOADED = (
    "torch", "torch._dynamo", "sklearn.datasets", "pandas", "hydra.main", "lth.engine.engine",
    "lth.engine.checks", "lth.probes",
)  # fmt: skip


class Fault(NamedTuple):
    """An error of some kinds of operation, once or lasting; number 0 is a short write."""

    name: str
    kinds: int
    number: int
    lasting: bool = False


FAULTS = (
    Fault("EIO", ANY, errno.EIO),
    Fault("EIO, lasting", ANY, errno.EIO, lasting=True),
    Fault("ENOSPC", OPEN | WRITE | NAME, errno.ENOSPC),
    Fault("ENOSPC, lasting", WRITE | NAME, errno.ENOSPC, lasting=True),
    Fault("EMFILE", OPEN, errno.EMFILE),
    Fault("EMFILE, lasting", OPEN, errno.EMFILE, lasting=True),
    Fault("ESTALE", ANY, errno.ESTALE),
    Fault("short write", WRITE, 0),
)


class Attempt(NamedTuple):
    """How a run ended: exit code (negative: a signal), output, and operations that counted."""

    code: int
    output: str
    operations: int


def main() -> int:
    """Print the number of faults tried and how the runs ended. Return 1 if one ended badly."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="fail only every n-th operation")
    parser.add_argument("--first", type=int, default=1, help="first operation that fails")
    given = parser.parse_args()
    if SHIM not in os.environ:
        return in_shim()
    for module in PRELOADED:
        __import__(module)
    with tempfile.TemporaryDirectory() as name:
        return report(Path(name), given.first, given.every)


def in_shim() -> int:
    """Compile the shim, and run this program with it."""
    with tempfile.TemporaryDirectory() as folder:
        shim, source = f"{folder}/faults.so", str(Path(__file__).with_suffix(".c"))
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        command = [sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]]
        loaded = os.environ | {"LD_PRELOAD": shim, SHIM: shim, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=loaded, check=False).returncode


def report(folder: Path, first: int, every: int) -> int:
    sound, codes = folder / "sound", dict.fromkeys((0, 1), 0)
    assert attempt(sound, Fault("none", 0, 0), 0).code == 0
    tried = [(f, n) for f in FAULTS for n in range(first, operations(folder, f) + 1, every)]
    bad = []
    for number, (fault, position) in enumerate(tried):
        if number % 100 == 0:  # no progress bar: its thread may hold a lock when a run is forked
            print(f"{number} of {len(tried)} faults tried", flush=True)
        ended, complaint = disturbed(folder / str(number), sound, fault, position)
        codes[ended.code] = codes.get(ended.code, 0) + 1
        if complaint:
            bad.append(f"{fault.name} at operation {position}: {complaint}\n{ended.output}")
    print(f"{len(tried)} faults: {codes[0]} runs completed, {codes[1]} ended with a sentence and "
          f"exit code 1, {len(bad)} ended badly")  # fmt: skip
    print(*bad, sep="\n")
    return int(bool(bad))


def operations(folder: Path, fault: Fault) -> int:
    """Return the number of operations of an undisturbed run that a fault could hit."""
    return attempt(folder / f"counted {fault.name}", fault, 0).operations


def disturbed(folder: Path, sound: Path, fault: Fault, position: int) -> tuple[Attempt, str]:
    """Run with a fault, then without. Return the first attempt, and what is wrong, if anything."""
    first = attempt(folder, fault, position)
    return first, next(complaints(folder, sound, first), "")


def complaints(folder: Path, sound: Path, first: Attempt) -> Iterator[str]:
    if first.code not in (0, 1):
        yield f"exit code {first.code}"
    if "Traceback" in first.output:
        yield "a traceback"
    if first.code == 1 and "error: " not in first.output and "failed" not in first.output:
        yield "no reason is given"
    if first.code:
        again = attempt(folder, Fault("none", 0, 0), 0)
        if again.code:
            yield f"run again without a fault, it ended with {again.code}: {again.output}"
    if differing := differences(folder, sound):
        yield f"{', '.join(map(str, differing))} differ from an undisturbed run"


def attempt(folder: Path, fault: Fault, position: int) -> Attempt:
    """Do what `python run.py` does in `folder`, in a child of this process; operation `position`
    fails, counted from 1; 0: none."""
    folder.mkdir(exist_ok=True)
    output = folder.with_suffix(".txt")
    counted, end = os.pipe()
    child = os.fork()
    if not child:
        run(folder, output, fault, position, end)
    os.close(end)
    with os.fdopen(counted) as answer:
        operations = int(answer.read() or 0)
    _, status = os.waitpid(child, 0)
    return Attempt(os.waitstatus_to_exitcode(status), output.read_text(), operations)


def run(folder: Path, output: Path, fault: Fault, position: int, end: int) -> None:
    """Run run.py in this process, write the number of operations to `end`, and exit."""
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.pop("LD_PRELOAD")  # git, asked for the commit, works
    sys.argv[1:] = RUN
    files.PAUSES = (0.0,) * len(files.PAUSES)
    shim, where, code = ctypes.CDLL(os.environ[SHIM]), str(folder).encode(), 0
    shim.arm(where, fault.kinds, ctypes.c_long(position), fault.number, fault.lasting)
    try:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        print("" if isinstance(ended.code, int) else ended.code)
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.write(end, str(shim.counted()).encode())
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
