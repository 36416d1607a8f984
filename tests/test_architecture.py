"""Who may import whom: the rooms of docs/design.md."""

import ast

import pytest

from tests.conftest import ROOT

MAY_IMPORT = {
    "errors": set(), "streams": set(), "files": {"errors"}, "provenance": set(),
    "masks": set(), "records": {"files"}, "models": set(), "data": {"errors", "streams"},
    "datasets": {"data", "errors", "files", "streams"}, "claims": set(),
    "pruning": {"data", "errors", "masks"}, "spec": {"errors"}, "schedule": {"spec"},
    "smoke": {"spec"}, "config": {"errors", "spec"}, "graph": {"spec"},
    "lottery": {"graph", "schedule", "spec"}, "store": {"claims", "files", "graph", "records"},
    "eager": {"data", "masks", "models", "spec"},
    "kernels": set(), "sparse": {"data", "kernels", "masks", "models", "spec"},
    "training": {"data", "eager", "masks", "records", "schedule", "sparse", "spec", "streams"},
    "connectivity": {"data", "eager", "records"},
    "inputs": {"data", "errors", "graph", "masks", "models", "pruning", "spec", "store", "streams"},
    "checks": {"errors", "graph", "inputs", "models", "pruning", "spec"},
    "pack": {"data", "eager", "masks", "spec"},
    "engine": {"connectivity", "errors", "graph", "inputs", "masks", "models", "pack", "provenance",
               "records", "store", "streams", "training"},
    "plan": {"checks", "errors", "graph", "inputs", "lottery", "smoke", "spec", "store"},
    "run_folder": {"claims", "errors", "files", "provenance", "records"},
    "terminal": {"analysis", "errors"},
    "tracking": {"claims", "errors", "records", "spec"},
    "rules": {"care", "data", "eager", "errors", "files", "graph", "inputs", "lottery", "masks",
              "pruning", "records", "spec", "store"},
    "audit": {"care", "data", "errors", "graph", "inputs", "lottery", "rules"},
    "ticket": {"errors", "files", "graph", "inputs", "masks", "spec"},
    "care": {"claims", "errors", "graph", "files", "records", "lottery", "spec", "store"},
}  # fmt: skip
"""Module of lth -> the modules of this project that it may import."""
KNOW_HYDRA = {"config", "terminal"}
NO_TORCH = {"errors", "files", "claims", "provenance", "records", "spec", "config", "schedule",
            "smoke", "graph", "lottery", "run_folder", "terminal", "store", "care"}  # fmt: skip


def imports(file: str, *, inside_functions: bool = True) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    nodes = ast.walk(tree) if inside_functions else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "lth":
            found |= {f"lth.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_every_module_has_its_room() -> None:
    assert {f.stem for f in (ROOT / "lth").glob("*.py")} - {"__init__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_stay_within_the_rooms(module: str) -> None:
    found = imports(f"lth/{module}.py")
    ours = {name.removeprefix("lth.") for name in found if name.startswith("lth.")}
    ours |= {name.partition(".")[0] for name in found if name.startswith("analysis")}
    assert ours <= MAY_IMPORT[module]
    if module in NO_TORCH:
        assert not {name for name in found if name.split(".")[0] in ("torch", "safetensors")}
    if module not in KNOW_HYDRA:
        assert not {name for name in found if name.split(".")[0] in ("hydra", "omegaconf")}


OF_LTH = {"lth.records", "lth.claims", "lth.files"}
OPEN_STORES = {
    "store": {"lth.care", "lth.errors", "lth.store"}, "verify": {"lth.audit"},
    "weights": {"lth.rules"},
    "export": {"lth.errors", "lth.rules", "lth.store", "lth.ticket"},
}  # fmt: skip
"""Commands for which the records alone are not enough -> what they may import."""


def test_analysis_reads_what_runs_record_and_few_commands_the_store() -> None:
    for file in (ROOT / "analysis").glob("*.py"):
        found = imports(f"analysis/{file.name}")
        allowed = OPEN_STORES.get(file.stem, OF_LTH)
        assert {name for name in found if name.startswith("lth")} <= allowed
        assert "torch" not in found


def test_run_imports_torch_only_where_it_trains() -> None:
    heavy = {"lth.engine", "lth.checks"}
    assert not heavy & imports("run.py", inside_functions=False)
    assert heavy <= imports("run.py")
