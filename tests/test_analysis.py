"""From hand-written run folders to the numbers that are plotted."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from analysis import densities, figures
from analysis.__main__ import main
from analysis.collect import collect
from analysis.drawing import EDGE, FigureWithData
from analysis.grid import BUDGET_LINE
from analysis.needs import Lacking
from analysis.points import points
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS

DENSITIES = [1.0, 0.5, 0.25]


def write_run(
    folder: Path, *, seed: int, kind: str = "init", rate: float = 50.0, levels: int = 3,
    shift: float = 0.0, arm: str = "", label: str = "",
    settings: Mapping[str, Any] = MappingProxyType({}),
    **status: Any,  # noqa: ANN401 - any JSON value
) -> None:  # fmt: skip
    """Write a run with accuracies 0.9 - 0.01 x level + shift and early stops 100 x (level + 1).
    `arm`, `label`: names of the arm and the rate, by default those of `kind` and `rate`."""
    folder.mkdir(parents=True)
    identity = {
        "seed": seed, "rewind.kind": "init", "rewind.draw": 0, "rewind.iteration": 0,
        "rewind.survivors": "rewind" if kind == "init" else kind, "rewind.pruned": "zero",
        "pruning.criterion.name": "magnitude", "pruning.criterion.code": None, "pruning.at": "end",
        "pruning.mode": "iterative", "pruning.scope": "layerwise", "pruning.rounds": 1,
        "rewind.shuffle": False,
        "pruning.rate": rate, "pruning.rates": None, "pruning.conv_rate": rate,
        "pruning.linear_rate": rate, "pruning.output_rate": rate / 2, "pruning.shortcut_rate": 0,
        "optimizer.options.lr": 0.1,
    }  # fmt: skip
    content = {
        "state": "finished", "overrides": [f"seed={seed}"], "done": levels, "trained": levels,
        "groups": {"model": "lenet_300_100", "dataset": "digits"}, "preset": None,
        "arm": arm or {"init": "winning ticket", "reinit": "random reinit"}[kind],
        "rate": label or f"{rate:g} %",
        "identity": identity | dict(settings),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content | status))
    rows, points = [], []
    for level, density in enumerate(DENSITIES[:levels]):
        accuracy = 0.9 - 0.01 * level + shift
        numbers = [level, density, 1000 * density, 100 * (level + 1), 0.1, 0.9, accuracy, 1.0, 500]
        rest = [0.9, accuracy - 0.001, 1.0, 0, 1.5, False, f"{kind}-{seed}-{level}-{rate}"]
        rows.append([*numbers, *rest, density])
        points += [
            [level, density, i, 0.1, "", 1.0, 0.5, 1.0, accuracy * i / 500] for i in (0, 500)
        ]
    write_csv(folder / "levels.csv", [*LEVEL_COLUMNS, "density/w"], rows)
    write_csv(folder / "metrics.csv", METRIC_COLUMNS, points)


def write_csv(file: Path, header: Any, rows: list[list[Any]]) -> None:  # noqa: ANN401
    file.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")


def write_sweep(folder: Path) -> None:
    """Write three seeds of two arms; the last reinit run has only reached level 1."""
    for seed, shift in enumerate((0.0, 0.03, 0.09)):
        write_run(folder / f"{seed}", seed=seed, shift=shift)
        levels, state = (2, "running") if seed == 2 else (3, "finished")
        write_run(folder / f"{seed + 3}", seed=seed, kind="reinit", shift=-0.1, levels=levels,
                  state=state)  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_sweep(tmp_path)
    return tmp_path


def lines(axis: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line that has any, by colour, in descending order of x."""
    own = [line for line in axis.get_lines() if line.get_gid() != BUDGET_LINE]
    drawn = [(str(line.get_color()), np.asarray(line.get_xydata())) for line in own]
    return {
        colour: sorted(map(tuple, xy.tolist()), reverse=True) for colour, xy in drawn if len(xy)
    }


def numbers(drawn: FigureWithData | None) -> pd.DataFrame:
    """Return the numbers of a figure by quantity, arm and level."""
    assert drawn is not None
    return drawn.numbers.set_index(["quantity", "arm", "level"]).sort_index()


def test_the_numbers_are_means_and_ranges_over_seeds_with_their_runs(sweep: Path) -> None:
    found = numbers(figures.figure4(collect([sweep])))
    early = found.loc["early_stop_test_accuracy"]
    assert early.loc["winning ticket", "mean"].tolist() == pytest.approx([0.94, 0.93, 0.92])
    assert early.loc["winning ticket", "low"].tolist() == pytest.approx([0.9, 0.89, 0.88])
    assert early.loc["winning ticket", "high"].tolist() == pytest.approx([0.99, 0.98, 0.97])
    assert early.loc["random reinit", "mean"].tolist() == pytest.approx([0.8, 0.79, 0.78])
    assert early.loc["random reinit", "n"].tolist() == [3, 3, 2]
    assert early.loc["random reinit", "most"].tolist() == [3, 3, 3]
    assert early.loc[("random reinit", 2), "runs"] == f"{sweep / '3'};{sweep / '4'}"
    stop = found.loc[("early_stop_iteration", "winning ticket"), "mean"]
    assert stop.tolist() == [100, 200, 300]
    at_end = found.loc[("final_test_accuracy", "winning ticket"), "mean"]
    assert at_end.tolist() == pytest.approx([0.939, 0.929, 0.919])


