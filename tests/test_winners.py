"""Which levels win, and which networks learnt nothing."""

import numpy as np
import pytest

from analysis.sample import STOP, learnt_nothing
from analysis.winners import smallest_winners, winners
from tests.test_claims import STEADY, TICKETS, rows


def test_a_level_wins_that_is_clearly_as_accurate_in_no_more_iterations() -> None:
    found = winners(STEADY).set_index("level")
    assert found["wins"].tolist() == [True, True, False]
    assert found["stop"].tolist() == pytest.approx([0.5, 0.4, 0.9])
    ((_, _, _, won, judged, smallest, *_),) = smallest_winners(winners(STEADY))
    assert (won, judged, smallest) == (2, 3, "20")


def test_a_level_does_not_win_alone_nor_by_chance() -> None:
    random = np.random.default_rng(0)
    accuracies = 0.97 + 0.002 * random.standard_normal((5, 4))
    stops = 1000 + 300 * random.standard_normal((5, 4))
    same = rows("winning ticket", stops.tolist(), accuracies.tolist())
    assert not winners(same)["wins"].any()
    alone = STEADY.assign(early_stop_test_accuracy=lambda rows: rows[
        "early_stop_test_accuracy"] - 0.02 * (rows["level"] == 2))  # fmt: skip
    assert not winners(alone)["wins"].any()


def test_a_level_that_learnt_nothing_does_not_win() -> None:
    dead = STEADY.assign(**{STOP: STEADY[STOP].where(STEADY["level"] == 0, 0)})
    assert not winners(dead)["wins"].any()


@pytest.mark.parametrize(("kind", "iteration", "stop", "nothing"), [
    ("init", 0, 0, True), ("init", 0, 100, False), ("late", 500, 500, True),
    ("late", 500, 600, False), ("lr", 0, 0, False), ("finetune", 0, 0, False),
])  # fmt: skip
def test_a_network_that_stops_where_it_starts_learnt_nothing(
    kind: str, iteration: int, stop: int, nothing: bool
) -> None:
    settings = {"rewind.kind": kind, "rewind.iteration": iteration, "rewind.survivors": "rewind"}
    levels = TICKETS.assign(**settings, **{STOP: stop})
    assert learnt_nothing(levels)[levels["level"] > 0].tolist() == [nothing] * 9
    reinits = levels.assign(**{"rewind.survivors": "reinit"})
    assert learnt_nothing(reinits).tolist() == [stop == 0] * 12
