"""The experiment as a description: which trainings a run has, and what runs share."""

import pytest

from lth.experiment import lottery
from lth.experiment.nodes import (
    Constant,
    Dense,
    Final,
    Fresh,
    Pruned,
    Shuffled,
    Signed,
    Snapshot,
    Training,
)
from lth.experiment.settings import Spec
from lth.probes import Connectivity, LevelConnectivity
from tests.conftest import Composer


def levels(spec: Spec) -> list[Training]:
    return [training for _, training in lottery.levels(spec)]


def test_tickets_start_from_the_same_weights_under_nested_masks(composed: Composer) -> None:
    dense, *tickets = levels(composed("pruning.levels=4"))
    assert dense.mask == Dense()
    for parent, ticket in zip([dense, *tickets], tickets, strict=False):
        assert isinstance(ticket.mask, Pruned)
        assert ticket.mask.previous == parent.mask
        assert ticket.weights == dense.weights
    assert [t.mask.level for t in tickets] == [1, 2, 3, 4]


def test_reinit_has_the_tickets_masks_and_weights_of_its_own(composed: Composer) -> None:
    tickets = levels(composed("pruning.levels=3"))
    arms = levels(composed("pruning.levels=3", "rewind=reinit"))
    assert arms[0] == tickets[0]
    assert [a.mask for a in arms] == [t.mask for t in tickets]
    fresh = [a.weights for a in arms]
    assert len(set(fresh)) == 4
    assert all(isinstance(weights, Fresh) for weights in fresh)
    second = levels(composed("pruning.levels=3", "rewind=reinit", "rewind.draw=1"))
    assert not {a.weights for a in arms[1:]} & {a.weights for a in second[1:]}


def test_random_masks_need_no_training(composed: Composer) -> None:
    dense, *others = levels(composed("pruning=random", "pruning.levels=3"))
    assert dense == levels(composed())[0]
    for training in others:
        assert isinstance(training.mask, Pruned)
        assert training.mask.weights == dense.weights


def test_more_levels_extend_a_run(composed: Composer) -> None:
    short, long = levels(composed("pruning.levels=2")), levels(composed("pruning.levels=5"))
    assert long[:3] == short


def test_the_sweep_of_the_readme_has_3_plus_12_levels_trainings(composed: Composer) -> None:
    trainings = {
        training
        for rate in (10, 20)
        for seed in (0, 1, 2)
        for rewind in ("init", "reinit")
        for training in levels(
            composed(f"pruning.rate={rate}", f"seed={seed}", f"rewind={rewind}", "pruning.levels=7")
        )
    }
    assert len(trainings) == 3 + 12 * 7


def test_conv_and_output_rates_have_their_defaults(composed: Composer) -> None:
    def rates(*overrides: str) -> dict[str, float]:
        mask = levels(composed("pruning.levels=1", *overrides))[1].mask
        assert isinstance(mask, Pruned)
        return mask.rule.rates

    assert rates() == {"conv": 20, "linear": 20, "output": 10, "shortcut": 0}
    assert rates("pruning.conv_rate=15") == {"conv": 15, "linear": 20, "output": 10, "shortcut": 0}
    assert rates("pruning.rate=30", "pruning.output_rate=5") == {
        "conv": 30,
        "linear": 30,
        "output": 5,
        "shortcut": 0,
    }


def test_late_rewinding_returns_to_iteration_k_and_continues_from_there(composed: Composer) -> None:
    dense, *tickets = levels(composed("rewind=late", "rewind.iteration=50", "pruning.levels=3"))
    assert dense == levels(composed())[0]
    for parent, ticket in zip([dense, *tickets], tickets, strict=False):
        assert ticket.weights == Snapshot(dense, 50)
        assert ticket.start == 50
        assert isinstance(ticket.mask, Pruned)
        assert ticket.mask.weights == Final(parent)
        assert ticket.recipe == dense.recipe


