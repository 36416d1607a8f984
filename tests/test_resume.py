"""Snapshots, interruptions and damage, on the real digits, with networks of 464 weights."""

import contextlib
import dataclasses

import pytest
import torch

from lth.engine.engine import Engine
from lth.engine.monitor import Watch
from lth.errors import Interrupted, LotteryError
from lth.experiment.nodes import Snapshot, Training
from lth.store.store import Store
from lth.training import sparse
from tests.conftest import NORM_NET, Composer, engine_on
from tests.engines import again, elsewhere, made, mask_of, stopping_every, trainings, weights


def test_a_snapshot_is_published_on_the_way_or_made_later(engine: Engine, tiny: Composer) -> None:
    dense, ticket = trainings(tiny("pruning.levels=1"))
    requested = Snapshot(dense, 5)
    late = dataclasses.replace(ticket, weights=requested, start=5)
    outcomes = dict(engine.ensure([late]))
    on_the_way = engine.store.read(requested, "state.safetensors")
    assert [e.iteration for e in outcomes[late].curve] == [5, 10, 12]
    assert engine.trained == 2

    later = elsewhere(engine)
    dict(later.ensure([dense]))
    dict(later.ensure([late]))
    assert later.store.read(requested, "state.safetensors") == on_the_way
    assert later.store.read(late, "final.safetensors") == engine.store.read(
        late, "final.safetensors"
    )


def test_a_snapshot_made_later_resumes_and_may_meet_an_earlier_one(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "LONGEST", 1)
    dense, *_ = trainings(tiny("pruning.levels=1"))
    early, late = Snapshot(dense, 5), Snapshot(dense, 9)
    undisturbed = elsewhere(engine)
    dict(undisturbed.ensure([early, late]))
    dict(engine.ensure([dense]))
    for requested in [late], [late], [early, late]:
        with contextlib.suppress(Interrupted):
            dict(again(engine, Watch(stopping=stopping_every(5))).ensure(requested))
    assert engine.store.is_made(late)
    dict(again(engine).ensure([early, late]))
    for snapshot in early, late:
        one, two = (e.store.read(snapshot, "state.safetensors") for e in (engine, undisturbed))
        assert one == two


def test_a_rewound_network_gets_its_buffers_back(engine: Engine, tiny: Composer) -> None:
    dense, ticket = trainings(tiny(*NORM_NET))
    early = Snapshot(dense, 5)
    late = dataclasses.replace(ticket, weights=early, start=5)
    dict(engine.ensure([late]))
    at_five = weights(engine, early, dense)
    assert int(at_five["1.num_batches_tracked"]) == 5
    assert at_five["1.running_mean"].any()
    rewound = Snapshot(late, 5)
    dict(engine.ensure([dataclasses.replace(late, weights=rewound)]))
    start = weights(engine, rewound, dense)
    mask = mask_of(engine, late)
    for name, value in at_five.items():
        kept = mask.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(start[name][kept], value[kept])
        assert not start[name][~kept].any()


def test_dropout_draws_from_its_own_stream(engine: Engine, tiny: Composer) -> None:
    requested = trainings(tiny(*NORM_NET))
    torch.manual_seed(1)
    dict(engine.ensure(requested))
    other = elsewhere(engine)
    torch.manual_seed(2)
    after = torch.random.get_rng_state()
    watch = Watch(stopping=stopping_every(7))
    for _ in range(10):
        with contextlib.suppress(Interrupted):
            dict(again(other, watch).ensure(requested))
    assert torch.equal(after, torch.random.get_rng_state())
    for training in requested:
        one, two = (e.store.read(training, "final.safetensors") for e in (engine, other))
        assert one == two


def test_a_snapshot_of_the_start_is_the_start(engine: Engine, tiny: Composer) -> None:
    dense, ticket = trainings(tiny("pruning.levels=1"))
    dict(engine.ensure([dense]))
    start = Snapshot(dense, 0)
    dict(engine.ensure([dataclasses.replace(ticket, weights=start)]))
    initial = weights(engine, dense.weights, dense)
    assert all(torch.equal(value, initial[n]) for n, value in weights(engine, start, dense).items())


def test_a_damaged_snapshot_is_made_again(engine: Engine, tiny: Composer) -> None:
    dense, ticket = trainings(tiny("pruning.levels=1"))
    start = Snapshot(dense, 5)
    late = dataclasses.replace(ticket, weights=start, start=5)
    dict(engine.ensure([late]))
    for damaged in (
        engine.store.path(start) / "state.safetensors",
        engine.store.path(late) / "done",
    ):
        damaged.write_bytes(b"torn")
    repairing = again(engine)
    dict(repairing.ensure([late]))
    assert repairing.store.is_whole(start)
    assert start.digest[:12] in repairing.damaged[0]


