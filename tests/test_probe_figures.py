"""Barriers on lines between networks, from hand-written tables."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis import probe_figures
from analysis.collect import collect
from analysis.needs import Lacking
from lth.store.files import checksum
from tests.test_analysis import numbers, write_csv, write_run

CONNECTIVITY = ("level", "density", "iteration", "fraction", "test_loss", "test_accuracy")
DISTANCES = ("level", "density", "iteration", "other", "distance")
FLOW = ("level", "density", "iteration", "gradient_flow", "train_loss")
COST = ("level", "density", "flops", "speed_up")
LEVELS = ("level", "density", "fraction", "test_loss", "test_accuracy")


def write_probe(run: Path, name: str, columns: tuple[str, ...], rows: list[list[float]]) -> None:
    write_csv(run / f"{name}.csv", columns, rows)
    status = json.loads((run / "run.json").read_text())
    status["tables"] = {f"{name}.csv": checksum((run / f"{name}.csv").read_bytes())}
    (run / "run.json").write_text(json.dumps(status))


def test_barriers_are_the_highest_error_less_the_mean_of_the_ends(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    line = [(1.0, 0.8), (0.0, 0.9), (0.5, 0.6)]
    rows = [[1, 0.5, 100, fraction, 0.3, accuracy] for fraction, accuracy in line]
    write_probe(tmp_path / "0", "connectivity", CONNECTIVITY, rows)
    found = numbers(probe_figures.connectivity(collect([tmp_path])))
    assert found["mean"].tolist() == pytest.approx([0.4 - 0.15])
    assert found.index.get_level_values("arm") == ["winning ticket, branched at iteration 100"]


def test_stability_is_the_barrier_against_the_iteration_at_which_copies_part(
    tmp_path: Path,
) -> None:
    for number, (iteration, middle) in enumerate([(0, 0.6), (100, 0.85)]):
        run = tmp_path / f"{number}"
        write_run(run, seed=0)
        rows = [[level, density, iteration, fraction, 0.3, accuracy]
                for level, density in ((0, 1.0), (1, 0.5))
                for fraction, accuracy in ((0.0, 0.9), (0.5, middle), (1.0, 0.9))]  # fmt: skip
        write_probe(run, "connectivity", CONNECTIVITY, rows)
    drawn = probe_figures.stability(collect([tmp_path]))
    assert drawn is not None
    found = drawn.numbers.set_index(["level", "iteration"])["mean"]
    assert found.to_dict() == pytest.approx(
        {(0, 0): 0.3, (0, 100): 0.05, (1, 0): 0.3, (1, 100): 0.05}
    )


def test_one_iteration_is_no_figure_of_stability(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    rows = [[0, 1.0, 0, fraction, 0.3, 0.9] for fraction in (0.0, 0.5, 1.0)]
    write_probe(tmp_path / "0", "connectivity", CONNECTIVITY, rows)
    with pytest.raises(Lacking, match=r"several iterations: probe\.iteration=0,100"):
        probe_figures.stability(collect([tmp_path]))


def test_a_mask_has_settled_when_it_is_near_all_masks_of_its_window(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    changes = [0.5, 0.3, 0.2, 0.08, 0.02, 0.02, 0.02, 0.01]  # from each mask to the next
    places = [sum(changes[:n]) for n in range(len(changes) + 1)]
    rows = [[0, 1.0, 10 * i, 10 * j, abs(one - other)]
            for i, one in enumerate(places) for j, other in enumerate(places)]  # fmt: skip
    write_probe(tmp_path / "0", "mask_distance", DISTANCES, rows)
    drawn = probe_figures.mask_distance(collect([tmp_path]))
    assert drawn is not None
    assert drawn.numbers["mean"].max() == pytest.approx(sum(changes))
    assert set(drawn.numbers["n"]) == {1}
    table = pd.DataFrame(rows, columns=DISTANCES)
    assert probe_figures.settled_at(table) == 80  # 0.07 from the mask of 40
    assert probe_figures.settled_at(table[table["iteration"] < 80].query("other < 80")) is None


def test_barriers_between_levels_are_points_with_means_and_ranges_over_seeds(
    tmp_path: Path,
) -> None:
    for seed, (first, second) in enumerate([(0.7, 0.8), (0.5, 0.9)]):
        write_run(tmp_path / f"{seed}", seed=seed)
        rows = [
            [level, density, fraction, loss + fraction, accuracy]
            for level, density, middle, loss in ((0, 1.0, first, 0.1), (1, 0.5, second, 0.2))
            for fraction, accuracy in ((0.0, 0.9), (0.5, middle), (1.0, 0.8))
        ]
        write_probe(tmp_path / f"{seed}", "level_connectivity", LEVELS, rows)
    found = numbers(probe_figures.level_connectivity(collect([tmp_path])))
    found = found.loc[("level_barrier", "winning ticket")]
    assert found.index.tolist() == [0, 1]
    assert found["density"].tolist() == [1.0, 0.5]
    # seed 0: errors 10, 30, 20 and 10, 20, 20 %; seed 1: 10, 50, 20 and 10, 10, 20 %
    assert found["low"].tolist() == pytest.approx([15, 5])
    assert found["high"].tolist() == pytest.approx([35, 5])
    assert found["mean"].tolist() == pytest.approx([25, 5])
    assert found["n"].tolist() == [2, 2]


def test_a_line_that_was_probed_twice_counts_once_and_whole(tmp_path: Path) -> None:
    for number, fractions in enumerate([(0.0, 0.5, 1.0), (0.0, 0.25, 0.75, 1.0)]):
        write_run(tmp_path / f"{number}", seed=0, started=float(number))
        rows = [[1, 0.5, 100, at, 0.3, 0.9 if at in (0.0, 1.0) else 0.8] for at in fractions]
        write_probe(tmp_path / f"{number}", "connectivity", CONNECTIVITY, rows)
    found = numbers(probe_figures.connectivity(collect([tmp_path])))
    assert found["n"].tolist() == [1]
    assert found["mean"].tolist() == pytest.approx([0.1])


def test_of_a_probe_that_was_measured_twice_the_newest_counts(tmp_path: Path) -> None:
    for number, flow in enumerate((1.0, 1.001)):
        run = tmp_path / f"{number}"
        write_run(run, seed=0, started=float(number))
        write_probe(run, "gradient_flow", FLOW, [[1, 0.5, at, flow, 0.3] for at in (0, 10)])
    found = numbers(probe_figures.gradient_flow(collect([tmp_path])))
    assert found["n"].tolist() == [1, 1]
    assert found["mean"].tolist() == pytest.approx([1.001] * 2)


def test_gradient_flow_and_cost_show_what_was_probed(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = tmp_path / f"{seed}"
        write_run(run, seed=seed)
        rows = [[level, density, at, 10.0**-at * (1 + seed), 0.3]
                for level, density in ((0, 1.0), (1, 0.5)) for at in (0, 1)]  # fmt: skip
        write_probe(run, "gradient_flow", FLOW, rows)
    found = numbers(probe_figures.gradient_flow(collect([tmp_path])))
    assert found.loc[("gradient_flow", "winning ticket, iteration 0"), "mean"].tolist() == [1.5] * 2
    assert found.loc[("gradient_flow", "winning ticket, iteration 1"), "mean"].tolist() == (
        pytest.approx([0.15] * 2)
    )
    for seed in (0, 1):
        rows = [[0, 1.0, 100.0, 1.0], [1, 0.5, 40.0 + 20 * seed, 2.0]]
        write_probe(tmp_path / f"{seed}", "flops", COST, rows)
    drawn = probe_figures.cost(collect([tmp_path]))
    assert drawn is not None
    assert {*drawn.numbers["flops"]} == {100.0, 50.0}
    assert {*drawn.numbers["n"]} == {2}


def test_draws_that_report_the_same_line_are_one_repetition(tmp_path: Path) -> None:
    for draw in range(3):
        run = tmp_path / f"{draw}"
        write_run(run, seed=0, kind="reinit", settings={"rewind.draw": draw})
        rows = [
            [level, density, fraction, 0.3 + fraction + draw * level, 0.9 - 0.1 * draw * fraction]
            for level, density in ((0, 1.0), (1, 0.5))
            for fraction in (0.0, 0.5, 1.0)
        ]
        write_probe(run, "level_connectivity", LEVELS, rows)
    found = numbers(probe_figures.level_connectivity(collect([tmp_path])))
    assert found["n"].tolist() == [1, 3]


def test_runs_without_probes_have_no_such_figures(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    runs = collect([tmp_path])
    for draw in (probe_figures.connectivity, probe_figures.level_connectivity):
        with pytest.raises(Lacking):
            draw(runs)


def test_a_table_without_the_columns_of_its_probe_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    write_probe(tmp_path / "0", "connectivity", ("level", "fraction"), [[0, 0.0]])
    (problem,) = collect([tmp_path]).problems
    assert "connectivity.csv has no column density, iteration, test_loss" in problem


def test_tables_of_other_probes_are_read_under_their_names(tmp_path: Path) -> None:
    for name in ("0", "again"):
        write_run(tmp_path / name, seed=0)
        write_probe(tmp_path / name, "sharpness", ("level", "largest"), [[0, 7.5], [1, 9.0]])
    found = collect([tmp_path]).probes["sharpness"]
    assert found[["arm", "level", "largest"]].to_numpy().tolist() == [
        ["winning ticket", 0, 7.5], ["winning ticket", 1, 9.0],
    ]  # fmt: skip
