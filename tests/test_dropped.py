"""Weights that were dropped from the store are made again when asked for, and are no damage."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from lth.audit.audit import Audit
from lth.audit.run_rules import open_run
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.node import Stored
from lth.experiment.nodes import Snapshot, Training
from lth.experiment.settings import Spec
from lth.runs import status
from lth.store import cleanup
from lth.store.store import WEIGHTS, Store
from tests.conftest import Composer, run_spec
from tests.test_analysis import analysis

REWINDS: dict[str, tuple[str, ...]] = {
    "init": (),
    "late": ("rewind.iteration=5",),
    "lr": ("rewind.iteration=5",),
    "finetune": ("rewind.iteration=5",),
    "continue": (),
}


@pytest.fixture
def stored(tiny: Composer, tmp_path: Path, request: pytest.FixtureRequest) -> Spec:
    """A finished run of two levels, of a kind of rewinding."""
    kind = getattr(request, "param", "init")
    words = (f"rewind={kind}", *REWINDS[kind], "pruning.levels=2", f"store={tmp_path}/store")
    spec = tiny(*words)
    run_spec(spec, tmp_path / "runs" / "0")
    return spec


EACH = pytest.mark.parametrize("stored", REWINDS, indirect=True)


def files(root: Path) -> dict[str, bytes]:
    """Return the content of the results of every training and snapshot."""
    found = (file for file in root.glob("??/*/*") if file.name not in ("done", "provenance.json"))
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in found}


def export(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: object) -> bytes:
    out = folder / "ticket.safetensors"
    assert analysis(monkeypatch, "export", folder / "runs/0", "--out", out, *words) == 0
    return out.read_bytes()


def drop(monkeypatch: pytest.MonkeyPatch, folder: Path, keep: str) -> None:
    words = ("--runs", folder / "runs", "--weights", keep, "--yes")
    assert analysis(monkeypatch, "store", folder / "store", *words) == 0


@EACH
def test_a_ticket_is_exported_after_its_weights_were_dropped(
    stored: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole, before = export(monkeypatch, tmp_path), files(tmp_path / "store")
    assert "training" not in capsys.readouterr().err
    drop(monkeypatch, tmp_path, "none")
    assert not [name for name in files(tmp_path / "store") if Path(name).name in WEIGHTS]
    assert export(monkeypatch, tmp_path) == whole
    assert "the weights of level 2 were dropped" in capsys.readouterr().err
    assert files(tmp_path / "store").items() <= before.items()
    assert export(monkeypatch, tmp_path) == whole
    assert "were dropped" not in capsys.readouterr().err
    assert stored.rewind.kind in REWINDS


def test_what_was_never_trained_is_not_exported(
    stored: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    *_, (_, last) = lottery.levels(stored)
    shutil.rmtree(Store(tmp_path / "store").path(last))
    words = ("export", tmp_path / "runs/0", "--level", 2)
    assert analysis(monkeypatch, *words, "--out", tmp_path / "t.safetensors") == 1
    assert "does not have" in capsys.readouterr().err


@EACH
def test_a_run_makes_its_weights_again_if_it_is_told_to(
    stored: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    before = files(tmp_path / "store")
    drop(monkeypatch, tmp_path, "none")
    dropped = files(tmp_path / "store")
    run_spec(stored, tmp_path / "runs/1")
    assert files(tmp_path / "store") == dropped
    with caplog.at_level("INFO"):
        run_spec(dataclasses.replace(stored, remake_weights=True), tmp_path / "runs/2")
    store = Store(tmp_path / "store")
    assert all(store.has_weights(training) for _, training in lottery.levels(stored))
    assert files(store.root).items() <= before.items()
    trained = [status.read_status(tmp_path / "runs" / n)["trained"] for n in "012"]
    assert trained == [trained[0], 0, trained[0]]
    assert caplog.text.count("again: its weights were dropped from the store") == trained[0]
    assert status.read_status(tmp_path / "runs/2")["damaged"] == []


def test_the_setting_is_off_by_default(tiny: Composer) -> None:
    assert not tiny().remake_weights
    assert tiny("remake_weights=true").remake_weights


def test_the_setting_is_off_in_runs_made_before_it(stored: Spec, tmp_path: Path) -> None:
    written = status.read_whole(tmp_path / "runs/0")
    del written["spec"]["remake_weights"]
    assert status.spec_of(written) == stored


@EACH
def test_the_ends_keep_what_they_start_from(
    stored: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (_, first), (_, second), (_, last) = lottery.levels(stored)
    kept: dict[str, set[Stored]] = {
        "init": {first, last}, "late": {first, last, Snapshot(first, 5)},
        "lr": {first, second, last}, "finetune": {first, second, last}, "continue": {first, last},
    }  # fmt: skip
    drop(monkeypatch, tmp_path, "ends")
    found = {file.parent.name for name in WEIGHTS for file in tmp_path.glob(f"store/??/*/{name}")}
    assert found == {node.digest for node in kept[stored.rewind.kind]}
    for level in (0, 2):
        export(monkeypatch, tmp_path, "--level", level)
    assert "dropped" not in capsys.readouterr().err


@EACH
def test_dropped_weights_are_no_damage(
    stored: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    drop(monkeypatch, tmp_path, "none")
    assert analysis(monkeypatch, "store", tmp_path / "store", "--verify") == 0
    assert "no faults" in capsys.readouterr().out
    audit = Audit()
    assert list(audit.of_run(tmp_path / "runs/0")) == []
    assert open_run(tmp_path / "runs/0").tensors(2) == {}
    assert stored.store == str(tmp_path / "store")


def test_reading_a_dropped_file_names_the_way_to_have_it_again(
    stored: Spec, tmp_path: Path
) -> None:
    (_, dense), *_ = lottery.levels(stored)
    store = Store(tmp_path / "store")
    assert store.has_weights(dense)
    Store(store.root).drop_weights(store.path(dense))  # by another process
    with pytest.raises(
        LotteryError, match=r"were dropped\. .*analysis export .*remake_weights=true"
    ):
        store.read(dense, "final.safetensors")


@pytest.mark.parametrize("stored", ["late"], indirect=True)
def test_a_level_whose_start_was_dropped_has_no_tensors(stored: Spec, tmp_path: Path) -> None:
    (_, first), *_ = lottery.levels(stored)
    assert isinstance(first, Training)
    store = Store(tmp_path / "store")
    assert open_run(tmp_path / "runs/0").tensors(2)
    store.drop_weights(store.path(Snapshot(first, 5)))
    assert open_run(tmp_path / "runs/0").tensors(2) == {}


def test_a_kill_between_the_record_and_the_file_is_no_fault(
    stored: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, dense), *_ = lottery.levels(stored)
    store = Store(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.drop_weights(store.path(dense))
    assert not list(cleanup.faults(store))
    assert store.path(dense) in cleanup.weights(cleanup.entries(store), set())
