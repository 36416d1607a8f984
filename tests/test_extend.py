"""docs/extend.md: each code block is tried, as user code and in a copy of the project."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lth.experiment import config, lottery
from lth.experiment.recipe import recipe
from lth.experiment.targets import canonical
from tests.conftest import ROOT, Composer
from tests.test_commands import ALL

PAGE = (ROOT / "docs/extend.md").read_text()
OWN = "mine.py"
Digest = Callable[..., str]
TINY = ("training.iterations=10", "training.evaluate_every=5", "pruning.levels=1")
COPIED = ("analysis", "conf", "docs", "hydra_plugins", "lth", "tests", "pyproject.toml", "run.py")


class Block(NamedTuple):
    """A block of code of the page, and the file that its first line names."""

    section: str
    language: str
    file: str
    code: str


def blocks() -> list[Block]:
    """Return all blocks that name a file, by section."""
    pattern = r"^```(\w+)\n# ([\w./]+)\n(.*?)^```"
    return [
        Block(section.partition("\n")[0], language, file, code)
        for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)
        for language, file, code in re.findall(pattern, section, re.DOTALL | re.MULTILINE)
    ]


BLOCKS = blocks()
HOMES = {
    section.partition("\n")[0]: found[1]
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)
    if (found := re.search(r"goes\s+into\s+`([\w./]+)`", section))
}
"""Section -> the module of the project into which its class or function goes."""
PROJECT = [
    block._replace(file=HOMES[block.section]) if block.file == OWN else block
    for block in BLOCKS
    if block.file != OWN or block.section in HOMES
]
"""The blocks as parts of the project."""
OPTIONS = sorted(b.file for b in PROJECT if b.file.startswith("conf/"))


def write(folder: Path, block: Block) -> None:
    """Apply a diff, append to a file that exists, or write a new one."""
    file = folder / block.file
    if block.language == "diff":
        file.write_text(patched(file.read_text(), block.code))
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as text:
        text.write("\n" * (block.language == "python") + block.code)


def patched(text: str, diff: str) -> str:
    """Apply hunks separated by `@@`; the old lines of each must occur exactly once."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old, new = ("".join(x[1:] or "\n" for x in lines if x[0] in f" {s}") for s in "-+")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def call(folder: Path, code: Path, *words: str) -> str:
    """Run Python in `folder`, with modules from `code`; return its output."""
    own = {"PYTHONPATH": f"{folder}:{code}", "LTH_DATA": str(folder / "data")}
    command, environment = [sys.executable, *words], {**os.environ, **own}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_letters(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(9000, 1, 16, 16), dtype=np.uint8)
    (folder / "data").mkdir()
    np.savez(folder / "data/letters.npz", pixels=pixels, labels=np.arange(9000) % 26)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user."""
    folder = tmp_path_factory.mktemp("home")
    write_letters(folder)
    for block in BLOCKS:
        if block.file.startswith(("mine", "my_")):
            write(folder, block)
    (folder / "multirun").mkdir()
    (folder / "multirun/reference").symlink_to(ROOT / "multirun/reference")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every addition."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "multirun").mkdir()
    (folder / "multirun/reference").symlink_to(ROOT / "multirun/reference")
    write_letters(folder)
    for block in PROJECT:
        write(folder, block)
    return folder


OWN_COMMANDS = [command for command in ALL if "mine." in command]


@pytest.mark.slow
@pytest.mark.parametrize("command", OWN_COMMANDS)
def test_your_own_code_runs(command: str, home: Path) -> None:
    call(home, ROOT, str(ROOT / "run.py"), *shlex.split(command)[2:], *TINY)


def test_every_part_of_your_own_is_run() -> None:
    own = "".join(block.code for block in BLOCKS if block.file == OWN)
    public = set(re.findall(r"^(?:class|def) (\w+)", own, re.MULTILINE))
    assert set(re.findall(r"mine\.(\w+)", " ".join(OWN_COMMANDS))) == public
    assert len(public) == 6


@pytest.mark.slow
def test_your_own_figure_is_drawn(home: Path) -> None:
    call(home, ROOT, "mine_figure.py")
    assert (home / "mine.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_probe_and_a_tracker_of_your_own_write_their_files(home: Path) -> None:
    own = ("+probe._target_=mine.Magnitudes", "+tracker._target_=mine.Text", "hydra.run.dir=both")
    call(home, ROOT, str(ROOT / "run.py"), *own, *TINY)
    table = (home / "both/magnitudes.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["level", "0", "1"]
    lines = (home / "both/points.txt").read_text().splitlines()
    assert lines[0].startswith("level 0 {")
    assert lines[-1] == "finished"


@pytest.fixture
def digest(
    home: Path, tmp_path: Path, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Digest]:
    """Return the digest of a dense network of the class `Net` in a copy of mine.py."""
    shutil.copy2(home / OWN, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def digest_of(*overrides: str) -> str:
        config._source_hash.cache_clear()
        spec = composed("model=own", "model._target_=mine.Net", *overrides)
        return next(lottery.levels(spec))[1].digest

    yield digest_of
    config._source_hash.cache_clear()


def test_an_edit_changes_the_digest_unless_a_version_is_declared(
    digest: Digest, tmp_path: Path
) -> None:
    before, declared = digest(), digest("+model._version_=2")
    assert len({before, declared, digest("+model._version_=3")}) == 3
    with (tmp_path / OWN).open("a") as file:
        file.write("# an edit\n")
    assert digest() != before
    assert digest("+model._version_=2") == declared


def test_numbers_in_your_own_options_are_kept_as_written(digest: Digest) -> None:
    assert digest("+model.depth=1") != digest("+model.depth=1.0")


def test_options_at_neutral_values_are_left_out(composed: Composer) -> None:
    model = canonical(recipe(composed("model.dropout=0.0")).model)
    assert model == {"name": "lenet", "options": {"widths": [300, 100]}}


def test_the_table_counts_the_files() -> None:
    rows = re.findall(r"^\| \[(.*?)\]\(.*?\) \|.*?\| (\d) \| (.*) \|$", PAGE, re.MULTILINE)
    counted = {
        section[0].upper() + section[1:]: (int(number), set(re.findall(r"`(.*?)`", files)))
        for section, number, files in rows
    }
    touched: dict[str, set[str]] = {}
    for block in PROJECT:
        if not block.file.startswith(("mine", "my_")):
            touched.setdefault(block.section, set()).add(block.file)
    assert counted == {section: (len(files), files) for section, files in touched.items()}


@pytest.mark.slow
def test_parts_of_the_project_are_options(project: Path) -> None:
    chosen = {Path(option).parent.name: Path(option).stem for option in OPTIONS}
    assert len(chosen) == len(OPTIONS) == 6
    words = [f"{group}={name}" for group, name in chosen.items()]
    call(project, project, "run.py", *words, "hydra.run.dir=run", *TINY)
    status = json.loads((project / "run/run.json").read_text())
    assert chosen.items() <= status["groups"].items()
    assert "lth." not in json.dumps(status["identity"])  # digests hold ids, not paths
    assert (project / "run/magnitudes.csv").exists()
    assert (project / "run/points.txt").exists()


@pytest.mark.slow
def test_figures_and_claims_are_shown(project: Path) -> None:
    only = ("multirun/reference/lenet", "--only", "random_masks")
    assert "random_masks: png, csv" in call(project, project, "-m", "analysis", "figures", *only)
    claims = call(project, project, "-m", "analysis", "claims", "multirun/reference/lenet")
    for words in re.findall(r"([^,]+),an example$", PAGE, re.MULTILINE):
        assert words in " ".join(claims.split())


@pytest.mark.slow
def test_the_audit_finds_the_fault_that_is_planted_against_a_new_rule(project: Path) -> None:
    names = "took or planted_against"
    shown = call(project, project, "-m", "pytest", "-q", "tests/test_verify.py", "-k", names)
    assert "2 passed" in shown


@pytest.mark.slow
def test_the_projects_own_tests_accept_the_additions(project: Path) -> None:
    call(project, project, "docs/options.py")
    tests = [f"tests/test_{name}.py" for name in ("docs", "builtins")]
    there = [test for test in tests if (project / test).exists()]
    call(project, project, "-m", "pytest", "-q", *there, "-k", "not column")
