"""Identity: what names a training, and what does not."""

import dataclasses
import functools
import os
import subprocess
import sys
from typing import Any

import pytest

from lth.engine.scheduler import missing
from lth.experiment import lottery
from lth.experiment.node import Node
from lth.experiment.nodes import Dense, Final, Measurement, Snapshot, describe, with_ancestors
from lth.experiment.settings import NOT_IDENTITY, Settling, Spec, Update
from lth.experiment.targets import Target, canonical
from tests.conftest import ROOT, Composer


def digests(spec: Spec) -> list[str]:
    return [training.digest for _, training in lottery.levels(spec)]


def changed(spec: Any, path: str, value: object) -> Any:  # noqa: ANN401 - any dataclass of the Spec
    """Return `spec` with another value at a dotted path."""
    name, _, rest = path.partition(".")
    inside = getattr(spec, name)
    return dataclasses.replace(spec, **{name: changed(inside, rest, value) if rest else value})


def get(spec: Any, path: str) -> Any:  # noqa: ANN401
    return functools.reduce(getattr, path.split("."), spec)


CHOICES: dict[object, object] = {
    "cpu": "cuda", "auto": "cpu", "stratified": "random", "standardize": "unit", "end": "init",
    "init": "lr", "rewind": "reinit", "zero": "frozen", "iterative": "one_shot",
    "layerwise": "global", "improvement": "every", "float32": "tf32", "constant": "cosine",
    "reinit": "rewind", "random": "first", "level": "lineage",
}  # fmt: skip
BY_PATH = {
    "pruning.rates": (30.0, 40.0), "pruning.final_density": 0.5, "backend": "eager",
    "training.last_batch": "keep", "dataset.train": 50, "pruning.settled": Settling(5, 0.1, 2),
    "pruning.update": Update("rigl"), "pruning.granularity": "unit",
    "tracker": Target("mine.Tracker", {}, None), "probe": Target("mine.Probe", {}, None),
}  # fmt: skip


def other(path: str, value: Any) -> Any:  # noqa: ANN401
    if path in BY_PATH:
        return BY_PATH[path]
    if path.endswith(".code"):
        return "version:2"
    match value:
        case None:
            return 50.0
        case bool():
            return not value
        case dict():
            return {**value, "another": 1}
        case ():
            return (7,)
        case tuple():
            return (*value[:-1], value[-1] + 1)
        case float() if value <= 1:
            return value / 2
        case int() | float():
            return value + 1
    return CHOICES.get(value, f"{value}.changed")


def paths(spec: Any, prefix: str = "") -> list[str]:  # noqa: ANN401
    found = []
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        inner = dataclasses.is_dataclass(value)
        found += paths(value, f"{prefix}{field.name}.") if inner else [prefix + field.name]
    return found


ALL = [
    "seed", "split_seed", "device", "threads", "backend", "store", "checkpoint_seconds", "tracker",
    "probe", "smoke", "remake_weights",
] + [
    f"{group}.{name}"
    for group, names in {
        "model": "name options code",
        "optimizer": "name options code schedule.kind schedule.milestones schedule.gamma "
                     "schedule.warmup",
        "rewind": "kind iteration survivors pruned shuffle draw budget",
        "dataset": "loader.name loader.options loader.code root shape classes examples validation "
                   "test split preprocessing flip crop train subset",
        "training": "iterations batch_size evaluate_every evaluate_test precision last_batch",
        "pruning": "criterion.name criterion.options criterion.code at mode scope rounds levels "
                   "rate rates final_density conv_rate linear_rate output_rate shortcut_rate "
                   "settled update granularity",
    }.items()
    for name in names.split()
]  # fmt: skip


def test_the_list_of_fields_is_complete(composed: Composer) -> None:
    assert sorted([*ALL, "source"]) == sorted(paths(composed()))  # tests/test_lottery.py
    assert set(NOT_IDENTITY) <= {*ALL, "source.dataset.root"}


@pytest.mark.parametrize("path", ALL)
def test_a_field_is_in_the_digests_unless_it_is_listed(composed: Composer, path: str) -> None:
    arm = "late" if path == "rewind.iteration" else "reinit"
    steps = ["optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[3]"]
    few = ["dataset.train=80"]
    used = {"optimizer.schedule.gamma": steps, "dataset.subset": few}.get(
        path, []
    )  # else no effect
    spec = composed(f"rewind={arm}", "pruning.levels=2", *used)
    if path.endswith(".code"):  # built-ins have none
        spec = changed(spec, path.replace(".code", ".name"), "mine.own")
    after = digests(changed(spec, path, other(path, get(spec, path))))
    before = digests(spec)
    if path in NOT_IDENTITY:
        assert after[: len(before)] == before
    else:
        assert after[-1] != before[-1]


