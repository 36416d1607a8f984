"""Digests change with user code, and with nothing else of its modules."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lth.engine.checks import check
from lth.experiment import config
from lth.runs.status import spec_of
from tests.conftest import OWN_MODEL, Composer
from tests.test_identity import digests

MODULE = """
import {helper}
from torch import nn

class Net(nn.Sequential):
    def __init__(self, shape, classes, width):
        super().__init__(nn.Flatten(), nn.Linear(64, int(width)), nn.Linear(int(width), classes))

class SGD(__import__("torch").optim.SGD):
    pass

def loader(root):
    raise NotImplementedError

def score(inputs):
    return inputs.weights

from lth.probes import LevelConnectivity as Probe
"""
OWN = (*OWN_MODEL, "pruning.levels=1")
PLACES = {
    "model": "Net", "optimizer": "SGD", "dataset.loader": "loader", "pruning.criterion": "score",
    "probe": "Probe",
}  # fmt: skip
NAMES = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of a user, and a helper that it imports."""
    number = next(NAMES)  # a process imports a module once
    helper = tmp_path / f"helper_{number}.py"
    helper.write_text("SIZE = 1\n")
    file = tmp_path / f"own_{number}.py"
    file.write_text(MODULE.format(helper=helper.stem))
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    config._source_hash.cache_clear()


def edit(file: Path) -> None:
    """Change a file, for a process that reads it from now on."""
    file.write_text(file.read_text() + "\nEDITED = True\n")
    config._source_hash.cache_clear()


def own(module: Path, *, model: str = "Net") -> tuple[str, ...]:
    return (*OWN, f"model._target_={module.stem}.{model}", "+model.width=7")


def test_an_edit_of_user_code_changes_digests(composed: Composer, module: Path) -> None:
    before = digests(composed(*own(module)))
    assert digests(composed(*own(module))) == before
    edit(module)
    assert not set(digests(composed(*own(module)))) & set(before)


@pytest.mark.parametrize("place", PLACES)
def test_the_code_of_every_place_is_in_the_digests(
    composed: Composer, module: Path, place: str
) -> None:
    target = f"{module.stem}.{PLACES[place]}"
    overrides = ["pruning.levels=1", f"++{place}._target_={target}"]
    if place == "pruning.criterion":
        overrides[1] = f"pruning.criterion={{_target_: {target}}}"
    if place == "probe":
        overrides.append("probe=level_connectivity")
    before = digests(composed(*overrides))
    edit(module)
    after = digests(composed(*overrides))
    if place == "probe":  # the trainings stay, what is measured on them does not
        assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_helper_modules_do_not_count(composed: Composer, module: Path) -> None:
    before = digests(composed(*own(module)))
    edit(module.with_name(module.name.replace("own", "helper")))
    assert digests(composed(*own(module))) == before


def test_a_part_that_is_only_re_exported_counts_with_the_module_that_defines_it(
    composed: Composer, module: Path
) -> None:
    helper = module.with_name(module.name.replace("own", "helper"))
    shutil.copy(module, helper)
    module.write_text(f"from {helper.stem} import Net")
    before = digests(composed(*own(module)))
    edit(helper)
    assert not set(digests(composed(*own(module)))) & set(before)


def test_an_option_called_version_is_an_option(composed: Composer, module: Path) -> None:
    spec = composed(*own(module), "+model.version=3")
    assert spec.model.options == {"width": 7, "version": 3}


def test_a_version_replaces_the_hash_of_the_source(composed: Composer, module: Path) -> None:
    third, fourth = ((*own(module), f"+model._version_={version}") for version in (3, 4))
    before = digests(composed(*third))
    edit(module)
    assert digests(composed(*third)) == before
    assert not set(digests(composed(*fourth))) & set(before)
    assert not set(digests(composed(*own(module)))) & set(before)
    spec = composed(*third)
    assert spec.model.options == {"width": 7}
    check(spec)  # `_version_` is not passed to the class


def test_options_of_user_code_keep_their_types(composed: Composer, module: Path) -> None:
    whole, real = (
        composed(*OWN, f"model._target_={module.stem}.Net", f"+model.width={width}")
        for width in ("7", "7.0")
    )
    assert not set(digests(whole)) & set(digests(real))


def test_a_recorded_run_keeps_its_digests_when_its_code_is_edited(
    composed: Composer, module: Path
) -> None:
    spec = composed(*own(module))
    recorded = json.loads(json.dumps({"spec": dataclasses.asdict(spec)}))
    edit(module)
    assert digests(spec_of(recorded)) == digests(spec)
    assert digests(spec_of(recorded)) != digests(composed(*own(module)))
