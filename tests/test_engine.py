"""The engine on the real digits, with networks of 464 weights."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from itertools import count, pairwise

import pytest
import torch
from safetensors.torch import load

from lth.engine.engine import Engine
from lth.engine.maker import Maker
from lth.engine.monitor import Watch
from lth.errors import Interrupted, LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Final, Fresh, Pruned, Snapshot, Training, Weights
from lth.experiment.results import Outcome, density
from lth.experiment.settings import Spec
from lth.models import prunable
from lth.probes import LevelConnectivity
from lth.store.store import Store
from tests.conftest import NORM_NET, Composer, engine_on


def trainings(spec: Spec) -> list[Training]:
    return [training for _, training in lottery.levels(spec)]


def made(engine: Engine, spec: Spec) -> dict[Training, Outcome]:
    results = dict(engine.ensure(trainings(spec)))
    return {training: results[training] for training in trainings(spec)}


def weights(engine: Engine, node: Weights, of: Training) -> dict[str, torch.Tensor]:
    return engine.maker.build.weights(node, of.recipe.network)


def mask_of(engine: Engine, training: Training) -> dict[str, torch.Tensor]:
    return engine.maker.build.mask(training.mask, training.recipe.network)


def again(engine: Engine, watch: Watch | None = None) -> Engine:
    """Return another process on the same store."""
    return engine_on(engine.store.root, watch)


def elsewhere(engine: Engine) -> Engine:
    """Return an engine on another store, which is empty at first."""
    return engine_on(engine.store.root.parent / "other")


def stopping_every(steps: int) -> Callable[[], bool]:
    """Return a function that asks to stop at each `steps`-th call."""
    calls = count(1)
    return lambda: next(calls) % steps == 0


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


def test_densities_are_counted_and_exact(engine: Engine, tiny: Composer) -> None:
    outcomes = [made(engine, tiny())[t] for t in trainings(tiny())]
    survivors = [[kept for kept, _ in outcome.weights.values()] for outcome in outcomes]
    # 20 % of 384, 307, 246; of 30, 24, 19; 10 % of 50, 45, 40 (4.5 goes to 4, the even one)
    assert survivors == [[384, 30, 50], [307, 24, 45], [246, 19, 41], [197, 15, 37]]
    assert [density(o.weights) for o in outcomes] == [n / 464 for n in (464, 376, 306, 249)]


@pytest.mark.parametrize("group", ["magnitude", "random"])
@pytest.mark.parametrize("rewind", ["init", "reinit"])
def test_masks_nest_and_pruned_weights_are_stored_as_zero(
    engine: Engine, tiny: Composer, group: str, rewind: str
) -> None:
    spec = tiny(f"pruning={group}", f"rewind={rewind}", "pruning.levels=3")
    made(engine, spec)
    previous = None
    for training in trainings(spec):
        mask = mask_of(engine, training)
        final = load(engine.store.read(training, "final.safetensors"))
        for name, kept in mask.items():
            assert not final[name][~kept].any()
            assert final[name][kept].all()
            if previous is not None:
                assert not (kept & ~previous[name]).any()
        previous = mask


def test_tickets_rewind_to_initial_values_everywhere(engine: Engine, tiny: Composer) -> None:
    spec = tiny()
    made(engine, spec)
    dense, ticket = trainings(spec)[0], trainings(spec)[3]
    initial = weights(engine, Fresh(dense.recipe.network, seed=0), dense)
    rewound = weights(engine, ticket.weights, ticket)
    assert initial.keys() == rewound.keys()
    assert all(torch.equal(initial[name], rewound[name]) for name in initial)


def test_the_ticket_keeps_what_ended_largest(engine: Engine, tiny: Composer) -> None:
    spec = tiny("pruning.levels=1")
    made(engine, spec)
    dense, ticket = trainings(spec)
    final = load(engine.store.read(dense, "final.safetensors"))
    mask = mask_of(engine, ticket)
    for name, kept in mask.items():
        assert final[name][kept].abs().min() >= final[name][~kept].abs().max()


def test_reinit_has_the_tickets_mask_and_fresh_weights_of_the_same_distribution(
    engine: Engine, tiny: Composer
) -> None:
    spec = tiny("model.widths=[100,50]", "pruning.levels=1")
    control = dataclasses.replace(spec, rewind=dataclasses.replace(spec.rewind, survivors="reinit"))
    made(engine, spec)
    made(engine, control)
    ticket, arm = trainings(spec)[1], trainings(control)[1]
    stored = [engine.store.read(t, "mask.safetensors") for t in (ticket, arm)]
    assert stored[0] == stored[1]
    one, other = (weights(engine, t.weights, t)["1.weight"] for t in (ticket, arm))
    assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.05
    glorot = math.sqrt(2 / (64 + 100))
    assert abs(float(other.std()) / glorot - 1) < 0.03


def test_random_masks_have_the_tickets_counts_at_uniform_positions(
    engine: Engine, tiny: Composer
) -> None:
    ticket = trainings(tiny("model.widths=[100,50]"))[3]
    control = trainings(tiny("model.widths=[100,50]", "pruning=random"))[3]
    made(engine, tiny("model.widths=[100,50]", "pruning.levels=2"))
    one, other = (mask_of(engine, t) for t in (ticket, control))
    for name in one:
        size, kept = one[name].numel(), int(one[name].sum())
        assert int(other[name].sum()) == kept
        expected = kept * kept / size
        assert abs(int((one[name] & other[name]).sum()) - expected) < 5 * math.sqrt(expected)


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


def test_a_layer_may_lose_its_last_weight(engine: Engine, tiny: Composer) -> None:
    spec = tiny("model.widths=[3,2]", "pruning.rate=60", "pruning.levels=3")
    *_, last = made(engine, spec).values()
    assert last.weights["3.weight"][0] == 0
    assert len(last.curve) == 4
    assert all(e.val_loss < 10 for e in last.curve)


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


def test_an_interrupted_training_resumes_to_the_same_bytes(engine: Engine, tiny: Composer) -> None:
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


def test_the_loader_must_return_what_the_configuration_says(engine: Engine, tiny: Composer) -> None:
    with pytest.raises(LotteryError, match=r"dataset\.shape=\[1, 4, 16\].*shape \[1, 8, 8\]"):
        made(engine, tiny("dataset.shape=[1,4,16]"))


def test_prunable_types_decide_the_rates(engine: Engine, tiny: Composer) -> None:
    spec = tiny("pruning.output_rate=50", "pruning.levels=1")
    _, ticket = trainings(spec)
    made(engine, spec)
    assert isinstance(ticket.mask, Pruned)
    counts = mask_of(engine, ticket)
    assert {name: int(kept.sum()) for name, kept in counts.items()} == {
        "1.weight": 307, "3.weight": 24, "5.weight": 25
    }  # fmt: skip
    assert list(prunable(torch.nn.Linear(2, 2))) == [".weight"]


def started(engine: Engine, training: Training) -> dict[str, torch.Tensor]:
    """Return the state that a training really began with."""
    before = Snapshot(training, training.start)
    dict(engine.ensure([dataclasses.replace(training, weights=before)]))
    return weights(engine, before, training)


@pytest.mark.parametrize("rewind", [
    "init", "late", "lr", "finetune", "continue", "reinit", "reinit_sign", "constant_sign", "frozen"
])  # fmt: skip
def test_the_start_of_each_rewind(engine: Engine, tiny: Composer, rewind: str) -> None:
    """At level 2, on weights that are read from the store, entry by entry."""
    timed = rewind in ("late", "lr", "finetune")
    spec = tiny(f"rewind={rewind}", "pruning.levels=2", *(["rewind.iteration=5"] if timed else []))
    dense, first, ticket = trainings(spec)
    outcomes = made(engine, spec)
    start, initial = started(engine, ticket), weights(engine, dense.weights, dense)
    mask = mask_of(engine, ticket)
    assert outcomes[ticket].curve[0].iteration == (5 if timed else 0)
    at_five = weights(engine, Snapshot(dense, 5), dense) if rewind == "late" else {}
    ended = load(engine.store.read(first, "final.safetensors"))
    for name, kept in mask.items():
        values, began = start[name][kept], initial[name][kept]
        if rewind in ("init", "continue", "frozen"):
            assert torch.equal(values, began)
        if rewind == "late":
            assert torch.equal(values, at_five[name][kept])
            assert not torch.equal(values, began)
        if rewind in ("lr", "finetune"):
            assert torch.equal(values, ended[name][kept])
        if rewind in ("reinit", "reinit_sign"):
            assert not torch.equal(values.abs(), began.abs())
        if rewind in ("reinit_sign", "constant_sign"):
            assert torch.equal(values.sign(), began.sign())
        if rewind == "constant_sign":
            size = math.sqrt(float((initial[name].double() ** 2).mean()))
            assert values.abs().tolist() == pytest.approx([size] * len(values))
        gone = initial[name][~kept] if rewind == "frozen" else torch.zeros(int((~kept).sum()))
        assert torch.equal(start[name][~kept], gone)
    if rewind == "frozen":
        final = load(engine.store.read(ticket, "final.safetensors"))
        assert all(torch.equal(final[n][~k], initial[n][~k]) for n, k in mask.items())


def test_continued_training_keeps_its_weights_under_the_mask_and_reports_reset_ones(
    engine: Engine, tiny: Composer
) -> None:
    spec = tiny("rewind=continue", "pruning.levels=2")
    dense, first, second = trainings(spec)
    made(engine, spec)
    assert engine.trained == 4  # dense, the first ticket, the continued network, the second ticket
    assert isinstance(second.mask, Pruned)
    assert isinstance(second.mask.weights, Final)
    continued = second.mask.weights.of
    ended = load(engine.store.read(dense, "final.safetensors"))
    mask = mask_of(engine, first)
    start = started(engine, continued)
    assert all(torch.equal(start[name], ended[name] * kept) for name, kept in mask.items())


@pytest.mark.parametrize("pruning", ["snip", "grasp", "synflow", "magnitude_at_init"])
def test_masks_at_initialisation_need_no_training_and_have_exact_counts(
    engine: Engine, tiny: Composer, pruning: str
) -> None:
    spec = tiny(f"pruning={pruning}", "pruning.levels=3", "pruning.scope=global")
    *_, ticket = trainings(spec)
    dict(engine.ensure([ticket]))
    assert engine.trained == 1
    mask = mask_of(engine, ticket)
    assert sum(int(kept.sum()) for kept in mask.values()) == 238  # 464, 371, 297, 238
    again_made = mask_of(engine, ticket)
    assert all(torch.equal(mask[name], again_made[name]) for name in mask)


def test_synflow_in_rounds_scores_the_survivors_again(engine: Engine, tiny: Composer) -> None:
    """And so, unlike in one round, never cuts a network through (Tanaka et al. 2020, section 6)."""
    rounds = {}
    for number in (1, 100):
        spec = tiny(
            "pruning=synflow", "pruning.scope=global", "pruning.final_density=0.04",
            "pruning.levels=1", f"pruning.rounds={number}", "model.widths=[40,30,20]",
        )  # fmt: skip
        ticket = trainings(spec)[1]
        rounds[number] = mask_of(engine, ticket)
    totals = [sum(int(kept.sum()) for kept in mask.values()) for mask in rounds.values()]
    assert totals == [round(0.04 * (64 * 40 + 40 * 30 + 30 * 20 + 20 * 10))] * 2
    assert all(kept.any() for kept in rounds[100].values())
    assert any(not torch.equal(rounds[1][name], rounds[100][name]) for name in rounds[1])


def test_criteria_that_draw_have_their_own_stream(engine: Engine, tiny: Composer) -> None:
    spec = tiny(*NORM_NET, "pruning=snip")
    ticket = trainings(spec)[1]
    torch.manual_seed(1)
    one = mask_of(engine, ticket)
    torch.manual_seed(2)
    other = mask_of(engine, ticket)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_shuffled_masks_have_the_tickets_counts(engine: Engine, tiny: Composer) -> None:
    ticket = trainings(tiny("pruning.levels=1"))[1]
    shuffled = trainings(tiny("pruning.levels=1", "rewind=shuffled"))[1]
    outcomes = dict(engine.ensure([ticket, shuffled]))
    assert outcomes[ticket].weights == outcomes[shuffled].weights
    one, other = (mask_of(engine, t)["1.weight"] for t in (ticket, shuffled))
    assert not torch.equal(one, other)


def test_a_resnet_prunes_its_convolutions_and_counts_the_rest(
    engine: Engine, composed: Composer
) -> None:
    spec = composed(
        "model=resnet18", "model.depth=8", "training.iterations=2",
        "pruning.scope=global", "pruning.output_rate=0", "pruning.levels=1",
    )  # fmt: skip
    outcome = made(engine, spec)[trainings(spec)[1]]
    kept, total = (sum(n) for n in zip(*outcome.weights.values(), strict=True))
    convolutions = total - 2_560 - 640
    assert total - kept == round(convolutions / 5)
    spared = [name for name in outcome.weights if "shortcut" in name]
    assert len(spared) == 2
    assert all(outcome.weights[name][0] == outcome.weights[name][1] for name in spared)


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
