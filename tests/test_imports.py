"""Start-up stays quick: torch is imported where it is used, not with the modules.

import-linter (pyproject.toml) holds the layers; it cannot tell an import in a function from one at
the top of a module.
"""

import pkgutil
import subprocess
import sys

import hydra_plugins.lth_launchers
import lth.experiment
import lth.runs
import lth.store
from tests.conftest import ROOT

PACKAGES = (lth.experiment, lth.runs, lth.store, hydra_plugins.lth_launchers)
SINGLE = ("lth.errors", "lth.trackers", "run", "analysis.__main__")
HEAVY = {"matplotlib", "numba", "torch"}


def test_modules_that_describe_record_and_launch_import_nothing_heavy() -> None:
    modules = [
        *SINGLE,
        *(f"{p.__name__}.{m.name}" for p in PACKAGES for m in pkgutil.iter_modules(p.__path__)),
    ]
    assert len(modules) > 20
    code = f"import {', '.join(modules)}, sys; print(*({HEAVY} & sys.modules.keys()))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
