"""The rules that compute the numbers of claims, intervals and verdicts."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.measured import RULES, _end, sample
from analysis.paper import Claim, paper_claims
from analysis.verdicts import judge
from analysis.winners import winners

DENSITIES = (1.0, 0.5, 0.2, 0.1)


def rows(arm: str, stops: list[list[float]], accuracies: list[list[float]]) -> pd.DataFrame:
    """Return the rows of one arm, from early stops and accuracies of levels 0 to 3 of each seed."""
    return pd.DataFrame(
        {
            "experiment": "LeNet", "arm": arm, "rate": "20 %", "seed": seed, "level": level,
            "density": DENSITIES[level], "weights_remaining": 1000 * DENSITIES[level],
            "early_stop_iteration": stop, "early_stop_test_accuracy": accuracy,
            "final_test_accuracy": accuracy + 0.01,
            "final_train_accuracy": 1.0 if level < 2 else 0.9,
            "model": "lenet_300_100", "training.iterations": 50_000, "censored": False,
        }
        for seed, (of_stops, of_accuracies) in enumerate(zip(stops, accuracies, strict=True))
        for level, (stop, accuracy) in enumerate(zip(of_stops, of_accuracies, strict=True))
    )  # fmt: skip


TICKETS = rows(
    "winning ticket",
    [[1000, 400, 500, 1500], [1200, 600, 600, 1800], [1400, 1000, 700, 2100]],
    [[0.96, 0.97, 0.98, 0.95], [0.97, 0.98, 0.99, 0.96], [0.98, 0.99, 1.0, 0.97]],
)
REINITS = rows(
    "random reinit",
    [[1000, 800, 1000, 3000], [1200, 1200, 1200, 3600], [1400, 2000, 1400, 4200]],
    [[0.96, 0.96, 0.95, 0.90], [0.97, 0.97, 0.96, 0.91], [0.98, 0.98, 0.97, 0.92]],
)
RANDOM = rows(
    "random mask",
    [[dense, 1000, 1000, 1000] for dense in (1000, 1200, 1400)],
    [[dense, 0.95, 0.94, 0.89] for dense in (0.96, 0.97, 0.98)],
)
"""Level 0 is the same training for all arms of a seed."""
ALL = pd.concat([TICKETS, REINITS, RANDOM])


def claim(rule: str, **changes: Any) -> Claim:  # noqa: ANN401 - fields of a claim
    """Return a claim at 50 % or, with `depth`, about runs down to that density."""
    usual = Claim(
        "id", "lenet", "", rule, "winning ticket", None, 50.0, None, "=", 1.0, "", "", "", 0
    )
    at_a_place = "depth" not in changes
    return usual._replace(density=50.0 if at_a_place else None)._replace(**changes)


@pytest.mark.parametrize(("found", "expected"), [
    (claim("earlier"), 100 * (1 - 2000 / 3600)),
    (claim("speedup"), 3600 / 2000),
    (claim("slower_than_ticket", arm="random reinit"), 4000 / 2000),
    (claim("gain"), 1.0),
    (claim("below_ticket", arm="random reinit", density=20.0), 3.0),
    (claim("mean_below_ticket", arm="random reinit", depth=10), (3 + 5) / 2),
    (claim("mean_below_ticket", arm="random mask", depth=10), (4 + 6 + 5 + 7 + 6 + 8) / 6),
    (claim("above_random_mask", arm="random reinit", depth=10), 2.0),
    (claim("best_gain", depth=10), 2.0),
    (claim("best_final_gain", depth=10), 2.0),
    (claim("final_accuracy", level=0), 98.0),
    (claim("earlier_until", depth=10), 20.0),
    (claim("earlier_from", depth=10), 50.0),
    (claim("better_until", depth=10), 20.0),
    (claim("better_until", arm="random reinit", depth=10), 50.0),
    (claim("better_from", depth=10), 50.0),
    (claim("worse_from", depth=10), 10.0),
    (claim("worse_from", arm="random reinit", depth=10), 20.0),
    (claim("weights_better_until", depth=10), 200.0),
    (claim("final_better_until", depth=10), 20.0),
    (claim("final_within_1_until", depth=10), 10.0),
    (claim("fully_trained_until", depth=10), 50.0),
    (claim("weights", arm="", density=None), 1000.0),
    (claim("density", level=2), 20.0),
    (claim("setting:training.iterations", arm="", density=None), 50_000.0),
], ids=lambda found: getattr(found, "rule", ""))  # fmt: skip
def test_rules_on_numbers_that_are_easy_to_check(found: Claim, expected: float) -> None:
    assert judge("", sample(ALL), found).measured == pytest.approx(expected)


def test_one_level_that_fails_by_chance_does_not_end_a_ladder() -> None:
    assert [_end(np.array(holds, bool)) for holds in (
        [1, 1, 0, 1, 0, 0, 1], [1, 0, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1], [1],
    )] == [3, 4, 1, 0, 2, 0]  # fmt: skip


def test_one_level_that_holds_by_chance_begins_nothing() -> None:
    assert [_end(np.array(holds, bool)) for holds in (
        [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1],
    )] == [0, 5, 7, 0]  # fmt: skip


def test_both_estimators_of_a_ratio() -> None:
    verdict = judge("", sample(ALL), claim("earlier", value=44, unit="%"))
    assert verdict.measured == pytest.approx(44.44, abs=0.01)
    assert verdict.mean_of_ratios == pytest.approx(100 * (1 - (0.4 + 0.5 + 1000 / 1400) / 3))
    assert verdict.low == pytest.approx(100 * (1 - 1000 / 1400))  # all three the last seed
    assert verdict.high == pytest.approx(60)
    assert verdict.n == 3


IN_PERCENT = {"unit": "% density", "density": None}


@pytest.mark.parametrize(("found", "verdict", "why"), [
    (claim("earlier", value=44), "reproduced", "not excluded"),
    (claim("earlier", value=61), "not reproduced", "below"),
    (claim("earlier", value=60.4, digits=0), "reproduced", "not excluded"),  # 60, as printed
    (claim("earlier", value=60.4, digits=1), "not reproduced", "below"),
    (claim("earlier", value=28.0, digits=1), "not reproduced", "above"),
    (claim("gain", value=0.3, bound=">=", digits=1), "reproduced", "not excluded"),
    (claim("gain", value=2.0, bound=">=", digits=1), "not reproduced", "below"),
    (claim("better_until", value=30, bound="<=", **IN_PERCENT), "reproduced", ""),
    (claim("better_until", value=3, **IN_PERCENT), "not enough data", "no level near 3 %"),
    (claim("better_until", value=3, bound="<=", **IN_PERCENT), "not enough data", "end at 10 %"),
    (claim("better_until", value=10.2, **IN_PERCENT), "not enough data", "9.69 % are needed"),
    (claim("better_until", arm="random reinit", value=60, bound="<=", **IN_PERCENT),
     "reproduced", ""),
    (claim("above_random_mask", arm="random reinit", depth=10, value=0, bound=">"),
     "reproduced", ""),
    (claim("above_random_mask", arm="winning ticket", depth=10, value=9, bound=">"),
     "not reproduced", ""),
    (claim("earlier", density=1.2), "not enough data", "no level near 1.2 %"),
    (claim("earlier", arm="one-shot"), "not enough data", "no runs of the arm one-shot"),
    (claim("weights", arm="", value=1000), "reproduced", ""),
    (claim("weights", arm="", value=1001), "not reproduced", "below"),
    (claim("dense_gain:conv2", arm=""), "not enough data", "no runs of conv2"),
    (claim("untestable:no_such_arm"), "not enough data", "no such arm"),
])  # fmt: skip
def test_verdicts_and_their_reasons(found: Claim, verdict: str, why: str) -> None:
    judgement = judge("", sample(ALL), found)
    assert (judgement.verdict, why in judgement.why) == (verdict, True), judgement


def test_two_seeds_are_not_enough() -> None:
    few = sample(ALL[ALL["seed"] < 2])
    assert judge("", few, claim("gain", value=1)).why == "n = 2 seeds; 3 are the fewest"


def test_an_interval_with_the_claim_and_with_no_effect_says_nothing() -> None:
    noisy = rows(
        "winning ticket", [[100] * 4] * 3,
        [[0.9, 0.88, 0.9, 0.9], [0.9, 0.93, 0.9, 0.9], [0.9, 0.92, 0.9, 0.9]],
    )  # fmt: skip
    found = judge("", sample(noisy), claim("gain", value=1.0))
    assert found.verdict == "not enough data"
    assert "no effect" in found.why


def test_seeds_are_paired_and_draws_of_one_are_averaged() -> None:
    drawn = REINITS.assign(early_stop_test_accuracy=REINITS["early_stop_test_accuracy"] - 0.02)
    both = sample(pd.concat([TICKETS, REINITS, drawn[drawn["level"] > 0]]))
    found = judge("", both, claim("below_ticket", arm="random reinit", value=2.0))
    assert found.measured == pytest.approx(2.0)
    assert found.n == 3
    missing = sample(pd.concat([TICKETS, REINITS[REINITS["seed"] != 1]]))
    found = judge("", missing, claim("below_ticket", arm="random reinit", value=1.0))
    assert found.measured == pytest.approx(1.0)
    assert found.n == 2


def test_seeds_without_what_a_claim_needs_do_not_count() -> None:
    short = TICKETS[(TICKETS["seed"] < 1) | (TICKETS["level"] < 2)]
    found = judge("", sample(short), claim("gain", density=20.0))
    assert (found.n, found.verdict) == (1, "not enough data")
    one = pd.concat([TICKETS[TICKETS["seed"] == 0], REINITS])
    assert judge("", sample(one), claim("below_ticket", arm="random reinit")).n == 1


def test_other_networks_are_paired_by_seed() -> None:
    other = TICKETS.assign(
        early_stop_test_accuracy=TICKETS["early_stop_test_accuracy"] - 0.02 * (1 + TICKETS["seed"])
    )
    against = claim("dense_gain:conv2", arm="", value=4.0)
    found = judge("", sample(TICKETS), against, {"conv2": [sample(other)]})
    assert (found.measured, found.n) == (pytest.approx(4.0), 3)  # type: ignore[comparison-overlap]
    apart = judge("", sample(TICKETS), against, {"conv2": [sample(other.assign(seed=9))]})
    assert apart.why == "no seed that conv2 has as well"
    several = judge("", sample(TICKETS), against, {"conv2": [sample(other), sample(TICKETS)]})
    assert several.why == "several experiments of conv2 to compare with"


def test_noise_around_the_dense_network_reproduces_nothing() -> None:
    accuracies = [[0.95, 0.94, 0.94, 0.94], [0.95, 0.94, 0.97, 0.94], [0.95, 0.96, 0.93, 0.94]]
    noise = sample(rows("winning ticket", [[1000] * 4] * 3, accuracies))
    for rule in ("better_until", "worse_from", "best_gain"):
        found = judge("", noise, claim(rule, value=20, unit="% density", density=None, depth=10))
        assert found.verdict != "reproduced", found


@pytest.mark.parametrize("rule", ["best_gain", "better_from", "earlier_from"])
def test_the_best_or_first_of_many_levels_is_not_there_by_noise(rule: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(5):
        accuracies = 0.97 + 0.002 * random.standard_normal((5, 4))
        stops = 1000 + 300 * random.standard_normal((5, 4))
        noise = sample(rows("winning ticket", stops.tolist(), accuracies.tolist()))
        value = 0.2 if rule == "best_gain" else 50
        found = judge("", noise, claim(rule, value=value, digits=1, density=None, depth=10))
        assert found.verdict != "reproduced", found


def test_a_level_that_gains_in_all_seeds_is_the_best_of_them() -> None:
    accuracies = [[0.96, 0.961, 0.97, 0.95], [0.95, 0.949, 0.961, 0.94], [0.97, 0.972, 0.981, 0.96]]
    found = judge("", sample(rows("winning ticket", [[1000] * 4] * 3, accuracies)),
                  claim("best_gain", value=1.1, digits=1, density=None, depth=10))  # fmt: skip
    assert found.measured == pytest.approx(3.2 / 3)
    assert found.verdict == "reproduced"


def test_a_density_near_the_papers_is_the_papers() -> None:
    found = judge("", sample(TICKETS), claim("earlier_until", value=20.9, **IN_PERCENT))
    assert found.measured == pytest.approx(20)
    assert found.verdict == "reproduced"


def test_every_claim_of_the_paper_has_a_rule() -> None:
    claims = paper_claims()
    assert len({found.id for found in claims}) == len(claims) > 80
    assert {found.name for found in claims} == {*RULES, "untestable"}


def test_a_level_wins_that_is_as_accurate_in_no_more_iterations() -> None:
    found = winners(ALL).set_index(["arm", "level"])["wins"]
    assert found["winning ticket"].tolist() == [True, True, False]
    assert found["random reinit"].tolist() == [False, False, False]
    lenient = winners(ALL, epsilon=0.01).set_index(["arm", "level"])["wins"]
    assert lenient["random reinit"].tolist() == [False, True, False]
