"""Masks that move, and masks whose scores are trained, against plain loops in torch."""

import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lth.audit.training_rules import (
    Case,
    counts_of_moving_masks_are_exact,
    learnt_masks_keep_weights,
    masks_are_what_the_rule_selects,
)
from lth.engine.engine import Engine
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Final, Training
from lth.training.data import Batch, BatchOrder
from lth.training.loop import train
from lth.training.moving import Moving
from lth.training.networks import Task, build_network
from lth.training.scored import Scored
from lth.training.selection import Pool, erdos_renyi, left
from tests.conftest import Composer, engine_on
from tests.test_verify import forge

STEPS, RATE, EVERY, UNTIL = 60, 1e-2, 10, 0.75
WORDS = (
    f"training.iterations={STEPS}", "training.evaluate_every=1", f"optimizer.lr={RATE}",
    "pruning.rates=[90]",
)  # fmt: skip
Loop = tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]


def reported(composed: Composer, *words: str) -> Training:
    """Return the training of level 1."""
    return dict(lottery.levels(composed(*WORDS, *words)))[1]


def task_of(engine: Engine, training: Training) -> Task:
    return engine.maker._task(training, [], None)


def loop_of(task: Task) -> Loop:
    """Return the starting weights, the masks of the layers, and the batches of a training."""
    train, budget = task.data.train, task.training.recipe.training
    order = BatchOrder(task.data_seed, len(train), budget.batch_size, torch.device("cpu"))
    parts = [Batch(train, order.batch(step)).examples() for step in range(STEPS)]
    batches = [(inputs.flatten(1), labels) for inputs, labels in parts]
    return list(task.weights.values()), [mask.float() for mask in task.mask.values()], batches


def outputs(weights: list[Tensor], inputs: Tensor) -> Tensor:
    for layer in range(0, len(weights), 2):
        inputs = linear(inputs, weights[layer], weights[layer + 1])
        inputs = inputs.relu() if layer < len(weights) - 2 else inputs
    return inputs


