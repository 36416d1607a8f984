"""The rules that compute the numbers of claims, intervals and verdicts."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.claims import with_effects
from analysis.crossings import end
from analysis.paper import Claim, paper_claims
from analysis.rules import RULES
from analysis.sample import COARSE, STOP, sample
from analysis.verdicts import _listed, judge
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
    [[1000, 400, 500, 1500], [1200, 600, 600, 1800], [1400, 1000, 710, 2100]],
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
        "id", "lenet", "", rule, "winning ticket", None, 50.0, None, "=", 1.0, "", "", "", 5, 0
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
    assert [end(np.array(holds, bool)) for holds in (
        [1, 1, 0, 1, 0, 0, 1], [1, 0, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1], [1],
    )] == [3, 4, 1, 0, 2, 0]  # fmt: skip


def test_one_level_that_holds_by_chance_begins_nothing() -> None:
    assert [end(np.array(holds, bool)) for holds in (
        [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 1, 0, 1], [1, 0, 0, 1],
    )] == [0, 5, 7, 0]  # fmt: skip


def test_both_estimators_of_a_ratio() -> None:
    verdict = judge("", sample(ALL), claim("earlier", value=44, unit="%"))
    assert verdict.measured == pytest.approx(44.44, abs=0.01)
    assert verdict.mean_of_ratios == pytest.approx(100 * (1 - (0.4 + 0.5 + 1000 / 1400) / 3))
    residuals = np.array([400, 600, 1000]) - 2000 / 3600 * np.array([1000, 1200, 1400])
    half = 4.302653 * residuals.std(ddof=1) / np.sqrt(3) / 12  # t of 97.5 % with 2 degrees
    assert (verdict.low, verdict.high) == pytest.approx((44.4444 - half, 44.4444 + half), abs=1e-3)
    assert verdict.n == 3


IN_PERCENT = {"unit": "% density", "density": None}
POINTS = {"unit": "points"}
STEADY = pd.concat([
    rows("winning ticket", [[1000 + more, 500, 400, 900] for more in (-20, -10, 0, 10, 20)],
         [[d, d + 0.002 + e, d + 0.001, d - 0.03] for d, e in zip(
             (0.96, 0.961, 0.962, 0.963, 0.964), (-2e-4, -1e-4, 0, 1e-4, 2e-4), strict=True)]),
])  # fmt: skip
"""Five trials that gain 0.2 points at 50 %, with little spread, 0.1 at 20 %, and lose 3 at 10 %."""


@pytest.mark.parametrize(("found", "agreement", "why"), [
    (claim("gain", value=0.25, digits=2, **POINTS), "agrees", "within 0.2"),
    (claim("gain", value=0.4, digits=1, **POINTS), "inconsistent", "below it"),
    (claim("gain", value=-0.1, digits=1, **POINTS), "inconsistent", "above it"),
    (claim("gain", value=0.1, bound=">=", digits=1), "supported", ""),
    (claim("gain", value=0.205, bound=">=", digits=3), "undecided", "trials could decide"),
    (claim("gain", value=0.249, bound=">=", digits=1), "contradicted", ""),  # no rounding
    (claim("gain", value=0, bound=">"), "supported", ""),
    (claim("earlier", value=50, unit="%"), "agrees", "within 10"),
    (claim("earlier", value=61, unit="%"), "inconsistent", "below it"),
    (claim("better_until", value=19, **IN_PERCENT), "not enough data", "no level near 19 %"),
    (claim("better_until", value=20, **IN_PERCENT), "undecided", "give 20 % or below"),
    (claim("better_until", value=3, **IN_PERCENT), "not enough data", "no level near 3 %"),
    (claim("better_until", value=3, bound="<=", **IN_PERCENT), "not enough data", "end at 10 %"),
    (claim("better_until", value=10.2, **IN_PERCENT), "not enough data", "9.69 % are needed"),
    (claim("earlier_until", value=30, bound="<=", **IN_PERCENT), "supported", "ends at"),
    (claim("fully_trained_until", value=15, bound="<=", **IN_PERCENT), "contradicted", "ends at"),
    (claim("fully_trained_until", value=60, bound="<=", **IN_PERCENT), "supported", "20 to 50 %"),
    (claim("fully_trained_until", value=30, bound="<=", **IN_PERCENT), "undecided", "20 to 50 %"),
    (claim("earlier", density=1.2), "not enough data", "no level near 1.2 %"),
    (claim("earlier", arm="one-shot"), "not enough data", "no runs of the arm one-shot"),
    (claim("weights", arm="", value=1000), "as designed", ""),
    (claim("weights", arm="", value=1001), "not as designed", "it is 1000"),
    (claim("dense_gain:conv2", arm=""), "not enough data", "no runs of conv2"),
    (claim("untestable:no_such_arm"), "not enough data", "no such arm"),
])  # fmt: skip
def test_agreements_and_their_reasons(found: Claim, agreement: str, why: str) -> None:
    judgement = judge("", sample(STEADY), found)
    assert judgement.agreement == agreement, judgement
    assert why in judgement.why if why else not judgement.why, judgement


@pytest.mark.parametrize(("bound", "agreement"), [("<=", "supported"), ("=", "undecided")])
def test_networks_as_accurate_as_the_dense_one_stay_so(bound: str, agreement: str) -> None:
    wobble = np.array([[0, 1, -1, 0], [0, -1, 1, 1], [0, 0, 0, -1], [0, 1, 0, 0], [0, -1, 0, 0]])
    same = rows("winning ticket", [[1000] * 4] * 5, (0.96 + 1e-4 * wobble).tolist())
    found = claim("better_until", value=20, bound=bound, **IN_PERCENT)
    assert judge("", sample(same), found).agreement == agreement


def test_two_seeds_are_not_enough() -> None:
    few = sample(ALL[ALL["seed"] < 2])
    assert judge("", few, claim("gain", value=1)).why == "n = 2 seeds; 3 are the fewest"


NOISY = rows(
    "winning ticket", [[100] * 4] * 3,
    [[0.9, 0.88, 0.9, 0.9], [0.9, 0.93, 0.9, 0.9], [0.9, 0.92, 0.9, 0.9]],
)  # fmt: skip


def test_what_is_undecided_says_how_many_trials_could_decide() -> None:
    found = judge("", sample(NOISY), claim("gain", value=1.0, **POINTS))
    assert found.agreement == "undecided"
    assert found.why == ("± 5.6, and a decision needs ± 0.2; the paper's 5 trials do not allow it")


def test_the_papers_number_has_a_spread_as_well() -> None:
    wide = STEADY.assign(early_stop_test_accuracy=lambda rows: rows["early_stop_test_accuracy"]
                         + 0.001 * (rows["seed"] - 2) * (rows["level"] == 1))  # fmt: skip
    value = {"value": 0.45, "digits": 2, **POINTS}
    alone = judge("", sample(wide), claim("gain", trials=0, **value))
    ours = judge("", sample(wide), claim("gain", trials=5, **value))
    assert (alone.agreement, ours.agreement) == ("inconsistent", "undecided")


@pytest.mark.parametrize(("rule", "arm", "place", "effect"), [
    ("gain", "winning ticket", 50.0, "shown"), ("gain", "winning ticket", 10.0, "not shown"),
    ("earlier", "winning ticket", 50.0, "shown"), ("final_accuracy", "winning ticket", 50.0, ""),
    ("gain", "random reinit", 20.0, "not shown"),
    ("below_ticket", "random reinit", 20.0, "shown"), ("weights", "winning ticket", 50.0, ""),
])  # fmt: skip
def test_an_effect_is_shown_in_the_claimed_direction(
    rule: str, arm: str, place: float, effect: str
) -> None:
    (found,) = with_effects([judge("", sample(ALL), claim(rule, arm=arm, density=place))])
    assert found.effect == effect, found


def test_early_stops_that_differ_in_no_trial_decide_nothing() -> None:
    """Evaluations that are far apart hide their spread."""
    level = STEADY["level"]
    equal = STEADY.assign(**{STOP: level.map({0: 1000, 1: 500, 2: 400, 3: 900})})
    found = judge("", sample(equal), claim("earlier", value=30, unit="%"))
    assert (found.measured, found.agreement, found.why) == (50, "undecided", COARSE)
    assert math.isnan(found.p)
    until = claim("earlier_until", value=30, bound="<=", **IN_PERCENT)
    assert judge("", sample(equal), until).agreement == "undecided"
    assert set(winners(equal)["not_judged"]) == {COARSE}
    assert judge("", sample(equal), claim("gain", value=0.25, **POINTS)).agreement == "agrees"


def test_many_tests_need_a_smaller_p_each() -> None:
    one = judge("", sample(STEADY), claim("gain", density=50.0))._replace(p=0.02)
    assert [found.effect for found in with_effects([one])] == ["shown"]
    several = with_effects([one, one._replace(p=0.01), one._replace(p=0.5), one])
    assert [found.p for found in several] == pytest.approx([0.06, 0.04, 0.5, 0.06])
    words = [found.effect for found in several]
    assert words == ["not shown", "shown", "not shown", "not shown"]


def test_networks_that_learnt_nothing_stop_nowhere() -> None:
    dead = TICKETS.assign(**{STOP: TICKETS[STOP].where(TICKETS["level"] != 1, 0)})
    found = judge("", sample(dead), claim("earlier", value=38, unit="%"))
    assert found.agreement == "not enough data"
    one = TICKETS.assign(
        **{STOP: TICKETS[STOP].where((TICKETS["level"] != 1) | (TICKETS["seed"] > 0), 0)}
    )
    found = judge("", sample(one), claim("earlier", value=38, unit="%"))
    assert (found.n, found.why) == (2, "n = 2 seeds; 3 are the fewest; "
                                    "seeds without the data for it: 0")  # fmt: skip


@pytest.mark.parametrize(("seeds", "words"), [
    ([], ""), ([3], "3"), ([4, 3], "3, 4"), ([0, *range(5, 20), 21, 22], "0, 5 to 19, 21, 22"),
])  # fmt: skip
def test_many_seeds_are_named_by_their_ends(seeds: list[int], words: str) -> None:
    assert _listed(seeds) == words


def test_a_missing_accuracy_drops_its_seed_and_is_named() -> None:
    lacking = STEADY.assign(early_stop_test_accuracy=lambda rows: rows[
        "early_stop_test_accuracy"].where((rows["seed"] != 3) | (rows["level"] != 1)))  # fmt: skip
    found = judge("", sample(lacking), claim("gain", value=0.2, digits=1, **POINTS))
    assert (found.n, found.agreement) == (4, "agrees")
    assert found.why.endswith("seeds without the data for it: 3")
    assert not np.isnan(found.measured)


def test_what_the_dense_network_lacks_ends_nowhere() -> None:
    few = STEADY.assign(final_train_accuracy=0.9)
    found = judge("", sample(few), claim("fully_trained_until", value=60, bound="<=", **IN_PERCENT))
    assert found.agreement == "not enough data"
    assert found.why == "the dense network does not have it either"


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
    assert (found.n, found.agreement) == (1, "not enough data")
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


@pytest.mark.parametrize("rule", ["better_until", "worse_from", "better_from", "earlier_until"])
def test_noise_around_the_dense_network_decides_nothing(rule: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(5):
        accuracies = 0.97 + 0.002 * random.standard_normal((5, 4))
        stops = 1000 + 300 * random.standard_normal((5, 4))
        noise = sample(rows("winning ticket", stops.tolist(), accuracies.tolist()))
        found = judge("", noise, claim(rule, value=20, unit="% density", density=None, depth=10))
        assert found.agreement == "undecided", found
        assert with_effects([found])[0].effect == "not shown"


def test_the_best_of_many_levels_is_chosen_by_the_other_seeds() -> None:
    accuracies = [[0.96, 0.99, 0.961, 0.95], [0.95, 0.95, 0.951, 0.94], [0.97, 0.97, 0.971, 0.96]]
    found = judge("", sample(rows("winning ticket", [[1000] * 4] * 3, accuracies)),
                  claim("best_gain", value=1.1, digits=1, density=None, depth=10))  # fmt: skip
    # seed 0 at 20 %, where the others gain 0.1; the others at 50 %, where seed 0 gains 3
    assert found.measured == pytest.approx((0.1 + 0 + 0) / 3)


def test_the_best_of_levels_is_above_the_claims_depth() -> None:
    deep = STEADY.assign(early_stop_test_accuracy=lambda rows: rows[
        "early_stop_test_accuracy"].where(rows["level"] < 3, 0.999))  # fmt: skip
    found = judge("", sample(deep), claim("best_gain", value=0.2, density=None, depth=20))
    assert found.measured == pytest.approx(0.2)


def test_crossings_are_between_what_clearly_holds_and_what_clearly_fails() -> None:
    random = np.random.default_rng(0)
    dense = 0.97 + 0.001 * random.standard_normal(10)
    noise = 0.0002 * random.standard_normal((10, 3))
    table = np.column_stack([dense, dense[:, None] + [0.003, 0.002, -0.02] + noise])
    ladder = pd.concat([
        rows("winning ticket", [[1000] * 4] * 10, table.tolist()),
        rows("winning ticket", [[1000] * 4] * 10, table.tolist()).assign(
            level=lambda r: r["level"] + 3, density=lambda r: r["density"] / 10,
            early_stop_test_accuracy=lambda r: r["early_stop_test_accuracy"] - 0.03,
        ).query("level > 3"),
    ])  # fmt: skip
    until = judge("", sample(ladder), claim("better_until", value=20, **IN_PERCENT))
    assert (until.measured, until.low, until.high) == pytest.approx((20, 10, 20))
    worse = judge("", sample(ladder), claim("worse_from", value=10, **IN_PERCENT))
    assert (worse.measured, worse.low, worse.high) == pytest.approx((10, 10, 10))
    first = judge("", sample(ladder), claim("better_from", value=50, **IN_PERCENT))
    assert (first.measured, first.low, first.high) == pytest.approx((50, 50, 100))
    assert worse.agreement == "agrees"


def test_every_claim_of_the_paper_has_a_rule() -> None:
    claims = paper_claims()
    assert len({found.id for found in claims}) == len(claims) > 80
    assert {found.name for found in claims} == {*RULES, "untestable"}
    exact = {name for name, rule in RULES.items() if rule.exact}
    assert all((found.trials == 0) == (found.name in exact) for found in claims)
