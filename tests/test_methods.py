"""Laws that hold for every method: a run ends with the same bytes after interruptions, alone and in
a pack, shares what it can, is planned as it is then trained, and passes the audit."""

import contextlib
import dataclasses
from pathlib import Path

import pytest

from lth.audit.audit import Audit
from lth.engine.engine import Engine
from lth.engine.monitor import Watch
from lth.engine.plan import plan
from lth.errors import Interrupted
from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.runs.status import read_status
from lth.store.store import Store
from tests.conftest import Composer, engine_on, run_spec
from tests.engines import again, elsewhere, stopping_every

METHODS: dict[str, tuple[str, ...]] = {
    "tickets": (),
    "late rewinding": ("rewind=late", "rewind.iteration=5"),
    "fine-tuning": ("rewind=finetune", "rewind.iteration=5"),
    "early-bird tickets": (
        "pruning=early_bird", "pruning.settled.every=2", "pruning.settled.window=2",
        "pruning.settled.distance=0.5",
    ),
    "longer control": ("rewind=reinit_long",),
    "transfer": ("source=recipe", "source.training.iterations=7", "source.optimizer.lr=0.01"),
    "transfer of weights": (
        "source=recipe", "source.dataset.preprocessing=unit", "source.weights=source",
        "rewind=late", "rewind.iteration=5",
    ),
    "a mask of few examples": ("source=recipe", "source.dataset.train=40"),
    "SET": ("pruning=set", "pruning.update.every=3"),
    "RigL": ("pruning=rigl", "pruning.update.every=3", "pruning.update.until=1"),
    "gradual pruning": ("pruning=gradual", "pruning.update.every=2", "pruning.scope=global"),
    "tickets of RigL": ("pruning=rigl", "pruning.update.every=3", "pruning.update.ticket=true"),
    "edge-popup": ("pruning=edge_popup", "rewind=constant_sign"),
    "supermask": ("pruning=supermask", "pruning.levels=1"),
    "neurons": ("pruning=units", "pruning.rate=30"),
    "reinits of neurons": ("pruning=units", "pruning.rate=30", "rewind=reinit"),
    "transferred reinits": ("source=recipe", "source.training.batch_size=30", "rewind=reinit"),
}  # fmt: skip

MOVES = {"SET", "RigL", "gradual pruning", "tickets of RigL", "edge-popup", "supermask"}
"""Methods whose networks are trained alone."""

method = pytest.mark.parametrize("words", METHODS.values(), ids=METHODS)


def trainings(composed: Composer, *words: str) -> list[Training]:
    return [node for _, node in lottery.levels(composed("pruning.levels=2", *words))]


@method
def test_it_ends_with_the_same_bytes_however_often_it_is_interrupted(
    engine: Engine, tiny: Composer, words: tuple[str, ...]
) -> None:
    requested = trainings(tiny, *words)
    dict(engine.ensure(requested))
    other, ended = elsewhere(engine), False
    while not ended:
        with contextlib.suppress(Interrupted):
            dict(again(other, Watch(stopping=stopping_every(7))).ensure(requested))
            ended = True
    for training in requested:
        for file in ("final.safetensors", "mask.safetensors", "curve.csv"):
            assert engine.store.read(training, file) == other.store.read(training, file)


@method
def test_a_run_trains_what_was_planned_and_the_audit_finds_nothing(
    tiny: Composer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    spec = tiny("pruning.levels=2", *words, f"store={tmp_path}/store")
    made = plan({"a run": lambda: spec}, Store(tmp_path / "store"))
    run_spec(spec, tmp_path / "run")
    assert read_status(tmp_path / "run")["trained"] == len(made.trainings)
    assert [broken.what for broken in Audit().of_run(tmp_path / "run")] == []


STAYS = {name: words for name, words in METHODS.items() if name not in MOVES}


@pytest.mark.parametrize("words", STAYS.values(), ids=STAYS)
def test_a_pack_makes_the_same_networks(
    tiny: Composer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    specs = [dataclasses.replace(tiny("pruning.levels=1", *words), seed=seed) for seed in (0, 1)]
    requested = [node for spec in specs for _, node in lottery.levels(spec)]
    alone, packed = engine_on(tmp_path / "alone"), engine_on(tmp_path / "packed", pack=2)
    ours, theirs = dict(alone.ensure(requested)), dict(packed.ensure(requested))
    for training in requested:
        losses = [[point.val_loss for point in of[training].curve] for of in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