def rigl(weights: list[Tensor], masks: list[Tensor], batches: list[Any]) -> list[float]:
    """Train an MLP by RigL with Adam. Return the loss of each step."""
    for layer, mask in enumerate(masks):
        weights[2 * layer] *= mask
    optimizer = torch.optim.Adam([w.requires_grad_() for w in weights], lr=RATE)
    losses = []
    for step, (inputs, labels) in enumerate(batches):
        if step and step % EVERY == 0 and step <= UNTIL * STEPS:
            share = 0.15 * (1 + math.cos(math.pi * step / (UNTIL * STEPS)))
            slopes = torch.autograd.grad(cross_entropy(outputs(weights, inputs), labels), weights)
            for layer, mask in enumerate(masks):
                weight, before = weights[2 * layer].detach(), mask.clone()
                moved = int(share * int(mask.sum()))
                alive = torch.where(mask.bool(), weight.abs(), torch.inf).flatten()
                mask.view(-1)[alive.argsort(stable=True)[:moved]] = 0
                dead = torch.where(mask.bool(), -1.0, slopes[2 * layer].abs()).flatten()
                mask.view(-1)[dead.argsort(stable=True)[-moved:]] = 1
                weight *= mask
                for name in ("exp_avg", "exp_avg_sq"):
                    optimizer.state[weights[2 * layer]][name][mask != before] = 0
        loss = cross_entropy(outputs(weights, inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        for layer, mask in enumerate(masks):
            weights[2 * layer].grad.mul_(mask)  # type: ignore[union-attr]
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("only_eager", "tolerance"), [(True, 1e-5), (False, 1e-3)])
def test_the_losses_of_rigl_are_those_of_a_plain_loop(
    engine: Engine, composed: Composer, only_eager: bool, tolerance: float
) -> None:
    training = reported(composed, "pruning=rigl", f"pruning.update.every={EVERY}")
    task = task_of(engine, training)
    expected = rigl(*loop_of(task))
    (progress,) = train([task_of(engine, training)], only_eager=only_eager)
    assert isinstance(progress.network, Moving)
    assert progress.network.now.backend == ("eager" if only_eager else "sparse")
    losses = [point.train_loss for point in progress.curve[1:]]
    assert losses == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("kind", ["set", "rigl", "gradual"])
def test_the_number_of_weights_is_exact_at_every_update(
    engine: Engine, composed: Composer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = reported(composed, f"pruning={kind}", f"pruning.update.every={EVERY}")
    seen, masks, move = [], [], Moving.move

    def watched(network: Moving, iteration: int, batch: Batch) -> None:
        move(network, iteration, batch)
        seen.append(iteration)
        masks.append(network.mask)

    monkeypatch.setattr(Moving, "move", watched)
    task = task_of(engine, training)
    train([task])
    assert seen == [*range(EVERY, int(UNTIL * STEPS) + 1, EVERY)]
    for iteration, mask in zip(seen, masks, strict=True):
        for name, kept in mask.items():
            before = int(task.mask[name].sum())
            if kind == "gradual":
                end, time = task.counts[name,], 1 - iteration / seen[-1]
                before = end + round((before - end) * time**3)
            assert int(kept.sum()) == before
    changed = [any((a[n] != b[n]).any() for n in a) for a, b in pairwise(masks)]
    assert all(changed)


def test_gradual_pruning_is_evaluated_once_all_weights_have_gone(
    engine: Engine, composed: Composer
) -> None:
    training = reported(
        composed, "pruning=gradual", "pruning.update.every=9", "training.evaluate_every=10"
    )
    found = dict(engine.ensure([training]))[training]
    assert [point.iteration for point in found.curve] == [46, 50, 60]
    kept, of = map(sum, zip(*found.weights.values(), strict=True))
    assert kept / of == pytest.approx(0.109, abs=0.001)  # the output layer keeps 55 %


def through(scores: list[Tensor], kept: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Return weights whose gradient passes to the scores as if every weight survived."""
    found = list(weights)
    for layer, (score, mask) in enumerate(zip(scores, kept, strict=True)):
        found[2 * layer] = weights[2 * layer] * (mask + score - score.detach())
    return found


@pytest.mark.parametrize("kind", ["edge_popup", "supermask"])
def test_scores_are_trained_straight_through_the_mask(
    engine: Engine, composed: Composer, kind: str
) -> None:
    task = task_of(engine, reported(composed, f"pruning={kind}"))
    weights = list(task.weights.values())
    network = build_network(task)
    assert isinstance(network, Scored)
    saved = network.saved()
    scores = [value.requires_grad_() for name, value in saved.items() if name.startswith("score")]
    optimizer = torch.optim.Adam(scores, lr=RATE)
    network.optimizer.param_groups[0]["lr"] = RATE
    batch = Batch(task.data.train, torch.arange(60))
    for number in range(5):
        torch.manual_seed(number)
        chances = [score.sigmoid() for score in scores]
        drawn = [torch.bernoulli(chance.detach()) for chance in chances]
        if kind == "edge_popup":
            chances = scores
            counts = task.counts.values()
            drawn = [highest(s.detach(), n) for s, n in zip(scores, counts, strict=True)]
        inputs, labels = batch.examples()
        loss = cross_entropy(outputs(through(chances, drawn, weights), inputs.flatten(1)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.manual_seed(number)
        assert float(network.step(batch)) == pytest.approx(loss.item(), rel=1e-5)


def highest(scores: Tensor, count: int) -> Tensor:
    mask = torch.zeros(scores.numel())
    mask[scores.flatten().argsort(descending=True)[:count]] = 1
    return mask.view_as(scores)


@pytest.mark.parametrize("kind", ["set", "rigl", "gradual"])
def test_moments_of_convolutions_stay_with_their_weights(
    engine: Engine, composed: Composer, kind: str
) -> None:
    """Fused optimisers take weights and moments in the order of memory, which is channels last."""
    small = ("model=conv2", "model.channels=[4]", "model.widths=[8]", "optimizer.fused=true")
    training = reported(composed, *small, f"pruning={kind}", f"pruning.update.every={EVERY}")
    (progress,) = train([task_of(engine, training)])
    network, state = progress.network, progress.network.state()
    assert isinstance(network, Moving)
    for name, kept in network.mask.items():
        assert not state[name][~kept].any()
    for parameter, of in network.optimizer.state.items():
        assert of["exp_avg"].stride() == parameter.stride()


def test_the_audit_finds_a_ticket_under_another_mask(tmp_path: Path, composed: Composer) -> None:
    engine = engine_on(tmp_path / "store")
    ticket = reported(composed, "pruning=edge_popup", "pruning.update.ticket=true")
    dict(engine.ensure([ticket]))
    build = engine.maker.build
    assert list(masks_are_what_the_rule_selects(Case(ticket, build.store, build, None))) == []

    def swap(content: bytes) -> bytes:
        tensors = load(content)
        tensors["1.weight"].view(-1)[:] = tensors["1.weight"].view(-1).flip(0)
        return save(tensors)

    forge(build.store.path(ticket), "mask.safetensors", swap)
    build = engine_on(tmp_path / "store").maker.build
    assert list(masks_are_what_the_rule_selects(Case(ticket, build.store, build, None)))


@pytest.mark.parametrize(("words", "reason"), [
    (("pruning=rigl", "pruning.update.every=50"), "the mask would never move"),
    (("pruning=rigl", "pruning.mode=iterative"), "each level starts from the initial weights"),
    (("pruning=supermask", "pruning.rates=[20,30]"), "needs pruning.levels=1"),
    (("pruning=gradual", "pruning.criterion=random"), "needs pruning.criterion=magnitude"),
    (("pruning=edge_popup", "pruning.criterion=random"), "needs pruning.criterion=magnitude"),
    (("pruning=rigl", "rewind=late", "rewind.iteration=3"), "pruning.update.ticket=true to train"),
    (("pruning=rigl", "probe=connectivity", "pruning.update.every=5"), "would not have its mask"),
    (("pruning=gradual", "pruning.update.ticket=true", "source=recipe",
      "source.training.iterations=30", "pruning.update.every=40"), "source.training.iterations=30"),
    (("rewind=reinit_long", "source=recipe"), "cannot be used with a source"),
    (("pruning=units", "rewind=frozen"), "frozen weights act like others"),
    (("pruning=units", "pruning.scope=global"), "needs pruning.scope=layerwise"),
    (("source=recipe", "source.training.iterations=9", "optimizer.schedule.kind=multistep",
      "optimizer.schedule.milestones=[40]"), "source.optimizer.schedule must end within"),
])  # fmt: skip
def test_combinations_without_a_meaning_are_refused(
    composed: Composer, words: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(LotteryError, match=re.escape(reason)):
        reported(composed, *words)


def test_a_ticket_has_the_last_mask_and_the_initial_weights(
    tmp_path: Path, composed: Composer
) -> None:
    engine = engine_on(tmp_path / "store")
    words = ("pruning=rigl", f"pruning.update.every={EVERY}")
    found, ticket = (
        reported(composed, *words, f"pruning.update.ticket={flag}") for flag in ("false", "true")
    )
    dict(engine.ensure([ticket]))
    build = engine.maker.build
    stored, last = build.stored_mask(ticket), build.stored_mask(found)
    assert all(torch.equal(stored[name], kept) for name, kept in last.items())
    assert ticket.weights == found.weights
    assert ticket.parents() >= {found}


@pytest.mark.parametrize("rewind", ["lr", "finetune"])
def test_a_ticket_that_goes_on_has_the_final_weights_of_its_mask(
    composed: Composer, rewind: str
) -> None:
    words = ("pruning=gradual", f"pruning.update.every={EVERY}")
    found = reported(composed, *words)
    rewinding = (f"rewind={rewind}", "rewind.iteration=3", "pruning.update.ticket=true")
    assert reported(composed, *words, *rewinding).weights == Final(found)


@pytest.mark.parametrize(("kind", "deciding"), [
    ("set", {"every", "fraction", "until"}), ("rigl", {"every", "fraction", "until"}),
    ("gradual", {"every", "until"}), ("edge_popup", {"lr"}), ("supermask", {"lr"}),
])  # fmt: skip
def test_what_a_method_uses_is_in_its_digest(
    composed: Composer, kind: str, deciding: set[str]
) -> None:
    other = {"every": 7, "fraction": 0.2, "until": 0.5, "lr": 0.3}
    words = (f"pruning={kind}", "training.iterations=200")
    usual = reported(composed, *words).digest
    changing = {
        name for name, value in other.items()
        if reported(composed, *words, f"++pruning.update.{name}={value}").digest != usual
    }  # fmt: skip
    assert changing == deciding


@pytest.mark.parametrize(("kind", "rule", "file"), [
    ("rigl", counts_of_moving_masks_are_exact, "mask.safetensors"),
    ("gradual", counts_of_moving_masks_are_exact, "mask.safetensors"),
    ("edge_popup", counts_of_moving_masks_are_exact, "mask.safetensors"),
    ("edge_popup", learnt_masks_keep_weights, "final.safetensors"),
    ("supermask", learnt_masks_keep_weights, "final.safetensors"),
])  # fmt: skip
def test_the_audit_finds_a_changed_entry(
    tmp_path: Path, composed: Composer, kind: str, rule: Callable[[Case], Iterator[str]], file: str
) -> None:
    training = reported(composed, f"pruning={kind}", f"++pruning.update.every={EVERY}")
    engine = engine_on(tmp_path / "store")
    dict(engine.ensure([training]))
    build = engine.maker.build
    case = Case(training, build.store, build, None)
    assert list(rule(case)) == []

    def change(content: bytes) -> bytes:
        tensors = load(content)
        tensors["1.weight"].view(-1)[0] += 1
        return save(tensors)

    forge(build.store.path(training), file, change)
    build = engine_on(tmp_path / "store").maker.build
    assert len(list(rule(Case(training, build.store, build, None)))) == 1


SHAPES = {"conv": (8, 3, 3, 3), "hidden": (100, 400), "output": (10, 100)}


@pytest.mark.parametrize("scope", ["er", "erk"])
@pytest.mark.parametrize("rate", [20, 80, 95, 99])
def test_densities_are_in_proportion_to_erdos_renyi(scope: str, rate: float) -> None:
    before: dict[Pool, int] = {(name,): math.prod(shape) for name, shape in SHAPES.items()}
    counts = left(before, dict.fromkeys(before, rate), 1, scope, SHAPES)
    total = sum(before.values())
    assert sum(counts.values()) == total - round(total * rate / 100)
    ratios = set()
    for (name,), count in counts.items():
        assert count <= before[name,]
        dims = SHAPES[name] if scope == "erk" else SHAPES[name][:2]
        if count < before[name,]:
            ratios.add(count / before[name,] * math.prod(dims) / sum(dims))
    assert max(ratios) == pytest.approx(min(ratios), rel=0.02)


def test_a_layer_that_would_need_more_than_it_has_stays_whole() -> None:
    counts = erdos_renyi({("a",): 3, ("b",): 100}, {("a",): 50, ("b",): 50}, 21)
    assert counts == {("a",): 3, ("b",): 18}
