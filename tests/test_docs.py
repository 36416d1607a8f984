"""The documentation says what is there."""

import runpy

from tests.conftest import ROOT


def test_the_page_of_options_is_up_to_date_and_leaves_nothing_unsaid() -> None:
    page = runpy.run_path(str(ROOT / "docs/options.py"))["page"]()
    assert page == (ROOT / "docs/options.md").read_text(), "run python docs/options.py"
    assert not [line for line in page.splitlines() if line.endswith("|  |")]
    for file in (ROOT / "conf").glob("*/*.yaml"):
        assert f"| `{file.stem}` | " in page
