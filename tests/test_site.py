"""The documentation as a site: every link leads somewhere, and every page is in the navigation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = {file.stem for file in (ROOT / "docs").iterdir() if file.suffix in (".md", ".ipynb")}


@pytest.mark.slow
def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=quiet, check=False)
    assert done.returncode == 0, done.stderr
    assert {file.stem for file in tmp_path.glob("*.html")} == {*PAGES, "index", "changes", "404"}
    tour, api = ((tmp_path / f"{name}.html").read_text() for name in ("tour", "api"))
    assert "image/png" in tour
    assert "Return the runs whose levels have these values" in api


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"(\w+)\.(?:md|ipynb)", (ROOT / "mkdocs.yml").read_text())
    assert {*listed} == {*PAGES, "index", "changes"}
