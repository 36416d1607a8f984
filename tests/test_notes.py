"""Notes on valid runs that may not be what is meant: small rates, no early stop, a second store."""

from pathlib import Path

import pytest

from lth.runs import notes
from tests.conftest import ROOT, Composer
from tests.typed import run, run_folders

RATE = "removes 0.2 % per level (percent, not a fraction; 20 removes a fifth)"
SMALL = "pruning.rate=0.2 " + RATE


@pytest.mark.parametrize(("words", "expected"), [
    (["pruning.rate=0.2"], [SMALL]), (["pruning.rate=1"], []), (["pruning.conv_rate=0"], []),
    (["pruning.conv_rate=0.2"], ["pruning.conv_rate=0.2 " + RATE]),
    (["pruning.rates=[20,0.2]"], ["pruning.rates=[20,0.2] " + RATE]),
    (["pruning.rates=[20]", "pruning.rate=0.2"], []),
    (["pruning.final_density=0.2", "pruning.rate=0.2"], []),
])  # fmt: skip
def test_rates_below_one_percent_are_noted(
    composed: Composer, words: list[str], expected: list[str]
) -> None:
    assert notes.notes(composed(*words)) == expected


@pytest.mark.parametrize(("every", "noted"), [(99, 0), (100, 1), (500, 1)])
def test_a_training_without_an_evaluation_between_start_and_end_is_noted(
    composed: Composer, every: int, noted: int
) -> None:
    words = ("training.iterations=100", f"training.evaluate_every={every}")
    assert notes.notes(composed(*words)) == noted * [
        f"training.evaluate_every={every} evaluates only at the start and the end of 100 "
        "iterations, so no early stop can be found. Set it lower."
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "conf/preset").glob("*.yaml")), ids=str)
def test_no_preset_has_notes(composed: Composer, file: Path) -> None:
    assert notes.notes(composed(f"preset={file.stem}")) == []


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, outside a project that has a store."""
    (tmp_path / "project/multirun/store/locks").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(notes, "PROJECT", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_a_second_store_is_noted_with_both_paths(elsewhere: Path, composed: Composer) -> None:
    (note,) = notes.notes(composed())
    own = elsewhere.parent / "project/multirun/store"
    assert note == (
        f"this command starts a new store, {elsewhere / 'multirun/store'}, beside that of the "
        f"project, {own}. To use that one, add store={own}, and for the folders of runs "
        "hydra.run.dir=FOLDER or hydra.sweep.dir=FOLDER; or start the command in the project."
    )


@pytest.mark.parametrize("words", [["store={}/project/multirun/store"], ["store=other"]])
def test_a_store_that_is_named_is_not_noted(
    elsewhere: Path, composed: Composer, words: list[str]
) -> None:
    assert notes.notes(composed(*(word.format(elsewhere.parent) for word in words))) == []


def test_a_store_that_exists_is_not_noted(elsewhere: Path, composed: Composer) -> None:
    (elsewhere / "multirun/store/locks").mkdir(parents=True)
    assert notes.notes(composed()) == []


def test_a_command_in_the_project_is_not_noted(
    elsewhere: Path, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(elsewhere.parent / "project")
    assert notes.notes(composed()) == []


@pytest.mark.parametrize("sweep", [[], pytest.param(["-m", "seed=0,1"], marks=pytest.mark.slow)])
def test_a_note_is_printed_once_and_the_run_goes_on(tmp_path: Path, sweep: list[str]) -> None:
    done = run(tmp_path, *sweep, "pruning.rate=0.2", "pruning.levels=0", "training.iterations=5")
    assert done.returncode == 0
    assert done.stderr.count(f"note: {SMALL}\n") == 1
    for folder in run_folders(tmp_path):
        assert f"[WARNING] - {SMALL}\n" in (folder / "run.log").read_text()


def test_a_plan_prints_the_note_as_well(tmp_path: Path) -> None:
    words = ("hydra/launcher=plan", "pruning.rate=0.2", f"store={tmp_path}/store")
    done = run(tmp_path, "-m", *words)
    assert (done.returncode, done.stderr) == (0, f"note: {SMALL}\n")
