"""The documentation says what is there."""

import re
import runpy

from lth.runs.records import LEVEL_COLUMNS, LINE_COLUMNS, METRIC_COLUMNS
from tests.conftest import ROOT


def test_the_page_of_options_is_up_to_date_and_leaves_nothing_unsaid() -> None:
    page = runpy.run_path(str(ROOT / "docs/options.py"))["page"]()
    assert page == (ROOT / "docs/options.md").read_text(), "run python docs/options.py"
    assert not [line for line in page.splitlines() if line.endswith("|  |")]
    for file in (ROOT / "conf").glob("*/*.yaml"):
        assert f"| `{file.stem}` | " in page


def test_every_column_is_explained() -> None:
    _, *sections = (ROOT / "docs/records.md").read_text().split("\n## ")
    explained = {s.partition("\n")[0]: tuple(re.findall(r"^\| `(.*?)`", s, re.M)) for s in sections}
    assert explained["levels.csv"] == (*LEVEL_COLUMNS, "density/<tensor>")
    assert explained["metrics.csv"] == METRIC_COLUMNS
    assert explained["connectivity.csv"] == LINE_COLUMNS
