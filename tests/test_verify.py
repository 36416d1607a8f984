"""The audit: no violations on clean runs, and each rule finds the fault planted against it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from lth.audit.audit import Audit
from lth.audit.run_rules import RUN_RULES
from lth.audit.step_rules import STEP_RULES
from lth.audit.training_rules import TRAINING_RULES, Case, masks_are_what_the_rule_selects
from lth.engine.build import Builder, NoData
from lth.engine.engine import Engine
from lth.experiment import lottery
from lth.runs.records import sealed
from lth.store.files import checksum
from tests.conftest import Composer
from tests.test_analysis import analysis

TICKET, REINIT = 0, 1


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "copy"))


def found(folder: Path) -> dict[str, str]:
    """Return rule -> the last violation that the audit found."""
    audit = Audit()
    of_runs = (v for run in (folder / "sweep").glob("[0-9]") for v in audit.of_run(run))
    return {broken.rule: f"{broken.where}: {broken.what}" for broken in of_runs}


def stored(folder: Path, level: int, run: int = TICKET) -> Path:
    """Return the folder of the training of a run's level."""
    rows = (folder / f"sweep/{run}/levels.csv").read_text().splitlines()
    digest = rows[1 + level].split(",")[rows[0].split(",").index("training")]
    return folder / "store" / digest[:2] / digest


