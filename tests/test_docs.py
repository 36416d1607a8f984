"""The documentation covers every option and every column."""

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from lth.probes import Connectivity, LevelConnectivity, MaskDistance
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS, PROBE_COLUMNS, RUN_COLUMNS
from tests.conftest import ROOT

OPTIONS: dict[str, Any] = runpy.run_path(str(ROOT / "docs/options.py"))


def unexplained(page: str) -> list[str]:
    """The rows of the tables whose last cell is empty."""
    return [line for line in page.splitlines() if line.endswith("|  |")]


def test_the_page_of_options_is_up_to_date() -> None:
    page = OPTIONS["page"]()
    assert page == (ROOT / "docs/options.md").read_text(), "run python docs/options.py"


def test_every_option_and_setting_is_explained() -> None:
    assert not unexplained(OPTIONS["page"]())


def test_every_option_is_listed_under_its_group() -> None:
    _, general, *sections = OPTIONS["page"]().split("\n## ")
    assert general.startswith("General\n")
    listed = {
        (section.partition("\n")[0], option)
        for section in sections
        for option in re.findall(r"^\| `(\w+)` \| (?:`\w+`(?:, `\w+`)*)? \|", section, re.M)
    }
    assert listed == {(file.parent.name, file.stem) for file in (ROOT / "conf").glob("*/*.yaml")}


@pytest.mark.parametrize(("file", "line", "row"), [
    ("config.yaml", "blur: 0", "| `blur` | `0` |  |"),
    ("rewind/init.yaml", "blur: 0", "| `init` | `rewind.blur` | `0` |  |"),
    ("model/bare.yaml", "_target_: lth.models.LeNet", "| `bare` |  |  |"),
])  # fmt: skip
def test_an_option_without_a_comment_is_found(
    tmp_path: Path, file: str, line: str, row: str
) -> None:
    conf = shutil.copytree(ROOT / "conf", tmp_path / "conf")
    with (conf / file).open("a") as text:
        text.write(f"{line}\n")
    assert unexplained(OPTIONS["page"](conf)) == [row]


def test_every_column_is_explained() -> None:
    _, *sections = (ROOT / "docs/records.md").read_text().split("\n## ")
    explained = {s.partition("\n")[0]: tuple(re.findall(r"^\| `(.*?)`", s, re.M)) for s in sections}
    assert explained["levels.csv"] == (*LEVEL_COLUMNS, *RUN_COLUMNS, "density/<tensor>")
    assert explained["metrics.csv"] == METRIC_COLUMNS
    for probe in (Connectivity, LevelConnectivity, MaskDistance):
        assert explained[f"{probe.table}.csv"] == (*PROBE_COLUMNS, *probe.columns)
