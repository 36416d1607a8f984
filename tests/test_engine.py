"""The engine: trainings are made once, shared, locked and packed; networks of 464 weights."""

import contextlib
import json
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lth import pruning
from lth.engine.engine import Engine
from lth.engine.maker import Maker
from lth.engine.monitor import Watch
from lth.errors import Interrupted, LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.probes import LevelConnectivity
from lth.store.store import Store
from tests.conftest import Composer
from tests.engines import again, made, stopping_every, trainings


def test_a_run_is_trained_once_and_then_found(engine: Engine, tiny: Composer) -> None:
    first = made(engine, tiny())
    assert engine.trained == 4
    second = again(engine)
    assert repr(made(second, tiny())) == repr(first)
    assert second.trained == 0


def test_arms_share_the_lineage_and_more_levels_cost_only_themselves(
    engine: Engine, tiny: Composer
) -> None:
    made(engine, tiny("rewind=reinit"))
    assert engine.trained == 1 + 2 + 3  # dense, the tickets that gave masks, the arm
    made(engine, tiny())
    assert engine.trained == 1 + 3 + 3
    made(engine, tiny("pruning.levels=5"))
    assert engine.trained == 1 + 5 + 3


def test_every_arm_and_level_has_the_same_split(engine: Engine, tiny: Composer) -> None:
    recipes = [t.recipe for s in (tiny(), tiny("rewind=reinit")) for t in trainings(s)]
    first, *others = [engine.maker.build.data(recipe).indices for recipe in recipes]
    assert all(torch.equal(first[part], o[part]) for o in others for part in first)


def test_an_engine_serves_networks_of_several_shapes(engine: Engine, tiny: Composer) -> None:
    shapes = ("[6,5]", "[7]", "[9,8,7]")
    requested = [t for shape in shapes for t in trainings(tiny(f"model.widths={shape}"))]
    outcomes = dict(engine.ensure(requested))
    for training in requested:
        outcome = outcomes[training]
        widths = (64, *training.recipe.model.options["widths"], 10)
        assert [total for _, total in outcome.weights.values()] == [
            inside * outside for inside, outside in pairwise(widths)
        ]
    assert engine.trained == len(requested)


def test_a_stored_training_has_its_description_and_its_provenance(
    engine: Engine, tiny: Composer
) -> None:
    ticket = trainings(tiny("pruning.levels=1"))[1]
    made(engine, tiny("pruning.levels=1"))
    node = json.loads(engine.store.read(ticket, "node.json"))
    assert node["digest"] == ticket.digest
    mask = node["nodes"][node["nodes"][ticket.digest]["mask"]]
    assert mask["rule"]["rates"] == {"conv": 20, "linear": 20, "output": 10, "shortcut": 0}
    origin = json.loads(engine.store.read(ticket, "provenance.json"))
    assert origin["device"] == "cpu"
    assert origin["threads"] == 1
    assert origin["versions"]["torch"]
    assert len(origin["input_mean"]) == 1


@pytest.mark.parametrize(("scores", "got"), [
    (lambda given: {n: w * torch.nan for n, w in given.items()}, "got nan for 384 of the 384"),
    (lambda given: {n: w[:1] for n, w in given.items()}, r"of shape \[6, 64\] .* got \[1, 64\]"),
    (lambda _: {}, "got NoneType"),
])  # fmt: skip
def test_a_criterion_must_return_a_number_for_each_weight(
    engine: Engine,
    tiny: Composer,
    monkeypatch: pytest.MonkeyPatch,
    scores: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    got: str,
) -> None:
    monkeypatch.setattr(pruning, "magnitude", lambda inputs: scores(inputs.weights))
    with pytest.raises(LotteryError, match=rf"pruning\.criterion=magnitude must return.*{got}"):
        made(engine, tiny())


def test_the_loader_must_return_what_the_configuration_says(engine: Engine, tiny: Composer) -> None:
    with pytest.raises(LotteryError, match=r"dataset\.shape=\[1, 4, 16\].*shape \[1, 8, 8\]"):
        made(engine, tiny("dataset.shape=[1,4,16]"))


def locked(engine: Engine) -> set[str]:
    return {file.name for file in engine.store.locks.iterdir()}


def test_locks_of_trainings_that_do_not_fit_into_a_pack_are_released_at_once(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has a checkpoint, one is published while its lock is taken, one has another recipe."""
    seeds = [trainings(tiny(f"seed={seed}", "pruning.levels=0"))[0] for seed in range(4)]
    (other,) = trainings(tiny("pruning.levels=0", "training.batch_size=30"))
    _, saved, published, _ = seeds
    with pytest.raises(Interrupted):
        dict(again(engine, Watch(stopping=stopping_every(10))).ensure([saved]))
    held: list[tuple[set[str], set[str]]] = []
    train, is_made = Maker.train, Store.is_made

    def observed(self: Maker, group: Mapping[Training, object], snapshots: object) -> None:
        held.append(({training.digest for training in group}, locked(engine)))
        train(self, group, snapshots)  # type: ignore[arg-type]

    monkeypatch.setattr(Maker, "train", observed)
    monkeypatch.setattr(Store, "is_made", lambda s, node: node == published or is_made(s, node))
    engine.pack = 4
    with contextlib.suppress(StopIteration):
        next(engine.ensure([seeds[0], saved, published, other, seeds[3]]))
    group, locks = held[0]
    assert group == locks == {seeds[0].digest, seeds[3].digest}
    assert not locked(engine)


def test_a_stored_measurement_is_not_computed_again(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny("probe=level_connectivity", "probe.points=3", "pruning.levels=1")
    requested = [node for _, node in lottery.nodes(spec)]
    first = dict(engine.ensure(requested))
    assert engine.made == set(requested)

    def compute(*_: object) -> None:
        raise AssertionError("it is stored")

    monkeypatch.setattr(LevelConnectivity, "compute", compute)
    second = again(engine)
    assert repr(dict(second.ensure(requested))) == repr(first)
    assert second.made == set()


def test_a_node_published_between_the_look_and_the_lock_is_not_made_again(
    engine: Engine, tiny: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dense,) = trainings(tiny("pruning.levels=0"))
    lock = Store.lock

    def publish_first(store: Store, node: Training) -> object:
        monkeypatch.setattr(Store, "lock", lock)
        dict(again(engine).ensure([node]))
        return lock(store, node)

    monkeypatch.setattr(Store, "lock", publish_first)
    assert list(dict(engine.ensure([dense]))) == [dense]
    assert engine.made == set()
