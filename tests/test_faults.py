"""Faults below Python: a few of those that `make faults` tries."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_a_run_survives_faults_of_file_operations() -> None:
    if shutil.which("cc") is None:
        pytest.skip("the shim that makes operations fail needs a C compiler")
    words = [sys.executable, "-m", "benchmarks.faults", "--every", "199"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 ended badly" in done.stdout
