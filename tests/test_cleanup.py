"""Cleanup of a store: every fault is found, and nothing that a run needs is removed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lth.engine.engine import Engine
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.runs import status
from lth.runs.records import sealed
from lth.store import cleanup
from lth.store.files import checksum
from lth.store.locks import Locks
from lth.store.store import Store
from tests.conftest import ROOT, Composer, engine_on, run_spec
from tests.test_analysis import analysis


@pytest.fixture
def store(tiny: Composer, tmp_path: Path) -> Store:
    """A store with the ticket of seed 0, and of seed 1 with its control: 4 + 4 + 3 trainings."""
    for number, arguments in enumerate((["seed=0"], ["seed=1"], ["seed=1", "rewind=reinit"])):
        run_spec(tiny(*arguments, f"store={tmp_path}/store"), tmp_path / "runs" / str(number))
    return Store(tmp_path / "store")


def needs(store: Store) -> status.Needs:
    return status.needs_of((store.root.parent / "runs").iterdir())


def unused(store: Store) -> list[Path]:
    return cleanup.unused(cleanup.entries(store), needs(store).trainings)


def flip(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])


def damage_node(folder: Path) -> None:
    """Change the learning rate, and correct all checksums."""
    file = folder / "node.json"
    file.write_text(file.read_text().replace('"lr": 0.0012', '"lr": 0.0013'))
    done = json.loads((folder / "done").read_text())
    done["node.json"] = checksum(file.read_bytes())
    (folder / "done").write_text(json.dumps(done))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda folder: flip(folder / "curve.csv"), "the checksum of curve.csv is wrong"),
    (lambda folder: flip(folder / "final.safetensors"), "the checksum of final.safetensors"),
    (lambda folder: (folder / "mask.safetensors").unlink(), "mask.safetensors is missing"),
    (lambda folder: (folder / "done").write_text("{}"), "no valid done file"),
    (lambda folder: (folder / "more").touch(), "more was not published with it"),
    (lambda folder: (folder / "node.json").write_text("{"), "does not describe this node"),
    (damage_node, "is not the digest of its content"),
])  # fmt: skip
def test_every_fault_is_found(store: Store, damage: Callable[[Path], None], message: str) -> None:
    assert not list(cleanup.faults(store))
    damage(cleanup.entries(store)[3].path)
    assert any(message in fault for fault in cleanup.faults(store))


def test_a_damaged_checkpoint_is_found(store: Store) -> None:
    store.checkpoints.mkdir()
    (store.checkpoints / "0123").write_bytes(b"0" * 100)
    assert [fault for fault in cleanup.faults(store) if "0123: the checksum is wrong" in fault]


def test_only_what_no_run_needs_is_unused(store: Store) -> None:
    assert unused(store) == []
    shutil.rmtree(store.root.parent / "runs" / "1")  # the control uses its masks
    assert len(unused(store)) == 1  # the last level of the ticket
    shutil.rmtree(store.root.parent / "runs" / "2")
    assert len(unused(store)) == 7
    assert len(cleanup.entries(store)) == 11


def test_a_run_that_has_not_finished_needs_what_it_would_report(
    store: Store, tiny: Composer, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "3"
    folder.mkdir()
    status = json.loads((tmp_path / "runs" / "0" / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(sealed(status | {"state": "failed", "tables": {}})))
    shutil.rmtree(tmp_path / "runs" / "0")
    assert unused(store) == []
    digests = {training.digest for _, training in lottery.levels(tiny("seed=0"))}
    assert digests == needs(store).unfinished


def test_settings_that_cannot_be_read_are_an_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "runs" / "1" / "run.json").write_text('{"state": "failed", "spec": {"seed": 1}}')
    with pytest.raises(
        LotteryError, match="it has not finished, and its settings are of another version"
    ):
        needs(store)
    (tmp_path / "runs" / "1" / "run.json").write_text("{")
    with pytest.raises(LotteryError, match=r"run\.json cannot be read"):
        needs(store)


def test_leftovers_are_files_of_killed_processes(store: Store, tiny: Composer) -> None:
    assert cleanup.leftovers(store, needs(store).unfinished) == []
    coming, done = (tiny(f"seed={seed}", "pruning.levels=0") for seed in (5, 0))
    (_, in_progress), *_ = lottery.levels(coming)
    (_, stored), *_ = lottery.levels(done)
    for folder in (store.unfinished, store.damaged, store.checkpoints):
        (folder / "0123").mkdir(parents=True)
    for training in (in_progress, stored):
        store.write_checkpoint(training, b"")
    unfinished = {in_progress.digest, stored.digest}
    found = cleanup.leftovers(store, unfinished)
    assert {str(path.relative_to(store.root)) for path in found} == {
        "unfinished/0123", "damaged/0123", "checkpoints/0123", f"checkpoints/{stored.digest}"
    }  # fmt: skip
    store.drop_weights(store.path(stored))  # it is trained again
    found = cleanup.leftovers(store, unfinished)
    assert not [path for path in found if path.name == stored.digest]


def test_trainings_in_progress_are_counted_by_the_clock_of_the_file_server(store: Store) -> None:
    elsewhere = store.locks / "0123"
    elsewhere.write_text('{"host": "elsewhere", "pid": 1}')
    assert cleanup.busy(store) == 1
    long_ago = elsewhere.stat().st_mtime - 1000
    os.utime(elsewhere, (long_ago, long_ago))
    assert cleanup.busy(store) == 0


def test_a_damaged_table_of_a_finished_run_is_an_error(store: Store) -> None:
    table = store.root.parent / "runs" / "1" / "levels.csv"
    table.write_text(table.read_text().splitlines()[0])
    with pytest.raises(LotteryError, match=r"levels\.csv cannot be read"):
        needs(store)
    table.unlink()
    with pytest.raises(LotteryError, match=r"levels\.csv is missing"):
        needs(store)


def test_a_damaged_description_on_the_way_is_an_error(store: Store) -> None:
    (cleanup.entries(store)[0].path / "node.json").write_text("{")
    with pytest.raises(LotteryError, match=r"node\.json is damaged"):
        unused(store)


def test_folders_of_other_programs_are_ignored(store: Store) -> None:
    (store.root / "py" / "my thesis").mkdir(parents=True)
    assert len(cleanup.entries(store)) == 11


def drop(store: Store, keep: set[str]) -> None:
    for folder in cleanup.weights(cleanup.entries(store), keep):
        store.drop_weights(folder)


def test_dropping_weights_keeps_the_records_and_the_weights_of_first_and_last_levels(
    store: Store,
) -> None:
    ends = needs(store).ends
    assert len(ends) == 2 + 2 + 1  # the control's level 0 is the ticket's
    drop(store, keep=ends)
    assert {file.parent.name for file in store.root.glob("??/*/final*")} == ends
    assert cleanup.sizes(store)["masks"][0] == cleanup.sizes(store)["curves"][0] == 11
    assert not list(cleanup.faults(store))


def test_dropped_weights_that_are_needed_are_made_again_the_same(
    store: Store, tiny: Composer
) -> None:
    before = {file: file.read_bytes() for file in store.root.glob("??/*/*.[cs]*")}
    drop(store, keep=set())
    engine = engine_on(store.root)
    longer = tiny("seed=1", "rewind=reinit", "pruning.levels=4")
    trainings = [training for _, training in lottery.levels(longer)]
    assert {training for training, _ in engine.ensure(trainings)} == set(trainings)
    assert engine.trained == 1 + 4  # the new level; for its mask, levels 0 to 3 of the ticket
    assert engine.damaged == []
    after = {file: file.read_bytes() for file in before if file.exists()}
    assert after.items() <= before.items()
    assert cleanup.sizes(store)["weights"][0] == 5
    assert not list(cleanup.faults(store))


def test_a_dropped_snapshot_is_made_again(tiny: Composer, tmp_path: Path) -> None:
    late = ("rewind=late", "rewind.iteration=3")
    store = Store(tmp_path / "store")
    short, longer = (tiny(*late, f"pruning.levels={levels}") for levels in (1, 2))
    for spec in (short, longer):
        drop(store, keep=set())
        engine = engine_on(store.root)
        dict(engine.ensure([training for _, training in lottery.levels(spec)]))
        assert engine.damaged == []
    assert engine.trained == 3
    assert not list(cleanup.faults(store))


def test_the_command_removes_only_with_yes_and_only_with_runs(store: Store) -> None:
    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "analysis", "store", str(store.root), *arguments]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    runs = store.root.parent / "runs"
    shutil.rmtree(runs / "0")
    assert "weights" in command().stdout
    removal = ("--runs", str(runs), "--remove", "leftovers", "unused", "--weights", "none")
    printed = command(*removal)
    assert "folders that no run needs: 4" in printed.stdout
    assert "weights: 7" in printed.stdout
    assert "nothing was removed: add --yes" in printed.stdout
    assert len(cleanup.entries(store)) == 11
    nowhere = command("--runs", str(store.root), str(runs), "--remove", "unused", "--yes")
    assert nowhere.returncode == 1
    assert "is a store, not a folder of runs" in nowhere.stderr
    (store.root.parent / "other" / "locks").mkdir(parents=True)
    words = [str(store.root.parent / "other"), "--runs", str(runs), "--remove", "unused", "--yes"]
    other = subprocess.run(
        [sys.executable, "-m", "analysis", "store", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode == 1
    assert "none of these runs uses it" in other.stderr
    assert command(*removal, "--yes").returncode == 0
    assert len(cleanup.entries(store)) == 7
    assert "weights" not in cleanup.sizes(store)
    assert "no faults: all files of 7 folders" in command("--verify").stdout
    held = Locks(store.locks).acquire("0123")
    assert held is not None
    busy = command(*removal, "--yes")
    assert busy.returncode == 1
    assert "1 trainings are in progress" in busy.stderr


def test_damaged_folders_are_moved_aside_and_made_again(
    engine: Engine, tiny: Composer,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    trainings = [t for _, t in lottery.levels(tiny())]
    dict(engine.ensure(trainings))
    (engine.store.path(trainings[1]) / "mask.safetensors").write_bytes(b"")
    (engine.store.path(trainings[2]) / "final.safetensors").unlink()
    root = engine.store.root
    assert analysis(monkeypatch, "store", root, "--verify") == 1
    mend = f"2 faults. Repair them: python -m analysis store {root} --repair --yes"
    assert mend in capsys.readouterr().out
    assert analysis(monkeypatch, "store", root, "--repair") == 0
    assert "2 damaged folders found: add --yes" in capsys.readouterr().out
    assert analysis(monkeypatch, "store", root, "--repair", "--yes") == 0
    assert analysis(monkeypatch, "store", root, "--verify") == 0
    again = engine_on(root)
    dict(again.ensure(trainings))
    assert again.trained == 2
    assert analysis(monkeypatch, "store", root, "--verify") == 0