def test_what_is_drawn_are_these_numbers(sweep: Path) -> None:
    drawn = figures.figure4(collect([sweep]))
    assert drawn is not None
    axis = drawn.figure.axes[1]
    ticket, reinit = lines(axis).values()
    assert ticket == [pytest.approx(p) for p in [(1.0, 0.94), (0.5, 0.93), (0.25, 0.92)]]
    assert reinit == [pytest.approx(p) for p in [(1.0, 0.8), (0.5, 0.79), (0.25, 0.78)]]
    band = axis.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == pytest.approx((0.88, 0.99))
    marks = [c for c in axis.collections if isinstance(c, PathCollection)]
    rings = [mark for mark in marks if mark.get_gid() != EDGE]
    assert [np.asarray(r.get_offsets()).tolist() for r in rings] == [[pytest.approx([0.25, 0.78])]]


def test_density_runs_from_100_percent_on_the_left_on_a_log_axis(sweep: Path) -> None:
    drawn = figures.figure4(collect([sweep]))
    assert drawn is not None
    axis = drawn.figure.axes[0]
    assert axis.get_xscale() == "log"
    left, right = axis.get_xlim()
    assert left > 1.0 > 0.25 > right
    assert axis.xaxis.get_major_formatter()(0.5, 0) == "50"
    assert axis.get_xlabel() == "Density (%, log scale)"


def caption(drawn: FigureWithData | None) -> str:
    assert drawn is not None
    return drawn.figure.legends[0].get_title().get_text().replace("\n", " ")


def test_incomplete_levels_are_named(sweep: Path) -> None:
    runs = collect([sweep])
    assert caption(figures.figure4(runs)) == (
        "mean and range from minimum to maximum (wider with more repetitions), "
        "n: random reinit 50 % 2 to 3, winning ticket 50 % 3; "
        "rings: fewer repetitions than elsewhere on the line; dotted: the budget of iterations; "
        "triangles at an edge: points beyond the axis (in the CSV)"
    )
    assert any("killed, with 2 levels so far" in problem for problem in runs.problems)


def test_the_caption_has_n_or_the_n_of_each_arm(sweep: Path) -> None:
    text = caption(figures.figure4(collect([sweep / name for name in "01234"])))
    assert "random reinit 2, winning ticket 3" in text
    assert "rings" not in text
    text = caption(figures.figure4(collect([sweep / name for name in "012"])))
    spread = "mean and range from minimum to maximum (wider with more repetitions)"
    assert text == f"{spread}, n = 3; {BUDGET_LINE}"


def test_a_level_that_is_missing_breaks_the_line(sweep: Path) -> None:
    rows = (sweep / "0" / "levels.csv").read_text().splitlines()
    (sweep / "0" / "levels.csv").write_text("\n".join([rows[0], rows[1], rows[3]]))
    runs = collect([sweep / "0", sweep / "3"])
    found = points(runs.levels, "final_test_accuracy").set_index(["arm", "level"])
    gap = found.loc[("winning ticket", 1)]
    assert (gap["n"], gap["density"]) == (0, 0.5)
    assert np.isnan(gap["mean"])


@pytest.mark.parametrize(("ladder", "chosen"), [
    ([1, 0.8, 0.51, 0.2, 0.1, 0.07, 0.05], [1, 0.51, 0.2, 0.07]),  # the paper's
    ([1, 0.9, 0.8, 0.7], [1, 0.9, 0.8, 0.7]), ([1], [1]),
    ([1 - 0.05 * level for level in range(10)], [1, 0.9, 0.8, 0.75, 0.65, 0.55]),
])  # fmt: skip
def test_curves_are_drawn_at_the_papers_densities_or_evenly(
    ladder: list[float], chosen: list[float]
) -> None:
    rows = pd.DataFrame({"level": range(len(ladder)), "density": ladder})
    drawn = densities.at_densities(rows.assign(experiment="e", arm="a", rate="r"))
    assert list(drawn["density"]) == pytest.approx(chosen)


