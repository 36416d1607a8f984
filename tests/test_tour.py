"""The tour: every cell runs, and the page shows what its cells printed."""

import re
from pathlib import Path

import nbformat
import pytest

from docs.tour import NOTEBOOK, executed

SHORTER = {"training.iterations=1000": "training.iterations=40"}


def outputs(tour: nbformat.NotebookNode) -> list[list[str]]:
    """Return the kinds of output of each cell."""
    return [
        [output.output_type for output in cell.outputs]
        for cell in tour.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_every_cell_runs_and_has_the_outputs_that_the_page_shows(tmp_path: Path) -> None:
    assert outputs(executed(tmp_path, SHORTER)) == outputs(nbformat.read(NOTEBOOK, as_version=4))


def test_the_page_names_no_place_of_the_machine_that_made_it() -> None:
    assert not re.findall(r"/(?:root|home|tmp|work)/", NOTEBOOK.read_text())
