"""Every command in README and docs works as it stands there, with `smoke=true` added, one seed of
experiments and presets that have several, and fewer of the networks that are slow even so.
bfloat16 is left out: on a CPU without units for it, a step takes 13 times as long."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.__main__ import main
from tests.conftest import ROOT

SMALLER = {"experiment=figure5": "preset=conv2", "preset=resnet18": "pruning.levels=1"}
"""Part of a command -> what is added to it."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTED_ELSEWHERE = {
    "mine.": "tests/test_extend.py", "folder=pictures": "tests/test_datasets.py",
    "sweeper=optuna": "tests/test_run.py", "launcher=slurm": "tests/slurm/",
    "--watch": "tests/test_analysis.py", "analysis store": "tests/test_cleanup.py",
    "analysis explore": "tests/test_explorer.py",
}  # fmt: skip
"""Part of a command that needs more than a command line -> where it is tested."""


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [str(block) for block in found]


def commands() -> Iterator[str]:
    """Yield the `python` commands of shell blocks without comments, each once. A backslash at the
    end of a line continues it."""
    found: dict[str, None] = {}
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.sub(r"\s+#.*", "", line).strip().replace("FOLDERS", "multirun")
                if words.startswith("python "):
                    found[words] = None
    yield from found


ALL = list(commands())


def test_each_exception_is_needed() -> None:
    for words, where in TESTED_ELSEWHERE.items():
        assert any(words in command for command in ALL)
        assert (ROOT / where).exists()


PROGRAM = ("run.py", "analysis", "lth", "conf", "hydra_plugins")


def program(folder: Path) -> Path:
    """Put links to the program and a folder for runs into `folder`."""
    for name in PROGRAM:
        (folder / name).symlink_to(ROOT / name)
    (folder / "multirun").mkdir()
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for all commands, which share trainings."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the program, the published runs and a sweep of two arms, for the commands that
    read runs."""
    path = program(tmp_path_factory.mktemp("commands"))
    shutil.copytree(ROOT / "multirun/reference", path / "multirun/reference")
    words = [sys.executable, "run.py", "-m", "rewind=init,reinit", "smoke=true"]
    subprocess.run(words, cwd=path, capture_output=True, check=True)
    yield path
    shutil.rmtree(path / "multirun", ignore_errors=True)


TRIED = [each for each in ALL if not any(words in each for words in TESTED_ELSEWHERE)]
RUNS = [each for each in TRIED if each.startswith("python run.py ") or each == "python run.py"]
MEASURES = [each for each in TRIED if each.startswith("python -m benchmarks")]
"""Commands that take minutes or hours; they are not run."""
READERS = [each for each in TRIED if each.startswith("python -m analysis")]


def test_each_command_is_tested_or_measures() -> None:
    assert {*RUNS, *READERS, *MEASURES} == {*TRIED}
    assert min(len(RUNS), len(READERS)) > 5


def smaller(command: str) -> list[str]:
    """Return the words of a command after `python`, with those that make it small."""
    words = [word for word in shlex.split(command)[1:] if word != "training.precision=bfloat16"]
    if "preset=" in command or "experiment=" in command:
        words = [*(word for word in words if not word.startswith("seed=")), "seed=0"]
    fewer = [added for part, added in SMALLER.items() if part in command]
    return [*words, *(word for word in ("smoke=true", *fewer) if word not in words)]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_command_that_runs_works_as_it_stands(command: str, tmp_path: Path, store: Path) -> None:
    (program(tmp_path) / "multirun/store").symlink_to(store)
    words = [sys.executable, *smaller(command)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", READERS)
def test_a_command_that_reads_runs_works_as_it_stands(
    command: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = sweep.glob("multirun/*-*-*/*/0")
    places = {"RUN": str(first), "15": "1"}
    words = [places.get(word, word) for word in shlex.split(command)[2:]]
    monkeypatch.chdir(sweep)
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0


def test_python_in_the_docs_compiles() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            compile(block, str(page), "exec")
