"""Differences within seeds, by hand."""

import pandas as pd
import pytest

from analysis.paired import paired
from analysis.points import points

TICKET, REINIT = "winning ticket", "random reinit"


def row(
    arm: str, seed: int, level: int, accuracy: float, stop: int, draw: int = 0
) -> dict[str, object]:
    return {
        "experiment": "e", "arm": arm, "rate": "20 %", "level": level, "seed": seed,
        "rewind.draw": draw, "density": 0.8**level, "model": "lenet", "run": f"{arm} {seed} {draw}",
        "early_stop_test_accuracy": accuracy, "final_test_accuracy": accuracy - 0.01 * level,
        "early_stop_iteration": stop, "censored": False,
    }  # fmt: skip


@pytest.fixture
def levels() -> pd.DataFrame:
    """Three seeds of very different accuracy; reinits are 1, 2 and 3 points behind."""
    rows = []
    for seed, dense in enumerate((0.5, 0.7, 0.9)):
        rows += [row(arm, seed, 0, dense, 100) for arm in (TICKET, REINIT)]
        rows.append(row(TICKET, seed, 1, dense + 0.02, 50))
        rows.append(row(REINIT, seed, 1, dense + 0.02 - 0.01 * (seed + 1), 200))
    return pd.DataFrame(rows)


def test_seeds_are_compared_with_themselves(levels: pd.DataFrame) -> None:
    pairs = paired(levels).set_index(["arm", "seed"]).sort_index()
    assert pairs.loc[TICKET, "gain"].tolist() == pytest.approx([2, 2, 2])
    assert pairs.loc[TICKET, "gain_at_end"].tolist() == pytest.approx([1, 1, 1])
    assert pairs.loc[TICKET, "stop"].tolist() == [0.5, 0.5, 0.5]
    assert pairs.loc[TICKET, "behind"].isna().all()
    assert pairs.loc[REINIT, "gain"].tolist() == pytest.approx([1, 0, -1])
    assert pairs.loc[REINIT, "behind"].tolist() == pytest.approx([1, 2, 3])
    assert set(pairs["level"]) == {1}


def test_the_interval_is_students(levels: pd.DataFrame) -> None:
    (found,) = points(paired(levels), "behind", interval=True).to_dict("records")
    half = 4.302653 / 3**0.5  # the 97.5 % quantile at two degrees of freedom; standard deviation 1
    ends = found["mean"], found["low"], found["high"]
    assert ends == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)
    assert (found["n"], found["spread"]) == (3, "95 % interval (Student's t)")


def test_two_seeds_have_no_interval(levels: pd.DataFrame) -> None:
    found = points(paired(levels[levels["seed"] < 2]), "behind", interval=True)
    assert found["mean"].tolist() == pytest.approx([1.5])
    assert found[["low", "high"]].isna().all(axis=None)


def test_draws_of_a_seed_are_one_repetition(levels: pd.DataFrame) -> None:
    more = [row(REINIT, seed, 1, 0.0, 200, draw=1) for seed in range(3)]
    pairs = paired(pd.concat([levels, pd.DataFrame(more)]))
    of_reinit = pairs[pairs["arm"] == REINIT].set_index("seed")
    assert of_reinit.loc[0, "behind"] == pytest.approx(100 * (0.52 - 0.51 / 2))
    assert of_reinit.loc[0, "run"] == "random reinit 0 0;random reinit 0 1"


def test_draws_of_a_seed_are_one_trial_of_an_interval(levels: pd.DataFrame) -> None:
    far = [row(REINIT, seed, 1, 0.9, 200, draw) for seed in range(3) for draw in (1, 2)]
    found = points(pd.concat([levels, pd.DataFrame(far)]), "final_test_accuracy", interval=True)
    of_reinit = found[(found["arm"] == REINIT) & (found["level"] == 1)]
    assert of_reinit["n"].tolist() == [3]
    ranges = points(pd.concat([levels, pd.DataFrame(far)]), "final_test_accuracy")
    assert ranges[(ranges["arm"] == REINIT) & (ranges["level"] == 1)]["n"].tolist() == [9]


def test_a_ticket_of_another_density_is_not_compared(levels: pd.DataFrame) -> None:
    moved = levels["density"].where(levels["arm"] == TICKET, 0.9 * levels["density"])
    pairs = paired(levels.assign(density=moved))
    assert pairs["behind"].isna().all()
    assert pairs["gain"].notna().all()


def test_models_without_early_stop_are_compared_at_the_end(levels: pd.DataFrame) -> None:
    at_end = levels.assign(final_test_accuracy=0.25 + 0.125 * levels["level"])
    assert set(paired(at_end.assign(model="vgg19"))["gain"]) == {12.5}


def test_a_dense_network_that_learnt_nothing_has_no_ratio(levels: pd.DataFrame) -> None:
    assert paired(levels.assign(early_stop_iteration=0))["stop"].isna().all()
    nor_ticket = levels["early_stop_iteration"].where(levels["level"] == 0, 0)
    assert paired(levels.assign(early_stop_iteration=nor_ticket))["stop"].isna().all()


def test_a_network_that_stops_where_its_fine_tuning_starts_has_no_ratio(
    levels: pd.DataFrame,
) -> None:
    tuned = levels.assign(**{"rewind.kind": "finetune", "rewind.survivors": "rewind"})
    stops = tuned["early_stop_iteration"].where(tuned["level"] == 0, 0)
    found = paired(tuned.assign(early_stop_iteration=stops, **{"rewind.iteration": 0}))
    assert found["stop"].isna().all()
    assert found["stop_ticket"].eq(0).all()


def test_without_a_ticket_nothing_is_behind_it(levels: pd.DataFrame) -> None:
    pairs = paired(levels[levels["arm"] == REINIT])
    assert pairs["behind"].isna().all()
    assert pairs["gain"].notna().all()
