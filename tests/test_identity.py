"""Digests survive moved, renamed and extended code, and change with user code."""

import dataclasses
import importlib
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from lth.experiment import lottery
from lth.experiment.builtins import BUILTINS, IDS, Builtin
from lth.experiment.node import Node, digest_of
from lth.experiment.nodes import (
    Constant,
    Dense,
    Final,
    Fresh,
    Measurement,
    Pruned,
    Shuffled,
    Signed,
    Snapshot,
    Training,
    with_ancestors,
)
from lth.experiment.recipe import identity, recipe, rules
from lth.experiment.settings import Budget, Spec
from lth.experiment.targets import Settings, Target, canonical, without_neutral
from tests.conftest import Composer

Compose = Callable[..., Spec]


def digests(spec: Spec) -> list[str]:
    return [node.digest for _, node in lottery.nodes(spec)]


def every_kind(spec: Spec) -> list[Node]:
    """Return a node of each kind, with a seed, a start and a probe of their own."""
    (_, dense), (_, ticket) = itertools.islice(lottery.levels(spec), 2)
    late = Snapshot(dense, 5)
    fresh = Fresh(dense.recipe.network, 1, "reinit/1/0")
    return [
        fresh, Dense(), ticket, Final(ticket), late, Signed(fresh, late), Constant(late),
        ticket.mask, Shuffled(ticket.mask, 1, "shuffle/1/0"),
        dataclasses.replace(ticket, weights=late, start=5, data_order=1, pruned="frozen"),
        *(node for _, node in lottery.measurements(spec, {0: dense, 1: ticket})),
    ]  # fmt: skip


def renamed(node: Node) -> Node:
    """Return an instance of a class of another name with other field names, which has the same tag
    and the same content."""

    class Elsewhere(Node):
        tag: ClassVar[str] = node.tag

        def __init__(self, **fields: object) -> None:
            object.__setattr__(self, "fields", fields)
            self.__post_init__()

        def content(self) -> dict[str, Any]:
            return {name.removeprefix("renamed_"): v for name, v in vars(self)["fields"].items()}

    Elsewhere.__name__ = Elsewhere.__qualname__ = "Renamed"
    return Elsewhere(**{f"renamed_{name}": value for name, value in node.content().items()})


def test_renaming_a_class_or_a_field_changes_no_digest(tiny: Composer) -> None:
    for probe in ("connectivity", "level_connectivity"):
        kinds = every_kind(tiny(f"probe={probe}", "pruning.levels=1"))
        assert {Fresh, Dense, Training, Final, Snapshot, Signed, Constant, Pruned, Shuffled} <= {
            type(node) for node in kinds
        }
        for node in kinds:
            assert renamed(node).digest == node.digest, node


def test_nodes_of_every_kind_and_tag_differ(tiny: Composer) -> None:
    probed = [
        tiny(f"probe={p}", "pruning.levels=1") for p in ("connectivity", "level_connectivity")
    ]
    found = {node.digest: node for spec in probed for node in every_kind(spec)}
    assert len({node.tag for node in found.values()}) == 11
    for node in found.values():
        other = renamed(node)
        type(other).tag = "another"
        assert digest_of(other.identity()) != node.digest


@pytest.mark.parametrize(
    "group", ["dataset", "training", "optimizer.schedule", "recipe", "network", "rule"]
)
def test_renaming_a_group_of_settings_changes_no_digest(tiny: Composer, group: str) -> None:
    spec = tiny("pruning.levels=1")
    values: dict[str, Settings] = {
        "dataset": spec.dataset, "training": spec.training,
        "optimizer.schedule": spec.optimizer.schedule, "recipe": recipe(spec),
        "network": recipe(spec).network, "rule": rules(spec.pruning)[0],
    }  # fmt: skip
    value = values[group]

    class Renamed(Settings):
        NEUTRAL = value.NEUTRAL

        def deciding(self) -> dict[str, Any]:
            return value.deciding()

    assert canonical(Renamed()) == canonical(value)


