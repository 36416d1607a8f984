"""Every command in README and docs, run as it stands there, but for `smoke=true`, and one seed of
experiments that have five."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTED_ELSEWHERE = {
    "mine.": "tests/test_extend.py", "folder=pictures": "tests/test_datasets.py",
    "sweeper=optuna": "tests/test_run.py", "launcher=slurm": "tests/slurm/",
    "--watch": "tests/test_analysis.py", "analysis store": "tests/test_cleanup.py",
}  # fmt: skip
"""What needs more than a command line -> where it is tried."""


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [str(block) for block in found]


def commands() -> Iterator[str]:
    """Those of `python` in shell blocks, without comments, each once; runs before what reads them.
    A block's lines may go on after a backslash."""
    found: dict[str, None] = {}
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.sub(r"\s+#.*", "", line).strip().replace("FOLDERS", "multirun")
                if words.startswith("python "):
                    found[words] = None
    yield from sorted(found, key=lambda words: "analysis" in words)


ALL = list(commands())


def test_each_exception_is_needed() -> None:
    for words, where in TESTED_ELSEWHERE.items():
        assert any(words in command for command in ALL)
        assert (ROOT / where).exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all are typed, so that they share what they have in common."""
    path = tmp_path_factory.mktemp("commands")
    for name in ("run.py", "analysis", "lth", "conf", "hydra_plugins"):
        (path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "multirun/reference", path / "multirun/reference")
    return path


TRIED = [each for each in ALL if not any(words in each for words in TESTED_ELSEWHERE)]


@pytest.mark.parametrize("command", TRIED)
def test_a_command_works_as_it_stands(command: str, folder: Path) -> None:
    sweeps = sorted(folder.glob("multirun/*-*-*/*/0"))
    places = {"RUN": str(sweeps[0]) if sweeps else "", "15": "1"}
    words = [places.get(word, word) for word in shlex.split(command)[1:]]
    smoke = ["smoke=true"] if words[0] == "run.py" and "smoke=true" not in words else []
    one = ["seed=0"] if "experiment=" in command and "seed=" not in command else []
    words = [sys.executable, *words, *smoke, *one]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page, "console")])
def test_a_command_says_what_the_docs_say_that_it_says(block: str) -> None:
    command, _, told = block.removeprefix("$ ").partition("\n")
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    said = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    assert said.strip() == told.strip()


def test_python_in_the_docs_is_python() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            compile(block, str(page), "exec")


@pytest.fixture(scope="module", autouse=True)
def _clean_up(folder: Path) -> Iterator[None]:
    yield
    shutil.rmtree(folder / "multirun", ignore_errors=True)
