"""The audit repeats the first steps of trainings by autograd: faults that final weights hide."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from lth.audit.audit import Audit
from lth.experiment import lottery
from lth.training import sparse
from tests.conftest import OWN_MODEL, Composer, engine_on, run_spec
from tests.test_verify import as_json, cell, forge

SHORT = (
    "training.iterations=12", "training.evaluate_every=5", "training.batch_size=20",
    "pruning.levels=2", "pruning.rate=70", "optimizer.lr=0.01",
)  # fmt: skip


class Frozen(nn.Sequential):
    """A network that does not train its first layer."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        size = torch.Size(shape).numel()
        super().__init__(nn.Flatten(), nn.Linear(size, 12), nn.ReLU(), nn.Linear(12, classes))
        self[1].requires_grad_(False)


class Thrice(nn.Sequential):
    """A network that uses one layer three times."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        size = torch.Size(shape).numel()
        inside, outside = nn.Linear(size, size), nn.Linear(size, classes)
        between = [inside, nn.ReLU()]
        super().__init__(
            nn.Flatten(), *between, *between[:1], nn.ReLU(), inside, nn.ReLU(), outside
        )


def own(model: type[nn.Module]) -> tuple[str, ...]:
    path = f"model._target_=tests.test_verify_steps.{model.__name__}"
    return (*SHORT, path, *OWN_MODEL)


@pytest.fixture
def audited(composed: Composer, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return rule -> the last violation, after a run with these overrides."""

    def run_and_audit(*overrides: str) -> dict[str, str]:
        spec = dataclasses.replace(composed(*overrides), store=str(tmp_path / "store"))
        run_spec(spec, tmp_path / "run")
        return found(tmp_path / "run")

    return run_and_audit


def found(run: Path, quick: bool = False) -> dict[str, str]:
    return {broken.rule: broken.what for broken in Audit(quick=quick).of_run(run)}


STEPS, UNMOVED = "first steps are those of autograd", "frozen parameters do not move"


@pytest.mark.parametrize(("model", "rules"), [
    (Frozen, {STEPS, UNMOVED}), (Thrice, {STEPS}),
])  # fmt: skip
def test_steps_of_another_network_are_found(
    audited: Callable[..., dict[str, str]],
    model: type[nn.Module],
    rules: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparse, "is_plain", lambda _: True)
    assert rules <= audited(*own(model)).keys()


@pytest.mark.parametrize("model", [Frozen, Thrice])
def test_nothing_is_found_in_such_networks_trained_by_autograd(
    audited: Callable[..., dict[str, str]], model: type[nn.Module]
) -> None:
    assert audited(*own(model)) == {}


@pytest.mark.parametrize("more", [
    ("rewind=late", "rewind.iteration=4"), ("rewind=finetune", "rewind.iteration=10"),
    ("model.dropout=0.5",),
])  # fmt: skip
def test_nothing_is_found_in_other_trainings(
    audited: Callable[..., dict[str, str]], more: tuple[str, ...]
) -> None:
    assert audited(*SHORT, *more) == {}


def test_steps_of_packed_networks_are_repeated(composed: Composer, tmp_path: Path) -> None:
    specs = [
        dataclasses.replace(composed(*SHORT, f"seed={seed}"), store=str(tmp_path / "store"))
        for seed in (0, 1)
    ]
    engine = engine_on(tmp_path / "store", pack=2)
    list(engine.ensure([training for spec in specs for _, training in lottery.levels(spec)]))
    for number, spec in enumerate(specs):
        last = [training for _, training in lottery.levels(spec)][-1]
        run_spec(spec, tmp_path / f"{number}")
        assert found(tmp_path / f"{number}") == {}
        forge_train_loss(engine.store.path(last))
        assert STEPS in found(tmp_path / f"{number}")
        assert STEPS not in found(tmp_path / f"{number}", quick=True)
    assert not list((tmp_path / "store/checkpoints").glob("*"))


def forge_train_loss(training: Path) -> None:
    """Change the training loss at the second evaluation, which nothing else shows."""
    forge(training, "curve.csv", lambda c: cell("train_loss", 1, "2.5")(c.decode()).encode())


def test_a_device_that_is_not_here_is_noted(
    composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = dataclasses.replace(composed(*SHORT), store=str(tmp_path / "store"))
    run_spec(spec, tmp_path / "run")
    last = [training for _, training in lottery.levels(spec)][-1]
    folder = engine_on(tmp_path / "store").store.path(last)
    forge(folder, "provenance.json", as_json(device="cuda"))
    audit = Audit()
    assert not list(audit.of_run(tmp_path / "run"))
    assert any("no steps of trainings on cuda were repeated" in note for note in audit.notes)


def test_dropped_weights_are_skipped(composed: Composer, tmp_path: Path) -> None:
    """A late start needs a snapshot; without it nothing can be repeated."""
    late = (*SHORT, "rewind=late", "rewind.iteration=4")
    spec = dataclasses.replace(composed(*late), store=str(tmp_path / "store"))
    run_spec(spec, tmp_path / "run")
    store = engine_on(tmp_path / "store").store
    for folder in list(store.folders()):
        store.drop_weights(folder)
    assert found(tmp_path / "run") == {}
