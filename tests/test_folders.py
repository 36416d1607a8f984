"""Run folders: each start has its own, and a finished run is never overwritten."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from tests.conftest import ROOT, TINY
from tests.typed import command, run, run_folders, statuses

SHORT = "pruning.levels=0"


def files_in(folder: Path) -> Mapping[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_runs_started_together_have_folders_of_their_own(tmp_path: Path) -> None:
    pairs = 2
    for pair in range(pairs):
        words = [command(*TINY, SHORT, f"seed={2 * pair + one}") for one in (0, 1)]
        started = [subprocess.Popen(w, cwd=tmp_path, stdout=subprocess.DEVNULL) for w in words]
        assert [process.wait() for process in started] == [0, 0]
    assert {status["spec"]["seed"] for status in statuses(tmp_path)} == set(range(2 * pairs))


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_folders_of_one_second_have_different_names(kind: str) -> None:
    OmegaConf.register_new_resolver("now", lambda _: "now", replace=True)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        starts = [compose("config", return_hydra_config=True) for _ in range(2)]
    one, other = (OmegaConf.select(start, f"hydra.{kind}.dir") for start in starts)
    setup_globals()
    assert one != other
    assert one == OmegaConf.select(starts[0], f"hydra.{kind}.dir")


@pytest.mark.parametrize(
    "override",
    [pytest.param("pruning.rate=0", marks=pytest.mark.slow), "pruning.levels=80", "seed=1"],
)
def test_a_refused_run_leaves_an_earlier_run_in_its_folder_as_it_was(
    tmp_path: Path, override: str
) -> None:
    assert run(tmp_path, "hydra.run.dir=run").returncode == 0
    before = files_in(tmp_path)
    assert run(tmp_path, "hydra.run.dir=run", override).returncode == 1
    assert files_in(tmp_path) == before


@pytest.mark.slow
def test_a_finished_run_with_other_settings_is_not_overwritten(tmp_path: Path) -> None:
    folder = "hydra.run.dir=run"
    assert run(tmp_path, folder, SHORT).returncode == 0
    refused = run(tmp_path, folder, SHORT, "seed=1")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: {tmp_path}/run holds a finished run with other settings (seed is 0 there, 1 "
        "here), which would be overwritten. Name another folder (hydra.run.dir=FOLDER or "
        "hydra.sweep.dir=FOLDER), or delete this one.\n"
    )
    assert run(tmp_path, folder, "pruning.levels=1").returncode == 0  # the same run, longer


@pytest.mark.parametrize("launcher", ["local", pytest.param("packed", marks=pytest.mark.slow)])
def test_a_sweep_in_the_folder_of_another_overwrites_none_of_its_runs(
    tmp_path: Path, launcher: str
) -> None:
    sweep = ("-m", SHORT, "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}")
    assert run(tmp_path, *sweep, "seed=0,1").returncode == 0
    before = files_in(tmp_path / "sweep" / "1")
    refused = run(tmp_path, *sweep, "seed=0,2,3")
    assert refused.returncode == 1
    assert "(seed is 1 there, 2 here)" in refused.stderr
    assert files_in(tmp_path / "sweep" / "1") == before
    assert {status["spec"]["seed"] for status in statuses(tmp_path / "sweep")} <= {0, 1, 3}


def test_an_unfinished_run_gives_way(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"state": "interrupted"}')
    assert run(tmp_path, "hydra.run.dir=run", SHORT).returncode == 0
    assert run_folders(tmp_path) == []


def test_hydras_own_files_are_those_of_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, "hydra.run.dir=run", SHORT).returncode == 0
    written = tmp_path / "run" / ".hydra"
    assert {file.name for file in written.iterdir()} == {
        "config.yaml", "hydra.yaml", "overrides.yaml"
    }  # fmt: skip
    assert "- pruning.levels=0" in (written / "overrides.yaml").read_text().splitlines()