def test_moving_a_built_in_changes_no_digest(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("pruning.levels=1", "probe=connectivity")
    before = digests(composed(*overrides))
    for name in ("lenet", "digits", "magnitude", "adam", "connectivity"):
        path, neutral = BUILTINS[name]
        moved = f"tests.test_identity.{path.rpartition('.')[2]}"
        monkeypatch.setitem(BUILTINS, name, Builtin(moved, neutral))
        monkeypatch.setitem(IDS, moved, name)
    monkeypatch.setitem(
        globals(), "Connectivity", importlib.import_module("lth.probes").Connectivity
    )
    assert digests(composed(*overrides)) == before
    assert digests(composed(*overrides, "model._target_=tests.test_identity.LeNet")) == before


def test_a_dotted_path_and_an_id_are_one_identity(composed: Composer) -> None:
    before = digests(composed("pruning.levels=1"))
    names = {"model": "lenet", "optimizer": "adam", "dataset.loader": "digits"}
    for place, name in names.items():
        assert digests(composed("pruning.levels=1", f"{place}._target_={name}")) == before
        dotted = f"{place}._target_={BUILTINS[name].path}"
        assert digests(composed("pruning.levels=1", dotted)) == before
    for criterion in ("magnitude", "lth.pruning.magnitude", "{_target_: magnitude}"):
        assert digests(composed("pruning.levels=1", f"pruning.criterion={criterion}")) == before


def other_than(value: object) -> object:
    return not value if isinstance(value, bool) else "other"


@pytest.mark.parametrize("name", [name for name, builtin in BUILTINS.items() if builtin.neutral])
def test_an_option_at_its_neutral_value_is_left_out(name: str) -> None:
    neutral = BUILTINS[name].neutral
    plain = canonical(Target(name, {"own": 1}, None))
    assert canonical(Target(name, {"own": 1, **neutral}, None)) == plain
    for option, value in neutral.items():
        for other in (other_than(value), [value]):
            options = {"own": 1, option: other}
            assert canonical(Target(name, options, None))["options"] == options
    assert canonical(Target("mine.Own", dict(neutral), None))["options"] == neutral  # not for users


def test_false_is_not_zero_and_whole_floats_are_integers() -> None:
    def left(neutral: object, value: object) -> bool:
        return bool(without_neutral({"x": value}, {"x": neutral}))

    assert not any(left(0, value) for value in (0, 0.0))
    assert not any(left(False, value) for value in (False,))
    assert all(left(0, value) for value in (False, None, "0", [0]))
    assert all(left(False, value) for value in (0, 0.0, None))
    assert not left([0.9, 0.999], (0.9, 0.999))


@dataclasses.dataclass(frozen=True)
class LongerBudget(Budget):
    """A group to which a setting was added later."""

    NEUTRAL: ClassVar = {**Budget.NEUTRAL, "added": 0}
    added: object = 0

    def deciding(self) -> dict[str, Any]:
        return {**super().deciding(), "added": self.added}


def test_a_setting_added_later_changes_digests_only_where_it_is_used(tiny: Composer) -> None:
    (_, dense), *_ = lottery.levels(tiny())

    def digest(added: object) -> str:
        options = dataclasses.asdict(dense.recipe.training)
        longer = LongerBudget(**options, added=added)
        changed = dataclasses.replace(dense.recipe, training=longer)
        return dataclasses.replace(dense, recipe=changed).digest

    assert digest(0) == digest(0.0) == dense.digest
    assert len({digest(added) for added in (0, 1, False, None)}) == 4


def test_one_and_a_float_of_one_are_one_value_of_built_ins(composed: Composer) -> None:
    short = "pruning.levels=1"
    assert digests(composed(short, "pruning.rate=20")) == digests(
        composed(short, "pruning.rate=20.0")
    )
    one, other = ("model.widths=[6,5]", "model.widths=[6.0,5.0]")
    assert digests(composed(short, one)) == digests(composed(short, other))


def test_an_option_at_its_neutral_value_is_in_the_identity_whether_it_is_given_or_not(
    composed: Composer,
) -> None:
    given = identity(composed("+optimizer.foreach=null"))
    assert given == identity(composed())
    assert given["optimizer.options.foreach"] is None
    assert identity(composed("+optimizer.foreach=true")) != given


def test_ancestors_are_all_stored_nodes_that_come_first(tiny: Composer) -> None:
    spec = tiny("probe=connectivity", "probe.iteration=5", "pruning.levels=1")
    *_, (_, probe) = lottery.nodes(spec)
    assert isinstance(probe, Measurement)
    dense, ticket = (training for _, training in lottery.levels(spec))
    copies = {child for child in probe.children() if isinstance(child, Training)}
    expected = {probe, *copies, Snapshot(ticket, 5), ticket, dense}
    assert with_ancestors([probe]) == expected


def test_whole_floats_are_integers_in_run_json_too_but_not_in_options_of_user_code(
    composed: Composer,
) -> None:
    """Two runs with one identity have one digest."""
    spec = composed("model.init_scale=2.0")
    own = dataclasses.replace(spec, model=Target("mine.Net", {"depth": 2.0}, "version:1"))
    other = dataclasses.replace(spec, model=Target("mine.Net", {"depth": 2}, "version:1"))
    assert repr(identity(spec)["model.options.init_scale"]) == "2"
    assert repr(identity(own)["model.options.depth"]) == "2.0"
    assert [repr(identity(s)) == repr(identity(own)) for s in (own, other)] == [True, False]
