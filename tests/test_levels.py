"""Masks and starting weights of each level, on the real digits, with networks of 464 weights."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load

from lth.engine.engine import Engine
from lth.experiment.nodes import Final, Fresh, Pruned, Snapshot, Training
from lth.experiment.results import density
from lth.models import prunable
from tests.conftest import NORM_NET, Composer
from tests.engines import made, mask_of, trainings, weights


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


def test_a_layer_may_lose_its_last_weight(engine: Engine, tiny: Composer) -> None:
    spec = tiny("model.widths=[3,2]", "pruning.rate=60", "pruning.levels=3")
    *_, last = made(engine, spec).values()
    assert last.weights["3.weight"][0] == 0
    assert len(last.curve) == 4
    assert all(e.val_loss < 10 for e in last.curve)


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