def test_late_rewinding_to_the_start_is_the_winning_ticket(composed: Composer) -> None:
    late = levels(composed("rewind=late", "rewind.iteration=0", "pruning.levels=2"))
    assert late == levels(composed("pruning.levels=2"))


def test_learning_rate_rewinding_keeps_the_weights(composed: Composer) -> None:
    dense, *tickets = levels(composed("rewind=lr", "rewind.iteration=50", "pruning.levels=3"))
    for parent, ticket in zip([dense, *tickets], tickets, strict=False):
        assert ticket.weights == Final(parent)
        assert (ticket.start, ticket.recipe) == (50, dense.recipe)


def test_fine_tuning_keeps_the_weights_at_the_last_rate(composed: Composer) -> None:
    schedule = ("optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[300,500]")
    dense, *tickets = levels(
        composed("rewind=finetune", "pruning.levels=2", "optimizer.lr=0.5", *schedule)
    )
    for parent, ticket in zip([dense, *tickets], tickets, strict=False):
        assert ticket.weights == Final(parent)
        assert ticket.recipe.optimizer.schedule.kind == "constant"
        assert abs(ticket.recipe.optimizer.options["lr"] - 0.005) < 1e-12


def test_new_weights_train_the_whole_schedule_whatever_the_lineage(composed: Composer) -> None:
    at = ("rewind=finetune", "rewind.iteration=5", "pruning.levels=1", "rewind.survivors=reinit")
    arm = levels(composed(*at, "optimizer.schedule.warmup=7"))[1]
    assert arm.recipe == levels(composed("optimizer.schedule.warmup=7"))[0].recipe
    assert arm.start == 0


def test_continued_training_prunes_continued_weights_and_reports_reset_ones(
    composed: Composer,
) -> None:
    dense, *tickets = levels(composed("rewind=continue", "pruning.levels=3"))
    assert [ticket.weights for ticket in tickets] == [dense.weights] * 3
    first, second, _ = tickets
    assert first == levels(composed())[1]  # nothing has continued before the first pruning
    assert isinstance(second.mask, Pruned)
    assert isinstance(second.mask.weights, Final)
    continued = second.mask.weights.of
    assert continued.weights == Final(dense)
    assert continued.mask == first.mask


def test_one_shot_prunes_the_dense_network_at_every_level(composed: Composer) -> None:
    dense, *tickets = levels(composed("pruning=one_shot", "pruning.levels=3"))
    for times, ticket in enumerate(tickets, start=1):
        assert isinstance(ticket.mask, Pruned)
        assert (ticket.mask.weights, ticket.mask.previous) == (Final(dense), Dense())
        assert ticket.mask.rule.times == ticket.mask.level == times
        assert ticket.weights == dense.weights
    first = levels(composed("pruning.levels=1"))[1]
    assert tickets[0] == first  # one level at one go


def test_controls_have_the_tickets_mask_and_values_of_their_own(composed: Composer) -> None:
    for kind, start in (("init", 0), ("late", 5)):
        at = [f"rewind={kind}", f"rewind.iteration={start}", "pruning.levels=2"]
        ticket = levels(composed(*at))[2]
        arms = {
            name: levels(composed(*at, f"rewind.survivors={name}"))[2]
            for name in ("reinit", "reinit_sign", "constant_sign")
        }
        assert {arm.mask for arm in arms.values()} == {ticket.mask}
        fresh = arms["reinit"].weights
        assert arms["reinit_sign"].weights == Signed(fresh, ticket.weights)
        assert arms["constant_sign"].weights == Signed(Constant(ticket.weights), ticket.weights)


