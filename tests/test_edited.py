"""Edited user code: a run says that it trains again because of it, and an audit names it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from analysis.status import summary
from lth.audit.audit import Audit
from lth.experiment import lottery
from lth.experiment.settings import Spec
from lth.pruning import ScoringInputs
from lth.runs.status import read_status, read_statuses
from lth.store.store import Store
from tests.conftest import NORM_NET, Composer, run_spec
from tests.test_status import printed
from tests.test_verify import cell, forge

NET, SCORE = "tests.conftest.NormNet", "tests.test_edited.score"
OWN = (*NORM_NET, f"pruning.criterion={SCORE}")
SHORT = ("training.iterations=4", "training.evaluate_every=2", "training.batch_size=20")
Compose = Callable[..., Spec]


def score(inputs: ScoringInputs) -> dict[str, Tensor]:
    return {name: weights.abs() for name, weights in inputs.weights.items()}


@pytest.fixture
def own(composed: Composer, tmp_path: Path) -> Compose:
    """Return a Spec whose model and criterion have these fingerprints."""

    def spec(*overrides: str, model: str = "sha256:1", criterion: str = "sha256:1") -> Spec:
        plain = composed(*SHORT, *OWN, f"store={tmp_path / 'store'}", *overrides)
        rule = replace(plain.pruning.criterion, code=criterion)
        return replace(
            plain,
            model=replace(plain.model, code=model),
            pruning=replace(plain.pruning, criterion=rule),
        )

    return spec


@pytest.mark.parametrize(("first", "second", "names"), [
    ({}, {"model": "sha256:2"}, [NET]),
    ({}, {"criterion": "version:2"}, [SCORE]),
    ({}, {"model": "sha256:2", "criterion": "sha256:2"}, [NET]),  # level 0 has no criterion
])  # fmt: skip
def test_a_run_that_trains_because_code_was_edited_says_so(
    own: Compose, tmp_path: Path, first: dict[str, str], second: dict[str, str], names: list[str]
) -> None:
    run_spec(own(**first), tmp_path / "runs/0")
    run_spec(own(**second), tmp_path / "runs/1")
    assert [read_status(tmp_path / f"runs/{n}").get("edited", []) for n in (0, 1)] == [[], names]
    text = printed(summary(tmp_path / "runs", read_statuses(tmp_path / "runs")))
    assert f"trained again: the store has the same networks with other code of {names[0]}" in text


@pytest.mark.parametrize(("overrides", "model"), [
    (("seed=1",), "sha256:2"), (("optimizer.lr=0.01",), "sha256:2"),
    (("optimizer.lr=0.01",), "sha256:1"), ((), "sha256:1"), (("pruning.levels=2",), "sha256:1"),
])  # fmt: skip
def test_nothing_is_said_of_runs_that_differ_in_settings_or_in_nothing(
    own: Compose, tmp_path: Path, overrides: tuple[str, ...], model: str
) -> None:
    run_spec(own(), tmp_path / "runs/0")
    run_spec(own(*overrides, model=model), tmp_path / "runs/1")
    assert not read_status(tmp_path / "runs/1").get("edited")
    assert "trained again" not in printed(
        summary(tmp_path / "runs", read_statuses(tmp_path / "runs"))
    )


def test_an_audit_names_edited_code_where_losses_differ(own: Compose, tmp_path: Path) -> None:
    spec = own()
    run_spec(spec, tmp_path / "run")
    audit = Audit()
    assert [*audit.of_run(tmp_path / "run")] == []
    assert not any(NET in note for note in audit.notes)
    dense = Store(Path(spec.store)).path(dict(lottery.levels(spec))[0])
    forge(dense, "curve.csv", lambda c: cell("val_loss", 0, "2.9")(c.decode()).encode())
    audit = Audit()
    rules = {violation.rule for violation in audit.of_run(tmp_path / "run")}
    assert "starts are as described" in rules
    assert [note for note in audit.notes if note.startswith(f"{NET} was edited after")]
