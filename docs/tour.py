"""Run docs/tour.ipynb again, in an empty copy of the project, and write its outputs into it.

python docs/tour.py (three minutes; tests/test_tour.py runs a shorter form)
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/tour.ipynb"
PROGRAM = ("run.py", "analysis", "lth", "conf", "hydra_plugins")
MINUTES = 10


def executed(folder: Path, changes: Mapping[str, str]) -> nbformat.NotebookNode:
    """Run the tour in an empty folder, which gets links to the program, with some text of its cells
    changed. Raises nbclient's CellExecutionError if a cell fails."""
    for name in PROGRAM:
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    (folder / "multirun").mkdir()
    tour = nbformat.read(NOTEBOOK, as_version=4)
    for cell in tour.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(
        tour, timeout=60 * MINUTES, coalesce_streams=True, record_timing=False,
        resources={"metadata": {"path": str(folder / "docs")}},
    )  # fmt: skip
    return client.execute()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        nbformat.write(executed(Path(name), {}), NOTEBOOK)