def test_frozen_and_shuffled_are_of_the_same_lineage(composed: Composer) -> None:
    ticket = levels(composed("pruning.levels=2"))[2]
    shuffled = levels(composed("pruning.levels=2", "rewind=shuffled"))[2]
    assert isinstance(shuffled.mask, Shuffled)
    assert shuffled.mask.mask == ticket.mask
    assert (shuffled.weights, shuffled.mask.level) == (ticket.weights, 2)
    frozen = levels(composed("pruning.levels=2", "rewind=frozen"))
    assert (frozen[2].mask, frozen[2].weights) == (ticket.mask, ticket.weights)
    assert frozen[0] == levels(composed())[0]
    assert (frozen[2].pruned, ticket.pruned) == ("frozen", "zero")


TRANSFER = ("dataset=mnist_5_to_9", "source=mnist_0_to_4", "pruning.levels=2")


def test_transferred_tickets_have_the_masks_of_the_other_recipe(composed: Composer) -> None:
    found = levels(composed("dataset=mnist_0_to_4", "pruning.levels=2"))
    own = levels(composed("dataset=mnist_5_to_9", "pruning.levels=2"))
    moved = levels(composed(*TRANSFER))
    assert moved[0] == own[0]
    assert [ticket.mask for ticket in moved] == [ticket.mask for ticket in found]
    assert all(ticket.recipe == own[0].recipe for ticket in moved)
    assert [ticket.weights for ticket in moved] == [own[0].weights] * 3
    control = levels(composed(*TRANSFER, "rewind=reinit"))
    assert [ticket.mask for ticket in control] == [ticket.mask for ticket in found]


@pytest.mark.parametrize("weights", ["own", "source"])
def test_transferred_tickets_rewind_late_to_their_own_weights_or_the_sources(
    composed: Composer, weights: str
) -> None:
    late = ("rewind=late", "rewind.iteration=7", f"source.weights={weights}")
    dense, *tickets = levels(composed(*TRANSFER, *late))
    found = levels(composed("dataset=mnist_0_to_4", "pruning.levels=2", *late[:2]))
    of = dense if weights == "own" else found[0]
    assert {ticket.weights for ticket in tickets} == {Snapshot(of, 7)}
    assert [ticket.mask for ticket in tickets] == [ticket.mask for ticket in found[1:]]
    assert {ticket.start for ticket in tickets} == {7}


@pytest.mark.parametrize(("pruning", "times"), [
    ("magnitude", [1, 2, 3]), ("one_shot", [1, 2, 2]), ("random", [1, 1, 1]),
])  # fmt: skip
def test_longer_training_has_the_iterations_of_the_lineage(
    composed: Composer, pruning: str, times: list[int]
) -> None:
    steps = ("optimizer.schedule.kind=multistep", "optimizer.schedule.milestones=[300,500]")
    words = (f"pruning={pruning}", "pruning.levels=2", "training.iterations=600", *steps)
    short = levels(composed(*words, "rewind=reinit"))
    long = levels(composed(*words, "rewind=reinit_long"))
    assert [arm.recipe.training.iterations for arm in long] == [600 * n for n in times]
    milestones = [arm.recipe.optimizer.schedule.milestones for arm in long]
    assert milestones == [(300 * n, 500 * n) for n in times]
    assert [(arm.mask, arm.weights) for arm in long] == [(arm.mask, arm.weights) for arm in short]
    assert [one == other for one, other in zip(long, short, strict=True)] == [n == 1 for n in times]


def test_one_stream_has_the_levels_and_then_what_the_probe_measures(composed: Composer) -> None:
    plain = composed("pruning.levels=2")
    assert list(lottery.nodes(plain)) == list(lottery.levels(plain))
    probed = composed("pruning.levels=2", "probe=level_connectivity")
    (*trainings, first, second) = lottery.nodes(probed)
    assert trainings == list(lottery.levels(plain))
    dense, one, two = levels(plain)
    assert first == (0, LevelConnectivity(dense, one, 30))
    assert second == (1, LevelConnectivity(one, two, 30))
    both = [node for _, node in lottery.nodes(composed("pruning.levels=2", "probe=connectivity"))]
    assert [type(node) for node in both] == [Training] * 3 + [Connectivity] * 3
