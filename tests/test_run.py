"""run.py as users type it: real Hydra, real processes."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import TINY
from tests.typed import command, importing, left_behind, run, run_folders, statuses, table


def test_a_sweep_trains_each_network_once_then_none_then_only_new_levels(tmp_path: Path) -> None:
    sweep = ("-m", "pruning.rate=10,20", "rewind=init,reinit")
    levels = 3
    first = run(tmp_path, *sweep, f"pruning.levels={levels}")
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"{1 + 4 * levels} networks trained" in first.stdout
    assert "4 finished" in first.stdout
    second = run(tmp_path, *sweep, f"pruning.levels={levels}")
    assert "0 networks trained" in second.stdout
    third = run(tmp_path, *sweep, f"pruning.levels={levels + 1}")
    assert "4 networks trained" in third.stdout
    folders = run_folders(tmp_path)
    assert len(folders) == 12
    tables = {(f.parent, f.name): table(f / "levels.csv") for f in folders}
    sweeps = sorted({sweep for sweep, _ in tables})
    for job in map(str, range(4)):
        one, two, longer = (tables[sweep, job] for sweep in sweeps)
        assert one == two == longer[: levels + 1]
        assert [row["level"] for row in longer] == ["0", "1", "2", "3", "4"]


def test_a_single_run_lands_in_hydras_folders_with_its_table(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    assert folder.relative_to(tmp_path).parts[0] == "multirun"
    assert len(folder.relative_to(tmp_path).parts) == 3
    assert {f.name for f in folder.iterdir()} == {
        ".hydra", "run.json", "run.log", "levels.csv", "metrics.csv"
    }  # fmt: skip
    (status,) = statuses(tmp_path)
    assert status["state"] == "finished"
    assert status["trained"] == 4
    assert "winning" in done.stdout


@pytest.mark.parametrize(("arguments", "says"), [
    (["pruning.typo=1"], "error: no setting pruning.typo; pruning has "),
    (["model=nope"], "error: no option nope of model. Its options: conv2, "),
    (["seed=0,1"], "add -m, as in python run.py -m seed=0,1"),
    (["store=/dev/null/store"], "store=/dev/null/store: cannot write there"),
    (["hydra.run.dir=/dev/null/run"], "Not a directory"),
])  # fmt: skip
def test_a_mistake_ends_in_one_paragraph_and_exit_code_1(
    tmp_path: Path, arguments: Sequence[str], says: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


BROKEN = "def score(evidence):\n    return 1 / 0\n"


def test_one_failed_run_does_not_stop_or_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    words = command("-m", *TINY, "pruning.criterion=random,broken.score,magnitude")
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, env=importing(tmp_path)
    )
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "2 finished" in done.stdout
    assert "ZeroDivisionError: division by zero" in done.stdout
    (failed,) = (folder for folder in run_folders(tmp_path) if folder.name == "1")
    assert "broken.py" in (failed / "run.log").read_text()
    assert [row["level"] for row in table(failed / "levels.csv")] == ["0"]


RATE = "pruning.rate must be in (0, 100), got {}"


@pytest.mark.parametrize(("override", "message"), [
    ("pruning.rate=0", RATE.format(0)), ("pruning.rate=100", RATE.format(100)),
    ("pruning.levels=80", "Set pruning.levels="),
])  # fmt: skip
def test_a_refused_run_prints_its_message_and_leaves_nothing_behind(
    tmp_path: Path, override: str, message: str
) -> None:
    done = run(tmp_path, override)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("launcher", ["local", "packed"])
def test_a_sweep_with_invalid_values_is_refused_before_anything_is_trained(
    tmp_path: Path, launcher: str
) -> None:
    done = run(tmp_path, "-m", f"hydra/launcher={launcher}", "pruning.rate=20,0,100", "seed=0,1")
    assert done.returncode == 1
    assert done.stdout == ""
    for rate in (0, 100):
        assert len(re.findall(rf"{re.escape(RATE.format(rate))}\b", done.stderr)) == 1
    assert "Traceback" not in done.stderr
    assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_a_point_that_only_its_network_rules_out_is_refused_by_itself(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "pruning.levels=1,80", "hydra.sweep.dir=sweep")
    assert done.returncode == 1
    assert done.stderr.count("pruning.levels=80 with") == 1
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()] == ["0"]


@pytest.mark.slow
def test_optuna_searches_for_the_best_objective(tmp_path: Path) -> None:
    search = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2")
    settings = ("hydra.sweeper.direction=maximize", "pruning.rate=interval(10,40)")
    done = run(tmp_path, "-m", *search, *settings, "hydra.sweep.dir=search")
    assert done.returncode == 0, done.stderr
    objectives = [
        json.loads(file.read_text())["objective"] for file in tmp_path.glob("search/*/run.json")
    ]
    assert len(objectives) == 2
    found = OmegaConf.load(tmp_path / "search" / "optimization_results.yaml")
    assert found.best_value == max(objectives)
    assert 10 <= found.best_params["pruning.rate"] <= 40


@pytest.mark.slow
def test_an_experiment_is_a_sweep_by_itself_and_its_axes_can_be_replaced(tmp_path: Path) -> None:
    words = ["experiment=figure10", "smoke=true", "seed=3", "preset=conv4"]
    done = subprocess.run(
        command(*words, "model.widths=[8]", "model.channels=[4,4]"),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 finished" in done.stdout
    made = [(status["preset"], status["groups"]["rewind"]) for status in statuses(tmp_path)]
    assert made == [("conv4", "init"), ("conv4", "continue")]
    assert {status["spec"]["seed"] for status in statuses(tmp_path)} == {3}


@pytest.mark.slow
def test_the_stock_launcher_of_submitit_works_too(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "hydra/launcher=submitit_local", "seed=0,1", "pruning.levels=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 finished" in done.stdout
    assert "4 networks trained" in done.stdout


def test_a_launcher_without_a_process_to_run_in_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "hydra.launcher.jobs=0")
    assert done.returncode == 1
    assert "hydra.launcher.jobs must be >= 1, or null for every core, got 0" in done.stderr


def test_a_smoke_run_is_refused_where_the_whole_run_would_be(tmp_path: Path) -> None:
    done = run(tmp_path, "smoke=true", "pruning.levels=80")
    assert (done.returncode, left_behind(tmp_path)) == (1, [])
    assert "pruning.levels=80 with" in done.stderr


def test_no_file_of_a_user_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    own = {folder / "notes.txt": "mine", folder / "table.csv": "a,b"}
    for file, text in own.items():
        file.write_text(text)
    for rate in (200, 20):  # refused, and run twice
        for _ in range(2):
            run(tmp_path, "hydra.run.dir=folder", f"pruning.rate={rate}")
            assert {file: file.read_text() for file in own} == own


def test_a_training_that_stands_for_two_levels_is_reported_at_both(tmp_path: Path) -> None:
    words = ("pruning=one_shot", "pruning.rates=[80,50,80]", "hydra.run.dir=run")
    assert run(tmp_path, *words).returncode == 0
    rows = table(tmp_path / "run" / "levels.csv")
    assert [row["level"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["training"] == rows[3]["training"]