def test_curves_have_a_legend_of_their_densities(sweep: Path) -> None:
    drawn = figures.figure3(collect([sweep]))
    assert drawn is not None
    ticket, reinit = drawn.figure.axes
    labels = [text.get_text() for text in reinit.get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["100.0 %", "50.0 %", "25.0 %"]
    ends = [points[0] for points in lines(ticket).values()]
    assert ends[:2] == [pytest.approx((500, 0.94)), pytest.approx((500, 0.93))]


def test_curves_have_the_points_at_which_every_run_was_tested(sweep: Path) -> None:
    metrics = sweep / "0" / "metrics.csv"
    text = metrics.read_text()
    assert ",0.0\n" in text  # at iteration 0
    metrics.write_text(text.replace(",0.0\n", ",\n"))
    found = numbers(figures.figure3(collect([sweep])))
    assert set(found["iteration"]) == {500}


def test_a_rate_has_panels_for_its_own_arms(sweep: Path) -> None:
    write_run(sweep / "8", seed=0, rate=20.0)
    drawn = figures.figure3(collect([sweep]))
    assert drawn is not None
    assert [axis.get_title() for axis in drawn.figure.axes] == [
        "lenet_300_100 on digits\nwinning ticket, 20 % per level",
        "lenet_300_100 on digits\nwinning ticket, 50 % per level",
        "lenet_300_100 on digits\nrandom reinit, 50 % per level",
    ]
    assert all(axis.get_lines() for axis in drawn.figure.axes)


def test_accuracy_during_training_is_read_where_all_were_tested_last(sweep: Path) -> None:
    for run in "012":
        status = sweep / run / "run.json"
        status.write_text(status.read_text().replace("lenet_300_100", "resnet18"))
    found = numbers(figures.figure8(collect([sweep / name for name in "012"])))
    assert found["panel"].unique().tolist() == [
        "Test accuracy at iteration 0", "Test accuracy at iteration 500",
    ]  # fmt: skip


def test_figures_take_the_experiments_that_have_their_arms(sweep: Path) -> None:
    with pytest.raises(Lacking):
        figures.figure1(collect([sweep]))
    random = {"pruning.criterion.name": "random", "pruning.at": "init"}
    write_run(sweep / "8", seed=0, settings=random, arm="random mask")
    found = numbers(figures.figure1(collect([sweep])))
    assert set(found.index.get_level_values("arm")) == {"winning ticket", "random mask"}


def test_rates_share_a_picture_and_other_settings_do_not(sweep: Path) -> None:
    write_run(sweep / "8", seed=0, rate=20.0)
    assert set(collect([sweep]).levels["experiment"]) == {"lenet_300_100 on digits"}
    write_run(sweep / "9", seed=0, rate=20.0, settings={"optimizer.options.lr": 0.2})
    runs = collect([sweep])
    assert set(runs.levels["experiment"]) == {
        "lenet_300_100 on digits, lr 0.1", "lenet_300_100 on digits, lr 0.2",
    }  # fmt: skip
    drawn = figures.settings(runs)
    assert drawn is not None
    assert [text.get_text() for text in drawn.figure.legends[0].get_texts()][:2] == [
        "lr 0.1", "lr 0.2"
    ]  # fmt: skip


def test_an_arm_with_a_rate_of_its_own_is_listed_by_its_name_alone(sweep: Path) -> None:
    own = {"pruning.mode": "one_shot", "pruning.rates": [5, 50]}
    write_run(sweep / "9", seed=0, settings=own, arm="one-shot", label="5, 50 %")
    drawn = figures.figure4(collect([sweep]))
    assert drawn is not None
    names = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert names == ["winning ticket", "random reinit", "one-shot"]


def analysis(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["analysis", *map(str, words)])
    return main()


def test_runs_that_repeat_others_are_counted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("0", 0), ("1", 1), ("again", 0)):
        write_run(tmp_path / "runs" / name, seed=seed)
    out = tmp_path / "out"
    words = ("figures", tmp_path / "runs", "--out", out, "--only", "time")
    assert analysis(monkeypatch, *words) == 0
    counted = f"{out}/levels.csv: 2 runs, and 1 with the same results as another\n"
    assert capsys.readouterr().out.startswith(counted)


def test_the_command_writes_a_table_and_figures_with_their_numbers(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = sweep / "figures"
    drawn = ("figure3", "figure4", "figure12", "differences", "layers", "time")
    assert analysis(monkeypatch, "figures", sweep, "--out", out, "--format", "png,svg") == 0
    assert {file.name for file in out.iterdir()} == {
        "levels.csv", *(f"{name}.{ending}" for name in drawn for ending in ("png", "svg", "csv"))
    }  # fmt: skip
    (out / "figure4-7.png").touch()
    capsys.readouterr()
    assert analysis(monkeypatch, "figures", sweep, "--out", out) == 0
    note = f"note: {out} also holds 7 files of earlier calls, e.g. differences.svg\n"
    assert capsys.readouterr().err.endswith(note)  # six as svg, and one page
    only = ("figures", sweep, "--out", sweep / "one", "--only", "figure4")
    assert analysis(monkeypatch, *only) == 0
    assert {file.name for file in (sweep / "one").iterdir()} == {
        "levels.csv", "figure4.png", "figure4.csv"
    }  # fmt: skip
    assert analysis(monkeypatch, "figures", sweep / "nowhere") == 1
    printed = capsys.readouterr()
    assert f"{sweep / 'one/figure4'}: png, csv (lenet_300_100 on digits)" in printed.out
    assert "Give folders of runs" in printed.err