def forge(training: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a stored file so that its checksum is right."""
    content = change((training / name).read_bytes())
    (training / name).write_bytes(content)
    done = json.loads((training / "done").read_bytes())
    (training / "done").write_text(json.dumps(done | {name: checksum(content)}))


def forge_table(run: Path, name: str, change: Callable[[str], str]) -> None:
    """Change a table of a run so that all checksums are right."""
    content = change((run / name).read_text())
    (run / name).write_text(content)
    status = json.loads((run / "run.json").read_bytes())
    status["tables"][name] = checksum(content.encode())
    (run / "run.json").write_text(json.dumps(sealed(status)))


def cell(column: str, level: int, value: str) -> Callable[[str], str]:
    """Set a cell of a table with one row per level."""

    def change(text: str) -> str:
        rows = [row.split(",") for row in text.splitlines()]
        rows[1 + level][rows[0].index(column)] = value
        return "\n".join(map(",".join, rows)) + "\n"

    return change


def flipped(name: str, *bits: int) -> Callable[[bytes], bytes]:
    """Flip some entries of a packed mask."""

    def change(content: bytes) -> bytes:
        mask = load(content)
        for bit in bits:
            mask[name][bit // 8] ^= 128 >> bit % 8
        return save(mask)

    return change


def entries(training: Path, name: str) -> list[bool]:
    packed = load((training / "mask.safetensors").read_bytes())[name]
    return [bool(byte >> bit & 1) for byte in packed.tolist() for bit in range(7, -1, -1)]


def edited(name: str, edit: Callable[[torch.Tensor], object]) -> Callable[[bytes], bytes]:
    """Edit the final weights of a tensor."""

    def change(content: bytes) -> bytes:
        state = load(content)
        edit(state[name].view(-1))
        return save(state)

    return change


def as_json(**changes: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | changes).encode()


WEIGHT = "1.weight"


def put_back(folder: Path) -> None:
    """Keep a weight at level 2 that was pruned at level 1, instead of another."""
    before, after = (entries(stored(folder, level), WEIGHT) for level in (1, 2))
    forge(
        stored(folder, 2),
        "mask.safetensors",
        flipped(WEIGHT, before.index(False), after.index(True)),
    )


def swap(folder: Path, run: int = TICKET) -> None:
    """Prune another weight at level 1."""
    kept = entries(stored(folder, 1, run), WEIGHT)
    forge(stored(folder, 1, run), "mask.safetensors",
          flipped(WEIGHT, kept.index(False), kept.index(True)))  # fmt: skip


def keep_one_less(folder: Path) -> None:
    kept = entries(stored(folder, 1), WEIGHT)
    forge(stored(folder, 1), "mask.safetensors", flipped(WEIGHT, kept.index(True)))


def revive(folder: Path) -> None:
    gone = entries(stored(folder, 1), WEIGHT).index(False)
    change = edited(WEIGHT, lambda flat: flat.index_fill_(0, torch.tensor([gone]), 0.5))
    forge(stored(folder, 1), "final.safetensors", change)


PLANTED: dict[str, Callable[[Path], object]] = {
    "tables are as written": lambda f: (f / "sweep/0/levels.csv").write_text(
        cell("seconds", 1, "9.0")((f / "sweep/0/levels.csv").read_text())
    ),
    "levels are complete": lambda f: forge_table(
        f / "sweep/0", "levels.csv", lambda text: text[: text[:-1].rindex("\n") + 1]
    ),
    "levels are those described": lambda f: forge_table(
        f / "sweep/0", "levels.csv", cell("training", 2, "0" * 64)
    ),
    "early stops are minima": lambda f: forge_table(
        f / "sweep/0", "levels.csv", cell("early_stop_iteration", 1, "10000")
    ),
    "rows are those stored": lambda f: forge_table(
        f / "sweep/0", "levels.csv", cell("final_train_accuracy", 1, "0.999")
    ),
    "rows name their run": lambda f: forge_table(
        f / "sweep/0", "levels.csv", cell("rate", 1, "5 %")
    ),
    "controls have the tickets masks": lambda f: swap(f, REINIT),
    "measurements are those stored": lambda f: forge_table(
        f / "sweep/0", "connectivity.csv", cell("test_accuracy", 2, "0.5")
    ),
    "files are whole": lambda f: (stored(f, 1) / "summary.json").write_text("{}"),
    "descriptions have their digests": lambda f: forge(
        stored(f, 1), "node.json", lambda c: c.replace(b'"seed": 0', b'"seed": 1')
    ),
    "curves are complete": lambda f: forge(
        stored(f, 1), "curve.csv", lambda c: b"".join(c.splitlines(keepends=True)[:-1])
    ),
    "accuracies are there": lambda f: forge(
        stored(f, 1), "curve.csv", lambda c: c[: c.rindex(b",") + 1] + b"1.5\n"
    ),
    "masks nest": put_back,
    "counts are exact": keep_one_less,
    "masks are what the rule selects": swap,
    "densities are those of the mask": lambda f: forge(
        stored(f, 1), "summary.json",
        lambda c: as_json(weights=json.loads(c)["weights"] | {WEIGHT: [1, 384]})(c),
    ),
    "pruned weights are zero": revive,
    "weights are finite": lambda f: forge(
        stored(f, 1), "final.safetensors", edited("1.bias", lambda flat: flat.fill_(torch.nan))
    ),
    "losses are finite": lambda f: forge(
        stored(f, 1), "curve.csv", lambda c: cell("train_loss", 2, "inf")(c.decode()).encode()
    ),
    "starts are as described": lambda f: forge(
        stored(f, 1), "curve.csv", lambda c: cell("val_loss", 0, "2.9")(c.decode()).encode()
    ),
    "ends are as recorded": lambda f: forge(
        stored(f, 1), "final.safetensors", edited("1.bias", lambda flat: flat.add_(1.0))
    ),
    "splits are as described": lambda f: forge(
        stored(f, 1), "provenance.json", as_json(input_mean=[0.25])
    ),
    "first steps are those of autograd": lambda f: forge(
        stored(f, 3), "curve.csv", lambda c: cell("train_loss", 1, "2.5")(c.decode()).encode()
    ),
}  # fmt: skip


def test_a_fault_is_planted_against_every_rule() -> None:
    every = (*RUN_RULES, *TRAINING_RULES, *STEP_RULES)
    rules = {rule.__name__.replace("_", " ") for rule in every}
    elsewhere = {  # test_verify_steps.py, test_moving.py
        "frozen parameters do not move", "counts of moving masks are exact",
        "learnt masks keep weights",
    }  # fmt: skip
    assert rules - elsewhere == PLANTED.keys()
    assert len(rules) >= 15


def test_nothing_is_found_on_clean_runs(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis(monkeypatch, "verify", clean) == 0
    assert "4 runs, 26 trainings: nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("rule", PLANTED)
def test_each_rule_finds_the_fault_and_its_place(rule: str, folder: Path) -> None:
    PLANTED[rule](folder)
    violations = found(folder)
    assert rule in violations, violations
    assert violations[rule].startswith(str(folder))


def test_the_command_fails_and_names_the_violation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swap(folder)
    assert analysis(monkeypatch, "verify", folder, "--quick") == 1
    violations = capsys.readouterr().out
    assert (
        f"{stored(folder, 1)}: [masks are what the rule selects] 2 weights of {WEIGHT}"
        in violations
    )
    assert analysis(monkeypatch, "verify", folder / "store") == 1


def test_mixtures_of_machines_are_named_and_no_violation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(stored(folder, 1), "provenance.json", as_json(device="cuda"))
    assert analysis(monkeypatch, "verify", folder) == 0
    assert 'note: trainings differ in device: "cpu", "cuda"' in capsys.readouterr().out


def test_without_a_store_only_tables_are_checked(folder: Path) -> None:
    shutil.rmtree(folder / "store")
    assert found(folder) == {}
    forge_table(folder / "sweep/0", "levels.csv", cell("early_stop_iteration", 1, "7"))
    assert found(folder).keys() == {"early stops are minima"}


def test_a_run_that_cannot_be_read_is_a_violation(folder: Path) -> None:
    (folder / "sweep/0/run.json").write_text("{")
    assert "runs can be read" in found(folder)


def test_a_run_without_its_table_is_a_violation_and_the_audit_continues(folder: Path) -> None:
    (folder / "sweep/0/levels.csv").unlink()
    forge_table(folder / "sweep/1", "levels.csv", cell("early_stop_iteration", 1, "7"))
    places = [violation.where.name for violation in Audit().of_run(folder / "sweep/0")]
    assert {*places} == {"0"}
    assert "early stops are minima" in found(folder)


def test_dropped_weights_are_no_violation_and_masks_need_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("store", folder / "store", "--runs", folder / "sweep", "--weights", "ends", "--yes")
    assert analysis(monkeypatch, *words) == 0
    assert found(folder) == {}
    out = folder / "ticket.safetensors"
    assert analysis(monkeypatch, "export", folder / "sweep/0", "--out", out) == 0


def test_a_mask_of_gradients_is_not_checked_without_the_examples(
    tiny: Composer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise NoData("no MNIST")

    build = engine.maker.build
    (_, snip) = dict(lottery.levels(tiny("pruning=snip", "pruning.levels=1"))).values()
    list(engine.ensure([snip]))
    case = Case(snip, engine.store, Builder(engine.store, build.data_root, build.device), None)
    assert not list(masks_are_what_the_rule_selects(case))
    monkeypatch.setattr(Builder, "data", missing)
    case = Case(snip, engine.store, Builder(engine.store, build.data_root, build.device), None)
    assert not list(masks_are_what_the_rule_selects(case))


def test_a_file_that_cannot_be_read_is_a_violation_and_the_audit_continues(folder: Path) -> None:
    for name in ("mask.safetensors", "final.safetensors"):
        file = stored(folder, 1) / name
        file.write_bytes(file.read_bytes()[:20])
    assert {"files are whole", "masks nest", "ends are as recorded"} <= found(folder).keys()


def test_refused_and_interrupted_runs_are_no_violation(folder: Path) -> None:
    (folder / "sweep/1/levels.csv").unlink()
    (folder / "sweep/1/metrics.csv").unlink()
    status = json.loads((folder / "sweep/1/run.json").read_bytes())
    status |= {"state": "interrupted", "tables": {}}
    (folder / "sweep/1/run.json").write_text(json.dumps(sealed(status)))
    refused = {"state": "failed", "overrides": [], "error": "pruning.rate=101"}
    (folder / "sweep/2/run.json").write_text(json.dumps(sealed(refused)))
    assert found(folder) == {}
