"""Networks that use a layer, or its weights, more than once: pruned for all uses, counted once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from lth.experiment import lottery
from lth.models import fresh, prunable, state
from lth.ticket import Ticket
from lth.training.eager import evaluate
from lth.training.seeds import generator
from tests.conftest import Composer, engine_on
from tests.test_verify_steps import Thrice, own
from tests.trainings import DATA, SHAPE, random_mask, recipe, task_of, trained


def one_layer_thrice() -> nn.Module:
    return fresh(lambda: Thrice(SHAPE, 4), generator(0, "init"))


def one_matrix_twice() -> nn.Module:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)
    )
    network[3].weight = network[1].weight
    return network


SHARING = [one_layer_thrice, one_matrix_twice]


@pytest.mark.parametrize("make", SHARING)
def test_a_shared_tensor_is_counted_once(make: Callable[[], nn.Module]) -> None:
    network = make()
    assert list(prunable(network).values()) == ["linear", "output"]
    assert len(state(network)) == len(list(network.parameters()))


@pytest.mark.parametrize("make", SHARING)
def test_pruned_weights_are_zero_in_every_use(make: Callable[[], nn.Module]) -> None:
    network = make()
    mask = random_mask(network, 0.4)
    end = trained(task_of(recipe(), network=network, mask=mask))
    for name, kept in mask.items():
        assert not network.get_parameter(name)[~kept].any()
        assert not end.network.state()[name][~kept].any()
    assert evaluate(network, DATA.validation) == end.curve[-1][3:5]


@pytest.mark.parametrize("make", SHARING)
def test_a_ticket_prunes_every_use(make: Callable[[], nn.Module]) -> None:
    network = make()
    mask = random_mask(network, 0.4)
    ticket = Ticket(state(network), mask, {}, {"pruned": "zero"})
    model = ticket.put_into(make())
    assert all(not model.get_parameter(name)[~kept].any() for name, kept in mask.items())


def test_stored_weights_give_the_last_point_of_the_curve(
    composed: Composer, tmp_path: Path
) -> None:
    engine = engine_on(tmp_path / "store")
    build = engine.maker.build
    last = [training for _, training in lottery.levels(composed(*own(Thrice)))][-1]
    ((_, outcome),) = engine.ensure([last])
    final = load(engine.store.read(last, "final.safetensors"))
    kept = build.stored_mask(last)["1.weight"]
    assert torch.equal(final["1.weight"] != 0, kept)
    model = build.model(last)
    model.load_state_dict({f"{n}.{k}": final[f"{1 if n < 7 else 7}.{k}"]
                           for n in (1, 3, 5, 7) for k in ("weight", "bias")})  # fmt: skip
    assert evaluate(model, build.data(last.recipe).validation) == outcome.curve[-1][3:5]
