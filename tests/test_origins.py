"""Checkpoints of several processes, and the record of who made which part of a training."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from lth.audit.audit import Audit
from lth.engine.engine import Engine
from lth.engine.monitor import Watch
from lth.errors import Interrupted
from lth.experiment import lottery
from lth.store import cleanup
from lth.store.store import Store
from tests.conftest import Composer, run_spec
from tests.engines import again, stopping_every, trainings
from tests.test_store import NODE


def test_publishing_leaves_the_checkpoint_that_another_process_is_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both make the node: the lock of the first one was taken over while it slept."""
    replace = Path.replace

    def published_in_between(aside: Path, target: Path) -> Path:
        Store(tmp_path).publish(NODE, {"final.safetensors": b"1"})
        return replace(aside, target)

    slow = Store(tmp_path)
    slow.write_checkpoint(NODE, b"1")
    monkeypatch.setattr(Path, "replace", published_in_between)
    slow.write_checkpoint(NODE, b"2")
    assert slow.read_checkpoint(NODE) == b"2"
    assert cleanup.leftovers(slow, {NODE.digest}) == [slow.checkpoints / NODE.digest]


def test_published_trainings_have_no_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_checkpoint(NODE, b"1")
    store.publish(NODE, {"final.safetensors": b"1"})
    assert not list(store.checkpoints.iterdir())


def test_hidden_files_that_kills_have_left_are_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are killed after a temporary file is written, before it is renamed."""
    store = Store(tmp_path)
    store.publish(NODE, {"final.safetensors": b"1"})
    lock = store.lock(NODE)
    assert lock is not None
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    for kill in (
        lambda: store.write_checkpoint(NODE, b"1"),
        lambda: store.drop_weights(store.path(NODE)),
    ):
        monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kill()
    lock.__exit__()
    assert len(list(tmp_path.rglob(".*"))) == 2
    others = tmp_path / "py" / "my thesis" / ".done.0123", store.path(NODE) / ".DS_Store"
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = cleanup.leftovers(store, {NODE.digest})
    folders = [file.parent for file in found]
    assert sorted(folders) == sorted([store.checkpoints, store.path(NODE), store.locks])
    monkeypatch.undo()
    for file in found:
        store.remove(file)
    assert all(file.exists() for file in others)
    assert sorted(file.name for file in store.path(NODE).iterdir()) == [
        ".DS_Store", "done", "final.safetensors", "node.json"
    ]  # fmt: skip


def on_commit(monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    """Let this process run the code of a commit on a host of the same name."""
    origin = {"commit": commit, "dirty": False, "python": "3", "versions": {"torch": "2"}}
    monkeypatch.setattr("lth.engine.maker.provenance", lambda: origin | {"host": f"host {commit}"})


def origin_of(engine: Engine, training: Any) -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = json.loads(engine.store.read(training, "provenance.json"))
    return found


def test_each_part_of_a_training_has_its_origin(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dense,) = trainings(tiny("pruning.levels=0"))
    saved = [0]
    for commit in "aab":
        on_commit(monkeypatch, commit)
        with pytest.raises(Interrupted):
            dict(again(engine, Watch(stopping=stopping_every(5))).ensure([dense]))
        checkpoint = engine.maker.checkpoint(dense)
        assert checkpoint is not None
        saved.append(checkpoint.iteration)
    assert sorted(set(saved)) == saved
    on_commit(monkeypatch, "c")
    dict(again(engine).ensure([dense]))
    origin = origin_of(engine, dense)
    _, _, second, third = saved
    assert [(p["from"], p["to"], p["commit"], p["host"]) for p in origin["parts"]] == [
        (0, second, "a", "host a"), (second, third, "b", "host b"), (third, 12, "c", "host c")
    ]  # fmt: skip
    last = {key: value for key, value in origin["parts"][-1].items() if key not in ("from", "to")}
    assert last.items() <= origin.items()
    assert last.keys() >= {"commit", "dirty", "python", "versions", "host", "device", "backend",
                           "threads"}  # fmt: skip


def test_a_training_of_one_process_has_one_part(engine: Engine, tiny: Composer) -> None:
    dense, ticket = trainings(tiny("pruning.levels=1", "rewind=late", "rewind.iteration=5"))
    dict(engine.ensure([dense, ticket]))
    spans = [
        [(part["from"], part["to"]) for part in origin_of(engine, training)["parts"]]
        for training in (dense, ticket)
    ]
    assert spans == [[(0, 12)], [(5, 12)]]


def test_the_audit_finds_a_mixture_within_one_training(
    tiny: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny("pruning.levels=0", f"store={tmp_path}/store")
    on_commit(monkeypatch, "a")
    with contextlib.suppress(Interrupted):
        run_spec(spec, tmp_path / "run", stopping_every(5))
    on_commit(monkeypatch, "b")
    run_spec(spec, tmp_path / "run")
    assert Store(tmp_path / "store").exists(next(lottery.levels(spec))[1])
    audit = Audit(quick=True)
    assert not list(audit.of_run(tmp_path / "run"))
    assert list(audit.mixtures()) == ['trainings differ in commit: "a", "b"']
