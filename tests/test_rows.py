"""Rows of levels.csv name seed, arm and rate; the snippet of the documentation groups by them."""

import dataclasses
import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
import pytest

from analysis.collect import collect
from lth.audit.audit import Audit
from lth.experiment import lottery
from lth.experiment.names import arm_name, rate_name
from lth.experiment.recipe import identity
from lth.experiment.results import early_stop, rows_from_csv
from lth.experiment.settings import Spec
from lth.runs.status import find_runs
from lth.store.store import Store
from tests.conftest import ROOT, Composer, run_spec
from tests.test_analysis import write_run
from tests.test_verify import cell, forge_table

SNIPPET = re.search(r"```python\n(.*?)```", (ROOT / "docs/records.md").read_text(), re.S)
SWEEP = [(seed, rate) for seed in (0, 1, 2) for rate in (10, 20)]


def described(spec: Spec, _: object) -> dict[str, Any]:
    return {
        "arm": arm_name(spec), "rate": rate_name(spec.pruning), "identity": identity(spec),
        "overrides": [], "groups": {}, "spec": dataclasses.asdict(spec),
    }  # fmt: skip


@pytest.fixture
def sweep(tiny: Composer, tmp_path: Path) -> list[Spec]:
    """Write the runs of the README's sweep, in small, to multirun/reference/lenet/0, 1, .../"""
    specs = [
        tiny(f"seed={seed}", f"pruning.rate={rate}", "pruning.levels=1", f"store={tmp_path}/store")
        for seed, rate in SWEEP
    ]
    for number, spec in enumerate(specs):
        run_spec(spec, tmp_path / f"multirun/reference/lenet/{number}", describe=described)
    return specs


def test_the_snippet_averages_over_seeds_and_keeps_rates_apart(
    sweep: list[Spec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SNIPPET is not None
    scope: dict[str, Any] = {}
    exec(SNIPPET[1], scope)
    shown = capsys.readouterr().out
    assert all(f"{rate} %" in shown for rate in (10, 20))
    found = scope["levels"].groupby(["rate", "level"])["early_stop_test_accuracy"].mean()
    store, expected = Store(tmp_path / "store"), dict[tuple[str, int], list[float]]()
    for spec, (_, rate) in zip(sweep, SWEEP, strict=True):
        for level, training in lottery.levels(spec):
            accuracy = early_stop(store.results(training).curve).test_accuracy
            expected.setdefault((f"{rate} %", level), []).append(accuracy)
    assert len(expected) == 4
    assert {len(of_seeds) for of_seeds in expected.values()} == {3}
    assert found.to_dict() == pytest.approx({key: mean(v) for key, v in expected.items()})


def test_the_snippet_reads_the_published_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert SNIPPET is not None
    exec(SNIPPET[1], scope := dict[str, Any]())
    assert set(scope["levels"]["arm"]) > {"winning ticket", "random mask"}
    counts = scope["levels"].groupby(["arm", "rate", "level"]).size()
    assert counts.max() == scope["levels"]["seed"].nunique()


def test_an_audit_finds_a_row_that_names_another_run(sweep: list[Spec], tmp_path: Path) -> None:
    assert sweep
    run = tmp_path / "multirun/reference/lenet/5"
    forge_table(run, "levels.csv", cell("seed", 1, "0"))
    found = {found.rule: found.what for found in Audit(quick=True).of_run(run)}
    assert found == {"rows name their run": "level 1: seed is 0, but 2 in run.json"}


def test_tables_with_and_without_these_columns_are_read_alike(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        for seed in (0, 1):
            write_run(tmp_path / folder / f"{seed}", seed=seed)
    for seed in (0, 1):
        table = tmp_path / "new" / f"{seed}" / "levels.csv"
        pd.read_csv(table).assign(seed=seed, arm="winning ticket", rate="50 %").to_csv(
            table, index=False
        )
    old, new = (
        collect([tmp_path / folder]).levels.drop(columns="run") for folder in ("old", "new")
    )
    pd.testing.assert_frame_equal(old, new)


def test_every_published_row_has_the_names_of_its_run() -> None:
    for run in find_runs(ROOT / "multirun/reference"):
        status = json.loads((run / "run.json").read_bytes())
        names = (str(status["identity"]["seed"]), status["arm"], status["rate"])
        rows = rows_from_csv((run / "levels.csv").read_bytes())
        assert {(row["seed"], row["arm"], row["rate"]) for row in rows} == {names}
