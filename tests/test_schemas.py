"""JSON schemas of conf/ for editors: up to date, followed by every file, and strict. Completion in
shells."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

from docs.schemas import FOLDER, schemas
from tests.conftest import ROOT

CONF = ROOT / "conf"
FILES = [file for file in sorted(CONF.rglob("*.yaml")) if CONF / "hydra" not in file.parents]


def schema_of(file: Path) -> Draft202012Validator:
    """Return the schema that docs/options.md gives a file: that of its group, if there is one."""
    own = FOLDER / f"{file.parent.name}.json"
    return validator(own.stem if own.exists() else "config")


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()))


def faults(schema: Draft202012Validator, content: object) -> list[str]:
    return [error.json_path for error in schema.iter_errors(content)]


def test_they_are_up_to_date() -> None:
    written = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
    assert written == schemas()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_every_file_follows_its_schema(file: Path) -> None:
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert faults(schema_of(file), content) == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("pruning", {"rate": 100}), ("pruning", {"ratee": 20}), ("pruning", {"scope": "local"}),
        ("pruning", {"settled": {"window": 1}}), ("rewind", {"iteration": "2epochs"}),
        ("optimizer", {"lr": 0}), ("optimizer", {"schedule": {"gamma": 2}}),
        ("dataset", {"classes": "ten"}), ("config", {"training": {"iterations": 0}}),
        ("config", {"sed": 1}), ("config", {"seed": "3ep"}), ("pruning", {"levels": "2it"}),
        ("source", {"training": {"batch_size": -1}}),
    ],
)  # fmt: skip
def test_what_a_run_would_refuse_is_refused(name: str, wrong: dict[str, Any]) -> None:
    assert faults(validator(name), wrong) != []


@pytest.mark.slow
def test_a_shell_completes_options() -> None:
    words = [sys.executable, "run.py", "-sc", "query=bash"]
    line = os.environ | {"COMP_LINE": "python run.py pruning=magnitude_"}
    done = subprocess.run(words, cwd=ROOT, env=line, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pruning=magnitude_at_init", "pruning=magnitude_increase"]


def test_descriptions_are_the_comments() -> None:
    rate = schemas()["pruning"]["properties"]["rate"]
    assert rate["description"].startswith("percent of the surviving weights removed per level")
