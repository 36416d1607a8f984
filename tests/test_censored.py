"""Early stops at the end of the budget, where the minimum of validation loss may come later."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from rich.console import Console

from analysis import figures
from analysis.collect import collect
from analysis.paired import paired
from analysis.points import points
from analysis.report import _levels
from analysis.runs import Runs
from analysis.sample import COARSE, sample
from analysis.tables import level_tables, winner_table
from analysis.verdicts import judge
from analysis.winners import smallest_winners, winners
from tests.test_analysis import caption, write_run
from tests.test_claims import ALL, REINITS, STEADY, TICKETS, claim, rows

BUDGET = "the budget ends before the minimum of validation loss"


def read(folder: Path, *, seeds: int = 2, budget: int = 300) -> Runs:
    """Write and read tickets with early stops 100, 200 and 300."""
    for seed in range(seeds):
        run = folder / f"{seed}"
        write_run(run, seed=seed)
        table = run / "levels.csv"
        table.write_text(table.read_text().replace(",1.0,500,", f",1.0,{budget},"))
    return collect([folder])


def printed(table: object) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_an_early_stop_at_the_last_iteration_is_censored(tmp_path: Path) -> None:
    levels = read(tmp_path).levels
    assert levels.groupby("level")["censored"].unique().map(list).tolist() == [
        [False], [False], [True]
    ]  # fmt: skip
    found = points(levels, "early_stop_iteration")
    assert found["censored"].tolist() == [0, 0, 2]
    assert points(levels, "early_stop_test_accuracy")["censored"].tolist() == [0, 0, 2]
    assert points(levels, "final_test_accuracy")["censored"].tolist() == [0, 0, 0]


def test_the_table_shows_a_lower_bound_and_says_why(tmp_path: Path) -> None:
    (table,) = level_tables(read(tmp_path).levels)
    text = printed(table)
    levels = [line.split() for line in text.splitlines() if line.strip()[:1] in "012"]
    assert [cells[2] for cells in levels if cells] == ["100±0", "200±0", ">=300"]
    assert ">=: the budget ends before the minimum of validation loss" in " ".join(text.split())


def test_the_report_shows_a_lower_bound(tmp_path: Path) -> None:
    ((_, cells),) = _levels(read(tmp_path).levels)
    assert [row[3:6] for row in cells] == [
        ("100", "100", "100"), ("200", "200", "200"), (">=300", ">=300", ">=300")
    ]  # fmt: skip


def open_markers(axis: Axes) -> list[list[float]]:
    faces = [c for c in axis.collections if isinstance(c, PathCollection)]
    return [xy for c in faces for xy in np.asarray(c.get_offsets()).tolist()]


def test_the_figure_has_open_markers_and_says_what_they_are(tmp_path: Path) -> None:
    drawn = figures.figure4(read(tmp_path))
    assert drawn is not None
    stop, at_stop, at_end, _ = drawn.figure.axes
    assert open_markers(stop) == [[0.25, 300]]
    assert open_markers(at_stop) == [[0.25, pytest.approx(0.88)]]
    assert open_markers(at_end) == []
    assert f"open markers: {BUDGET}" in caption(drawn)


def test_a_figure_without_such_stops_does_not_mention_them(tmp_path: Path) -> None:
    assert "open markers" not in caption(figures.figure4(read(tmp_path, budget=500)))


def test_a_ratio_is_censored_with_either_of_its_early_stops(tmp_path: Path) -> None:
    pairs = paired(read(tmp_path).levels)
    assert points(pairs, "stop")["censored"].tolist() == [0, 2]
    levels = collect([tmp_path]).levels
    dense = paired(levels.assign(censored=levels["level"] == 0))
    assert points(dense, "stop")["censored"].tolist() == [2, 2]
    assert points(dense, "gain_at_end")["censored"].tolist() == [0, 0]


def test_a_level_with_a_censored_early_stop_is_not_judged(tmp_path: Path) -> None:
    found = winners(read(tmp_path, seeds=3).levels, epsilon=1.0)
    assert found["not_judged"].tolist() == [COARSE, BUDGET]
    assert not found["wins"].any()
    levels = ALL.assign(censored=(ALL["level"] == 3) & (ALL["seed"] == 0))
    (ticket,) = [row for row in smallest_winners(winners(levels)) if row[1] == "winning ticket"]
    assert ticket[3:] == (2, 2, "20", 3, f"1: {BUDGET}")


def test_nothing_is_judged_beside_a_censored_dense_network() -> None:
    levels = ALL.assign(censored=ALL["level"] == 0)
    assert set(winners(levels)["not_judged"]) == {BUDGET}
    assert "cannot be judged" in printed(winner_table(winners(levels), 0.001))


def test_networks_judged_at_the_end_of_training_have_no_censored_stops() -> None:
    levels = ALL.assign(censored=True, model="vgg19")
    assert set(winners(levels)["not_judged"]) == {""}


def test_one_seed_does_not_make_a_winner() -> None:
    found = winners(TICKETS[TICKETS["seed"] == 0])
    assert not found["wins"].any()
    assert set(found["not_judged"]) == {"n = 1"}
    assert winners(STEADY)["wins"].any()


@pytest.mark.parametrize(("rule", "censored", "judged"), [
    ("earlier", [1], False), ("earlier", [0], False), ("earlier", [2, 3], True),
    ("speedup", [1], False), ("gain", [1], False), ("gain", [3], True),
    ("slower_than_ticket", [1], False), ("below_ticket", [1], False),
    ("mean_below_ticket", [3], False), ("mean_below_ticket", [1], True),
    ("above_random_mask", [2], False), ("best_gain", [3], False),
    ("earlier_until", [3], False), ("earlier_from", [3], False), ("better_until", [3], False),
    ("weights_better_until", [3], False), ("worse_from", [3], False),
    ("final_accuracy", [1], True), ("final_better_until", [0, 1, 2, 3], True),
    ("best_final_gain", [3], True), ("fully_trained_until", [3], True),
    ("density", [0, 1, 2, 3], True), ("dense_gain:conv2", [0], False),
    ("dense_gain:conv2", [1], True),
])  # fmt: skip
def test_claims_about_censored_early_stops_cannot_be_judged(
    rule: str, censored: list[int], judged: bool
) -> None:
    levels = ALL.assign(censored=ALL["level"].isin(censored) & (ALL["seed"] == 0))
    depth = {} if rule.startswith(("earlier", "sp", "ga", "sl", "below", "final_a", "den")) else {
        "depth": 10
    }  # fmt: skip
    of_ladder = rule.endswith(("_until", "_from"))
    found = claim(rule, arm="random reinit", **({"depth": 10} if of_ladder else depth))
    others = {"conv2": [sample(ALL)]}
    verdict = judge("", sample(levels), found, others)
    assert (verdict.agreement == "cannot be judged") == (not judged), verdict
    assert (verdict.why == BUDGET) == (not judged)


def test_what_a_claim_does_not_read_does_not_matter() -> None:
    levels = pd.concat([TICKETS, REINITS.assign(censored=REINITS["level"] > 0)])
    assert judge("", sample(levels), claim("gain", value=1)).agreement == "agrees"
    tickets = pd.concat([TICKETS.assign(censored=TICKETS["level"] > 0), REINITS])
    compared = claim("below_ticket", arm="random reinit", value=2)
    assert judge("", sample(tickets), compared).agreement == "cannot be judged"


def test_a_sample_averages_draws_of_which_one_is_censored() -> None:
    own = rows("winning ticket", [[100] * 4] * 3, [[0.9] * 4] * 3)
    drawn = pd.concat([own, own[own["level"] > 0].assign(censored=True)])
    assert judge("", sample(drawn), claim("gain")).agreement == "cannot be judged"
