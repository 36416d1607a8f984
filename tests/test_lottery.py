"""The experiment as a description: who shares what with whom."""

from lth import lottery
from lth.graph import Dense, Fresh, Pruned, Training
from lth.spec import Spec
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
