"""The published runs of the reproduction: their figures, and the claims table of the docs."""

import re
from pathlib import Path

import pytest

from analysis.claims import judged
from analysis.collect import collect
from analysis.runs import Runs
from analysis.tables import claim_cells
from tests.conftest import ROOT
from tests.test_analysis import analysis

REFERENCE = ROOT / "multirun/reference/lenet"
DRAWN = {"figure1", "figure3", "figure4", "figure4c", "figure12", "differences", "layers", "time"}


@pytest.fixture(scope="module")
def runs() -> Runs:
    return collect([REFERENCE])


def test_all_of_it_can_be_used(runs: Runs) -> None:
    assert runs.problems == []
    assert set(runs.levels["state"]) == {"finished"}


@pytest.mark.slow
def test_the_published_figures_are_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert analysis(monkeypatch, "figures", REFERENCE, "--out", tmp_path) == 0
    drawn = {file.stem for file in tmp_path.glob("*.png")}
    assert drawn >= DRAWN


def test_it_is_small() -> None:
    published = REFERENCE.parent.rglob("*")
    assert sum(file.stat().st_size for file in published if file.is_file()) < 2e7


@pytest.mark.parametrize(
    "folder",
    [
        "conv2", "conv2_dropout", "conv2_scalings", "conv2_standardized", "lenet_dense",
        "lenet_scalings", "lenet_tenth", "methods", "resnet20", "resnet20_late", "systems",
    ],
)  # fmt: skip
def test_the_others_can_be_used(folder: str) -> None:
    assert collect([REFERENCE.with_name(folder)]).problems == []


def test_the_interrupted_ones_have_eleven_levels() -> None:
    problems = collect([REFERENCE.with_name("conv2_raw")]).problems
    assert len(problems) == 10
    assert all("interrupted, with 11 levels so far" in problem for problem in problems)


def test_the_page_has_what_the_claims_command_prints(runs: Runs) -> None:
    printed = {"".join(claim_cells(verdict)[:4]) for verdict in judged(runs)}
    page = (ROOT / "docs/reproduction.md").read_text().partition("## Claims of the paper\n")[2]
    section = page.partition("| claim |")[2].partition("\n\n")[0]
    rows = [re.split(r" *\| *", line.strip("| "))[:4] for line in section.splitlines()[2:]]
    assert len(rows) > 8
    assert {"".join(row) for row in rows} <= printed
