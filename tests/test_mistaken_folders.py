"""Mistakes with `python -m analysis`, each with the message that it is answered with."""

import json
import shutil
from pathlib import Path

import pytest

from lth.runs import places
from lth.runs.records import sealed
from tests.conftest import ROOT
from tests.test_analysis import analysis, write_run

GIVE = "Give folders of runs or sweeps, e.g. multirun/DATE/TIME."
STORE = "Give the folder of a store, e.g. multirun/store."
READERS = ("figures", "claims", "report", "verify", "status", "publish", "export")
LACKS = {
    "figure5": (
        "figure5 cannot be drawn: it needs runs with the model conv2, conv4 or conv6, and there "
        "are lenet_300_100. To make them: python run.py experiment=figure5"
    ),
    "figure1": (
        "figure1 cannot be drawn: it needs an experiment with all of the arms random mask and "
        "winning ticket, and there are lenet_300_100 on digits (random reinit, winning ticket). "
        "To make them: python run.py experiment=figure1"
    ),
    "figure4c": (
        "figure4c cannot be drawn: it needs runs with the arm one-shot or one-shot, random "
        "reinit, and there are random reinit, winning ticket"
    ),
    "settings": (
        "settings cannot be drawn: it needs winning tickets of one network under several settings"
    ),
    "connectivity": (
        "connectivity cannot be drawn: it needs runs with probe=connectivity. To make them: python "
        "run.py experiment=connectivity"
    ),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "PROJECT", tmp_path / "project")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "store/locks").mkdir(parents=True)
    write_run(tmp_path / "sweep/0", seed=0)
    write_run(tmp_path / "sweep/1", seed=1, kind="reinit")


def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the error of a command, after the notes on runs."""
    assert analysis(monkeypatch, *words) == 1
    lines = capsys.readouterr().err.splitlines()
    return "\n".join(line for line in lines if not line.startswith("note: "))


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(("folder", "what"), [
    ("nowhere", "does not exist"), ("empty", "has no runs"), ("file", "is a file"),
    ("store", "is a store, not a folder of runs"),
])  # fmt: skip
def test_what_is_no_folder_of_runs_is_named(
    command: str, folder: str, what: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [command, folder, *(["--out", "published"] if command == "publish" else [])]
    message = answer(monkeypatch, capsys, *words)
    assert message == f"error: {tmp_path / folder} {what}. {GIVE}"


@pytest.mark.parametrize(("folder", "what"), [
    ("nowhere", "does not exist"), ("empty", "is not a store"), ("file", "is a file"),
    ("sweep", "is a folder of runs, not a store"),
])  # fmt: skip
def test_what_is_no_store_is_named(
    folder: str, what: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    message = answer(monkeypatch, capsys, "store", folder)
    assert message == f"error: {tmp_path / folder} {what}. {STORE}"


def test_one_wrong_folder_among_right_ones_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = answer(monkeypatch, capsys, "status", "sweep", "nowhere")
    assert message == f"error: {tmp_path / 'nowhere'} does not exist. {GIVE}"


def test_the_runs_of_the_project_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "project/multirun/0", seed=0)
    there = f"The project's runs are in {tmp_path / 'project/multirun'}."
    message = answer(monkeypatch, capsys, "claims")
    assert message == f"error: {tmp_path / 'multirun'} does not exist. {GIVE} {there}"


def test_published_runs_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "multirun/reference/0", seed=0)
    published = "has no runs but the published ones in multirun/reference, which must be named"
    message = answer(monkeypatch, capsys, "status")
    assert message == f"error: {tmp_path / 'multirun'} {published}. {GIVE}"


@pytest.mark.parametrize("figure", LACKS)
def test_a_figure_says_what_the_runs_lack(
    figure: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(monkeypatch, capsys, "figures", "sweep", "--only", figure) == LACKS[figure]


def test_other_figures_are_still_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("figures", "sweep", "--only", "figure5", "figure4")
    assert answer(monkeypatch, capsys, *words) == LACKS["figure5"]
    assert (tmp_path / "figures/figure4.png").exists()


OPTIONS = {
    "figures sweep --only figure4.png": "error: no figure figure4.png; did you mean figure4",
    "figures sweep --only fig4": "error: no figure fig4; did you mean figure4",
    "figures sweep --format jpgg": "error: --format must be of avif, eps, gif, jpeg, jpg, pdf, ",
    "figure sweep": "error: no command figure; did you mean figures? There are figures, claims, ",
    "figures sweep --format png, jpgg": "error: --format must be of avif, eps, gif, jpeg, jpg, ",
    "figures --only figure4 sweep": "error: --only takes names of figures, got the folder sweep. ",
    "claims sweep --epsilon 5": "error: --epsilon must be in [0, 1), a fraction, got 5; 0.001 is ",
    "report sweep --out r.pdf": "error: --out must be a .html file, got r.pdf. Name it r.html",
    "export sweep/0 --out t.pt": "error: --out must be a .safetensors file, got t.pt. Name it ",
    "figures sweep --out file": "error: --out must be a folder, and {here}/file is a file",
    "report sweep --out empty": "error: --out must be a file, and {here}/empty is a folder",
    "claims sweep --out empty": "error: --out must be a file, and {here}/empty is a folder",
    "export sweep/0 --out empty": "error: --out must be a file, and {here}/empty is a folder",
    "publish sweep --out file": "error: --out must be a folder, and {here}/file is a file",
}
"""Command -> beginning of the message."""


@pytest.mark.parametrize("command", OPTIONS)
def test_a_wrong_option_is_refused_before_anything_is_written(
    command: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    message = answer(monkeypatch, capsys, *command.split())
    assert message.startswith(OPTIONS[command].format(here=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sweep_is_not_exported_but_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(monkeypatch, capsys, "export", "sweep") == (
        f"error: {tmp_path / 'sweep'} has 2 runs, and export takes one run. Name one of them, "
        "e.g. python -m analysis export sweep/0\n  sweep/0: seed=0\n  sweep/1: seed=1"
    )


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A published run."""
    shutil.copytree(ROOT / "multirun/reference/lenet/random/2", tmp_path / "published")
    return tmp_path / "published"


def test_a_published_run_has_no_weights_to_export(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = answer(monkeypatch, capsys, "export", "published")
    assert message.startswith(
        f"error: {published} is a published run: its tables were published, its weights were not. "
        "To train them, run its command: python run.py preset=lenet "
    )


def test_a_store_that_is_not_there_is_named(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = published / "run.json"
    status = json.loads(run.read_text())
    status["spec"]["store"] = "gone/store"
    run.write_text(json.dumps(sealed(status)))
    message = answer(monkeypatch, capsys, "export", "published")
    assert message.startswith(
        f"error: {published}: its store, gone/store, was looked for in {Path.cwd()} and in every "
        "folder above the run, and is in none. Start the command in the folder that has it, or "
        "train the run again: python run.py preset=lenet "
    )
