"""Figures of several experiments and rates: pages, colours, legends, axes and captions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis import drawing, figures
from analysis.collect import collect
from analysis.drawing import FigureWithData
from analysis.grid import PRINTED
from analysis.protocol import protocol
from analysis.runs import Runs
from lth.training.sparse import DENSEST
from tests.test_analysis import analysis, caption, lines, write_run, write_sweep


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Write two experiments: networks on different datasets."""
    for number, dataset in enumerate(("digits", "mnist")):
        groups = {"model": "lenet_300_100", "dataset": dataset}
        name = {"dataset.loader.name": dataset}
        write_run(tmp_path / f"{number}", seed=0, settings=name, groups=groups)
    return tmp_path / "out"


def legend(drawn: FigureWithData | None) -> dict[str, str]:
    """Return the entries of the legend with their colours."""
    assert drawn is not None
    (found,) = drawn.figure.legends
    colours = [to_hex(line.get_color()) for line in found.get_lines()]
    return dict(zip((text.get_text() for text in found.get_texts()), colours, strict=True))


def test_each_experiment_has_a_page_with_its_numbers(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("figures", two.parent, "--out", two, "--only", "figure4", "layers")
    assert analysis(monkeypatch, *command) == 0
    assert {file.name for file in two.iterdir()} == {
        "levels.csv", *(f"{name}{page}.{ending}" for name in ("figure4", "layers")
                        for page in ("", "-2") for ending in ("png", "csv"))
    }  # fmt: skip
    contents = [(two / f"figure4{page}.csv").read_text() for page in ("", "-2")]
    assert ["on digits" in content for content in contents] == [True, False]
    assert ["on mnist" in content for content in contents] == [False, True]


def test_the_report_shows_every_page(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = two / "report.html"
    assert analysis(monkeypatch, "report", two.parent, "--out", page) == 0
    text = page.read_text()
    assert 'id="figure4"' in text
    assert 'id="figure4-2"' in text
    assert "figure4-2: lenet_300_100 on mnist" in text


def test_settings_of_one_network_share_a_page(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        write_run(tmp_path / f"{lr}", seed=0, settings={"optimizer.options.lr": lr})
    runs = collect([tmp_path])
    assert [name for name, _ in figures.pages("settings", figures.settings, runs)] == ["settings"]
    assert [name for name, _ in figures.pages("figure4", figures.figure4, runs)] == [
        "figure4", "figure4-2"
    ]  # fmt: skip


def test_each_rate_of_an_arm_has_a_colour_and_a_name(tmp_path: Path) -> None:
    for rate in (100.0 - 1, 20.0, 5.0):
        for kind in ("init", "reinit"):
            write_run(tmp_path / f"{kind}{rate}", seed=0, rate=rate, kind=kind)
    drawn = figures.figure4(collect([tmp_path]))
    entries = legend(drawn)
    assert list(entries) == [
        f"{arm}, {rate} % per level" for arm in ("winning ticket", "random reinit")
        for rate in (5, 20, 99)
    ]  # fmt: skip
    assert len(set(entries.values())) == 6
    assert drawn is not None
    assert len(lines(drawn.figure.axes[0])) == 6


def test_layers_with_the_same_densities_are_one_line_named_by_both(tmp_path: Path) -> None:
    run = tmp_path / "0"
    write_run(run, seed=0)
    header, *rows = (run / "levels.csv").read_text().splitlines()
    added = ["1.0", "0.501", "0.2505"], ["1.0", "0.9", "0.81"]
    rows = [",".join((row, *more)) for row, *more in zip(rows, *added, strict=True)]
    (run / "levels.csv").write_text("\n".join([f"{header},density/v,density/out", *rows]))
    drawn = figures.layers(collect([tmp_path]))
    assert drawn is not None
    (axis,) = drawn.figure.axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]  # type: ignore[union-attr]
    assert names == ["w, v", "out"]
    assert len(lines(axis)) == 2
    assert set(drawn.numbers["layer"]) == {"w", "v", "out"}


def collapse(folder: Path, accuracy: str) -> None:
    """Give the deepest level of a run another accuracy."""
    table = folder / "levels.csv"
    table.write_text(table.read_text().replace("0.88,", f"{accuracy},"))


def test_a_point_beyond_an_axis_is_marked_at_its_edge_and_in_the_caption(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    assert "triangles" not in caption(figures.figure4(collect([tmp_path])))
    collapse(tmp_path / "0", "0.3")
    drawn = figures.figure4(collect([tmp_path]))
    assert "triangles at an edge: points beyond the axis (in the CSV)" in caption(drawn)
    assert drawn is not None
    axis = drawn.figure.axes[1]
    assert axis.get_ylabel() == "Test accuracy at early stop"
    (edge,) = [np.asarray(c.get_offsets()).tolist() for c in axis.collections if c.get_gid()]
    assert edge == [[0.25, pytest.approx(axis.get_ylim()[0])]]
    drawn = figures.differences(collect([tmp_path]))
    assert "triangles at an edge" in caption(drawn)


def test_curves_end_within_the_axes(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    table = tmp_path / "0" / "metrics.csv"
    table.write_text(table.read_text().replace(",0.89\n", ",0.6\n"))  # level 1 at the end
    drawn = figures.figure3(collect([tmp_path]))
    assert drawn is not None
    axis = drawn.figure.axes[0]
    assert axis.get_ylim()[0] < 0.6
    assert "beyond the axes" in drawn.figure.get_supxlabel()


@pytest.mark.parametrize("figure", ["figure3", "figure4", "figure12"])
def test_no_accuracy_axis_has_a_tick_above_100_percent(tmp_path: Path, figure: str) -> None:
    write_run(tmp_path / "0", seed=0, shift=0.1)  # 1.0, 0.99, 0.98
    drawn = figures.FIGURES[figure](collect([tmp_path]))
    assert drawn is not None
    for axis in drawn.figure.axes:
        if "accuracy" in axis.get_ylabel():
            assert max(axis.get_yticks()) <= 1
            assert len(axis.get_yticks()) > 1


def test_most_of_an_axis_of_equal_accuracies_is_below_them() -> None:
    axis = Figure().subplots()
    drawing.accuracy_axis(axis, 1.0, pd.DataFrame({"low": [1.0], "high": [1.0]}))
    bottom, top = axis.get_ylim()
    assert bottom <= 0.99 < 1 < top < 1.002


def test_the_figure_of_time_says_where_sparse_steps_begin(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    assert figures.SPARSE_FROM == DENSEST
    text = caption(figures.time(collect([tmp_path])))
    assert "sparse steps at densities up to 70 %" in text
    dense = collect([tmp_path])
    shallow = Runs(dense.levels[dense.levels["level"] < 1], {}, {}, [])
    assert "sparse" not in caption(figures.time(shallow))


def test_the_line_of_no_difference_is_within_its_axis(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)  # below the dense network at all levels
    drawn = figures.differences(collect([tmp_path]))
    assert drawn is not None
    bottom, top = drawn.figure.axes[0].get_ylim()
    assert bottom < 0 < top
    assert "triangles" not in caption(drawn)


def test_without_an_interval_the_caption_names_none(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"{seed}", seed=seed)
    assert caption(figures.differences(collect([tmp_path]))) == (
        "mean; an interval needs n >= 3, n = 2; ratios: geometric mean, and interval of the "
        "logarithm"
    )


def test_the_network_behind_a_figure_may_have_other_rates(tmp_path: Path) -> None:
    groups = {"model": "conv2", "dataset": "cifar10"}
    for number, (rate, dropout) in enumerate([(20.0, 0.5), (20.0, 0), (50.0, 0)]):
        settings = {"model.options.dropout": dropout}
        write_run(tmp_path / f"{number}", seed=0, rate=rate, groups=groups, settings=settings)
    ((name, drawn),) = figures.pages("figure6", figures.figure6, collect([tmp_path]))
    assert name == "figure6"
    assert list(legend(drawn)) == ["winning ticket, 20 % per level"]
    assert len(lines(drawn.figure.axes[0])) == 2


def test_the_axes_hold_the_lines_without_dropout_and_there_are_only_the_same_arms(
    tmp_path: Path,
) -> None:
    groups, without = {"model": "conv2", "dataset": "cifar10"}, {"model.options.dropout": 0}
    with_dropout = {"model.options.dropout": 0.5}
    write_run(tmp_path / "0", seed=0, levels=2, groups=groups, settings=with_dropout)
    write_run(tmp_path / "1", seed=0, shift=-0.2, groups=groups, settings=without)
    write_run(tmp_path / "2", seed=0, kind="reinit", groups=groups, settings=without)
    for axis in figures.figure6(collect([tmp_path])).figure.axes:
        tickets, faint = axis.get_lines()[1::-1]
        assert (len(np.asarray(tickets.get_xydata())), len(axis.collections)) == (2, 1)
        x, y = np.asarray(faint.get_xydata()).T
        assert len(x) == 3
        assert axis.get_xlim()[1] < x.min()
        assert axis.get_ylim()[0] < y.min()


def test_networks_that_learnt_nothing_have_no_early_stop_in_a_figure(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    file = tmp_path / "0/levels.csv"
    file.write_text(file.read_text().replace(",200,", ",0,"))
    drawn = figures.figure4(collect([tmp_path]))
    assert drawn is not None
    stop, at_stop, *_ = drawn.figure.axes
    (own,) = lines(stop).values()
    assert [y for _, y in own if y > 0] == [100, 300]
    assert stop.get_yscale() == "log"
    assert len(lines(at_stop)) == 1


def test_ratios_are_drawn_on_their_logarithms(tmp_path: Path) -> None:
    for seed, stop in enumerate((50, 100, 200)):
        write_run(tmp_path / f"{seed}", seed=seed)
        file = tmp_path / f"{seed}/levels.csv"
        file.write_text(file.read_text().replace(",200,", f",{stop},"))
    drawn = figures.differences(collect([tmp_path]))
    assert drawn is not None
    found = drawn.numbers[drawn.numbers["quantity"] == "stop"].set_index("level").loc[1]
    assert found["mean"] == pytest.approx(1)
    half = 4.302653 * np.log(2) / np.sqrt(3)  # t of 97.5 % with 2 degrees of freedom
    assert (found["low"], found["high"]) == pytest.approx((np.exp(-half), np.exp(half)))


def test_the_papers_numbers_are_crosses(tmp_path: Path) -> None:
    for seed in range(3):
        follows = protocol("lenet") | {"seed": seed}
        write_run(tmp_path / f"{seed}", seed=seed, preset="lenet", settings=follows)
    text = caption(figures.differences(collect([tmp_path])))
    assert "crosses: the paper's numbers" not in text  # these runs end at 25 %
    for seed in range(3):
        file = tmp_path / f"{seed}/levels.csv"
        file.write_text(file.read_text().replace("2,0.25,", "2,0.135,"))
    drawn = figures.differences(collect([tmp_path]))
    assert drawn is not None
    crosses = [
        xy for axis in drawn.figure.axes for own in axis.collections if own.get_gid() == PRINTED
        for xy in np.asarray(own.get_offsets()).tolist()
    ]  # fmt: skip
    assert crosses == [pytest.approx([0.135, 0.3]), pytest.approx([0.211, 0.62])]
    assert "crosses: the paper's numbers" in caption(drawn)


def test_a_run_that_departs_from_its_preset_has_no_crosses(tmp_path: Path) -> None:
    departs = protocol("lenet") | {"model.options.widths": [30, 10]}
    write_run(tmp_path / "0", seed=0, preset="lenet", settings=departs)
    file = tmp_path / "0/levels.csv"
    file.write_text(file.read_text().replace("2,0.25,", "2,0.135,"))
    assert "crosses: the paper's numbers" not in caption(figures.differences(collect([tmp_path])))
