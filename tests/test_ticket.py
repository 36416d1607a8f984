"""A ticket as a file, and back in plain torch; and the figures that read weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy

from analysis.collect import collect
from analysis.needs import Lacking
from analysis.weights import WEIGHT_FIGURES, connections, distance, initial_weights
from lth import models
from lth.engine.build import Builder
from lth.engine.engine import Engine
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.nodes import Training
from lth.models import LeNet
from lth.ticket import Ticket, load_ticket, save_ticket, ticket_of
from lth.training import masks
from tests.conftest import Composer
from tests.test_analysis import analysis


@pytest.fixture
def stored(engine: Engine, tiny: Composer) -> tuple[Training, Builder]:
    """The ticket of level 2."""
    trainings = [training for _, training in lottery.levels(tiny("pruning.levels=2"))]
    list(engine.ensure(trainings))
    return trainings[-1], engine.maker.build


@pytest.fixture
def ticket(stored: tuple[Training, Builder], tmp_path: Path) -> Ticket:
    save_ticket(tmp_path / "ticket.safetensors", ticket_of(2, *stored))
    return load_ticket(tmp_path / "ticket.safetensors")


def test_a_file_has_what_the_store_has(stored: tuple[Training, Builder], ticket: Ticket) -> None:
    training, build = stored
    network = training.recipe.network
    start, mask = build.weights(training.weights, network), build.mask(training.mask, network)
    assert start.keys() == ticket.start.keys()
    assert all(torch.equal(ticket.start[name], start[name]) for name in start)
    assert all(torch.equal(ticket.mask[name], mask[name]) for name in mask)
    assert all(not ticket.final[name][~mask[name]].any() for name in mask)
    assert ticket.about["training"] == training.digest
    assert ticket.about["level"] == 2
    json.dumps(ticket.about)


@pytest.mark.parametrize("optimizer", [
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
])  # fmt: skip
def test_its_network_is_plain_torch_whose_pruned_weights_stay_zero(
    ticket: Ticket, optimizer: object
) -> None:
    model = ticket.model()
    assert isinstance(model, nn.Module)
    apart = masks.apply(ticket.start, ticket.mask)
    assert all(torch.equal(value, apart[name]) for name, value in model.state_dict().items())
    steps = optimizer(model.parameters())  # type: ignore[operator]
    inputs, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    for _ in range(5):
        steps.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        steps.step()
    for name, kept in ticket.mask.items():
        values = model.get_parameter(name)
        assert not values[~kept].any()
        assert (values[kept] != ticket.start[name][kept]).any()


def test_it_can_be_loaded_into_another_network(ticket: Ticket) -> None:
    own = LeNet((1, 8, 8), 10, widths=[6, 5])
    assert ticket.put_into(own) is own
    with pytest.raises(RuntimeError, match="size mismatch"):
        ticket.put_into(LeNet((1, 8, 8), 10, widths=[7, 5]))


def test_it_can_be_loaded_into_a_network_that_is_not_trained(ticket: Ticket) -> None:
    frozen = LeNet((1, 8, 8), 10, widths=[6, 5]).requires_grad_(requires_grad=False)
    ticket.put_into(frozen)
    assert not any(frozen.get_parameter(n)[~kept].any() for n, kept in ticket.mask.items())


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        LotteryError, match=r"is not a ticket of lth .*Make one: python -m analysis export RUN"
    ):
        load_ticket(tmp_path / "other.safetensors")


def test_the_command_exports_a_level(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.safetensors"
    words = ("export", clean / "sweep/0", "--out", out)
    assert analysis(monkeypatch, *words) == 0
    assert load_ticket(out).about["level"] == 3
    assert analysis(monkeypatch, *words, "--level", 1) == 0
    assert load_ticket(out).about["level"] == 1
    assert analysis(monkeypatch, *words, "--level", 9) == 1
    assert "--level must be in 0 to 3 for this run, got 9" in capsys.readouterr().err
    assert analysis(monkeypatch, "export", clean / "store") == 1


def test_a_ticket_without_a_name_is_written_to_a_new_file(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert analysis(monkeypatch, "export", clean / "sweep/0") == 0
    out = tmp_path / "ticket-level-3.safetensors"
    before = out.read_bytes()
    assert analysis(monkeypatch, "export", clean / "sweep/1") == 1
    assert capsys.readouterr().err == (
        f"error: {out} exists already, perhaps that of another run. Name a file with --out.\n"
    )
    assert out.read_bytes() == before


@pytest.mark.slow
def test_a_smaller_network_is_written_for_torch_alone(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert analysis(monkeypatch, "export", clean / "sweep/0") == 0
    assert analysis(monkeypatch, "export", clean / "sweep/0", "--smaller") == 0
    small = torch.export.load("network-level-3.pt2").module()
    ticket = load_ticket("ticket-level-3.safetensors")
    whole = ticket.model().eval()
    models.load(whole, ticket.final)
    inputs = torch.rand(7, *ticket.about["network"]["shape"])
    assert torch.allclose(small(inputs), whole(inputs), atol=1e-5)


def test_figures_of_weights_show_the_stored_ones(clean: Path) -> None:
    runs = collect([clean / "sweep"])
    initial, moved, kept = initial_weights(runs), distance(runs), connections(runs)
    assert initial is not None
    assert moved is not None
    assert kept is not None
    dense = initial.numbers[
        (initial.numbers["layer"] == "1.weight") & (initial.numbers["level"] == 0)
    ]
    width = np.diff(dense["value"].sort_values()).mean()
    assert dense["mean"].sum() * width == pytest.approx(1, abs=0.01)  # a distribution
    assert set(moved.numbers["fate"]) == {"stays", "goes"}
    assert (moved.numbers["mean"] > 0).all()
    counts = kept.numbers.groupby(["layer", "side", "level"])["mean"].sum()
    levels = runs.levels[runs.levels["arm"] == "winning ticket"].set_index("level")
    for level in (0, 3):
        survivors = levels.loc[level, "density/1.weight"] * 384
        for side in ("incoming", "outgoing"):
            assert counts.get(("1.weight", side, level), survivors) == pytest.approx(survivors)


def test_without_the_store_there_are_no_figures_of_weights(clean: Path, tmp_path: Path) -> None:
    shutil.copytree(clean / "sweep", tmp_path / "sweep")
    runs = collect([tmp_path])
    for draw in WEIGHT_FIGURES.values():
        with pytest.raises(
            Lacking, match=r"it needs winning tickets whose weights are in the store"
        ):
            draw(runs)