def test_spelling_is_not_identity(composed: Composer) -> None:
    one = digests(composed("pruning.rate=20", "seed=3", "optimizer.lr=0.1"))
    assert one == digests(composed("optimizer.lr=1e-1", "seed=3", "pruning.rate=20.0"))
    assert one == digests(composed("optimizer.lr=0.1", "seed=3", "pruning.output_rate=10"))
    named = composed("optimizer.lr=0.1", "seed=3", "pruning.criterion=lth.pruning.magnitude")
    assert one == digests(named)


def test_numbers_are_canonical() -> None:
    assert canonical({"b": 10.0, "a": (1, 0.5)}) == {"b": 10, "a": [1, 0.5]}


def test_another_process_finds_the_same_digests(composed: Composer) -> None:
    code = (
        "from hydra import compose, initialize_config_dir\n"
        "from lth.experiment import lottery\n"
        "from lth.experiment.config import from_config\n"
        f"with initialize_config_dir({str(ROOT / 'conf')!r}, version_base='1.3'):\n"
        "    config = compose('config', overrides=['pruning.levels=3'])\n"
        "print(*(t.digest for _, t in lottery.levels(from_config(config))))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert found == {" ".join(digests(composed("pruning.levels=3")))}


def test_no_two_seeds_share_a_training(composed: Composer) -> None:
    names = [d for seed in range(20) for d in digests(composed(f"seed={seed}", "pruning.levels=5"))]
    assert len(set(names)) == 20 * 6


def test_describing_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from hydra import compose, initialize_config_dir\n"
        "from lth.experiment import lottery\n"
        "from lth.experiment.config import from_config\n"
        f"with initialize_config_dir({str(ROOT / 'conf')!r}, version_base='1.3'):\n"
        "    config = compose('config', overrides=['pruning.levels=60'])\n"
        "assert len(list(lottery.levels(from_config(config)))) == 61\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_cost_is_linear_in_the_levels(composed: Composer) -> None:
    *_, (_, last) = lottery.levels(composed("pruning.levels=200"))
    assert last == last.__class__(last.recipe, last.seed, last.weights, last.mask)
    assert repr(last) == f"Training({last.digest[:12]})"
    assert len(describe(last)) == 1 + 200 + 200 + 2  # itself, masks and what they score, ends
    assert len(missing([last], lambda _: False)) == len(with_ancestors([last])) == 201


def test_only_what_is_missing_is_made_parents_first(composed: Composer) -> None:
    tickets = dict(lottery.levels(composed("pruning.levels=3")))
    arms = dict(lottery.levels(composed("pruning.levels=3", "rewind=reinit")))
    assert missing([arms[3]], lambda _: False) == [tickets[0], tickets[1], tickets[2], arms[3]]
    assert missing([arms[3]], {tickets[1]}.__contains__) == [tickets[2], arms[3]]
    assert missing([tickets[3]], {tickets[3]}.__contains__) == []


def test_a_ticket_needs_its_parent_and_a_snapshot_its_training(composed: Composer) -> None:
    tickets = dict(lottery.levels(composed("pruning.levels=2")))
    assert tickets[2].parents() == {tickets[1]}
    late = Snapshot(tickets[0], 10)
    rewound = dataclasses.replace(tickets[1], weights=late, start=10)
    assert rewound.parents() == {late, tickets[0]}
    assert missing([rewound], lambda _: False) == [tickets[0], late, rewound]
    tuned = dataclasses.replace(tickets[2], weights=Final(tickets[1]))
    assert tuned.parents() == {tickets[1]}
    added = Snapshot(tickets[2], 10)
    assert missing([added], {tickets[0], tickets[2]}.__contains__) == [tickets[1], added]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Several(Measurement):
    """Measures some nodes, which stand in a list."""

    tag = "several"
    table = "several"
    columns = ("value",)
    of: tuple[Node, ...]

    def content(self) -> dict[str, Any]:
        return {"of": self.of}


def test_nodes_in_lists_stand_by_their_digests_and_are_needed(composed: Composer) -> None:
    dense, ticket = (t for _, t in lottery.levels(composed("pruning.levels=1")))
    measured = Several((ticket, Final(dense)))
    assert measured.identity()["of"] == [ticket.digest, Final(dense).digest]
    assert measured.parents() == {ticket, dense}
    of_it = Several((measured,))
    assert of_it.parents() == {measured}
    assert missing([of_it], {ticket, dense}.__contains__) == [measured, of_it]


@pytest.mark.parametrize("key", ["node", "format", "code"])
def test_content_cannot_replace_the_tag(key: str) -> None:
    class Colliding(Dense):
        def content(self) -> dict[str, Any]:
            return {key: "training"}

    with pytest.raises(TypeError, match=f"must not use.*{key}"):
        Colliding()