def test_an_interrupted_training_resumes_to_the_same_bytes(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "LONGEST", 1)  # so that it can stop anywhere
    requested = trainings(tiny())
    undisturbed = elsewhere(engine)
    dict(undisturbed.ensure(requested))
    watch, attempts = Watch(stopping=stopping_every(17)), 0
    while not all(map(engine.store.exists, requested)):
        with contextlib.suppress(Interrupted):
            dict(again(engine, watch).ensure(requested))
        attempts += 1
    assert attempts > 3
    for training in requested:
        for name in ("final.safetensors", "curve.csv", "mask.safetensors", "summary.json"):
            assert engine.store.read(training, name) == undisturbed.store.read(training, name)
    assert not list((engine.store.root / "checkpoints").iterdir())


ARTEFACTS = (
    "curve.csv", "mask.safetensors", "final.safetensors", "summary.json", "provenance.json", "done"
)  # fmt: skip


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_artefact_is_made_again_and_reported(
    engine: Engine, tiny: Composer, name: str, damage: str
) -> None:
    requested = trainings(tiny("pruning.levels=2"))
    before = dict(engine.ensure(requested[:2]))
    parent = requested[1]
    file = engine.store.path(parent) / name
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    repairing = again(engine)
    after = dict(repairing.ensure(requested))
    for training, outcome in before.items():
        one, other = outcome._replace(seconds=0), after[training]._replace(seconds=0)
        assert repr(one) == repr(other)
    assert repairing.store.is_whole(parent)
    assert repairing.made == set(requested[1:])
    if name != "done":  # without that it just does not exist
        assert parent.digest[:12] in repairing.damaged[0]
        assert list((engine.store.root / "damaged").iterdir())


def test_a_damaged_checkpoint_is_not_trusted(engine: Engine, tiny: Composer) -> None:
    (dense,) = trainings(tiny("pruning.levels=0"))
    with pytest.raises(Interrupted):
        dict(again(engine, Watch(stopping=stopping_every(10))).ensure([dense]))
    assert engine.store.read_checkpoint(dense) is not None
    file = engine.store.root / "checkpoints" / dense.digest
    file.write_bytes(file.read_bytes()[:-1])
    assert engine.store.read_checkpoint(dense) is None
    dict(engine.ensure([dense]))
    assert engine.trained == 1


def test_a_disk_that_damages_everything_is_reported(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(store: Store, node: Training, artefacts: dict[str, bytes]) -> None:
        publish(store, node, artefacts)
        (store.path(node) / "curve.csv").write_text("torn")

    publish = Store.publish
    monkeypatch.setattr(Store, "publish", torn)
    with pytest.raises(
        LotteryError, match=r"curve.csv is wrong again after it was rebuilt. Check the disk."
    ):
        made(engine, tiny("pruning.levels=0"))


def test_a_checkpoint_of_another_backend_is_logged_and_training_starts_again(
    engine: Engine, tiny: Composer, caplog: pytest.LogCaptureFixture
) -> None:
    dense, ticket = trainings(tiny("pruning.rates=[70]"))
    dict(engine.ensure([dense]))
    watch = Watch(stopping=stopping_every(10))
    with pytest.raises(Interrupted):
        dict(engine_on(engine.store.root, watch, backend="eager").ensure([ticket]))
    saved = engine.maker.checkpoint(ticket)
    assert saved is not None
    assert saved.layout == [384, 6, 30, 5, 50, 10]  # the sparse backend has one vector
    (outcome,) = dict(again(engine).ensure([ticket])).values()
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert message == (
        f"the checkpoint of {ticket} was made on another device or by another backend and cannot "
        "be used: the training starts from its beginning"
    )
    undisturbed = dict(elsewhere(engine).ensure([ticket]))[ticket]
    assert repr(outcome.curve) == repr(undisturbed.curve)


def test_a_run_whose_state_cannot_be_saved_says_so_once_and_starts_again(
    engine: Engine, tiny: Composer, caplog: pytest.LogCaptureFixture
) -> None:
    own = ("optimizer=own", "optimizer._target_=tests.trainings.Counting", "optimizer.lr=0.1")
    (dense,) = trainings(tiny(*own, "+optimizer.keeps=a set", "pruning.levels=0"))
    watch = Watch(checkpoint_seconds=1e-9, stopping=stopping_every(10))
    with pytest.raises(Interrupted):
        dict(again(engine, watch).ensure([dense]))
    assert caplog.text.count("holds a value of type set") == 1
    assert engine.store.read_checkpoint(dense) is None
    dict(engine.ensure([dense]))
    assert engine.trained == 1
