"""The figures of the paper and others: each function draws what the runs support, or raises
Lacking, which says what they lack.

Rows of panels are experiments, columns are quantities.
"""

import math
from collections.abc import Callable, Set

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis import drawing
from analysis.arms import (
    CONTINUED,
    ONE_SHOT,
    ONE_SHOT_REINIT,
    RANDOM,
    RANDOM_REINIT,
    REINIT,
    TICKET,
)
from analysis.densities import at_densities, density_colours
from analysis.drawing import FigureWithData
from analysis.grid import QUANTITIES, against_density, grid
from analysis.needs import Lacking, needed, some, with_all_arms
from analysis.paired import paired
from analysis.points import LINE, points
from analysis.printed import printed
from analysis.probe_figures import (
    connectivity,
    cost,
    gradient_flow,
    level_connectivity,
    mask_distance,
    stability,
)
from analysis.runs import Runs
from analysis.source_figures import data_share

LENET, CONV = {"lenet_300_100"}, {"conv2", "conv4", "conv6"}
VGG, RESNET = {"vgg11", "vgg13", "vgg16", "vgg19"}, {"resnet18", "resnet20", "resnet32", "resnet56"}
STOP, AT_STOP, TRAIN_AT_STOP = (
    "early_stop_iteration", "early_stop_test_accuracy", "early_stop_train_accuracy"
)  # fmt: skip
AT_END, TRAIN_AT_END = "final_test_accuracy", "final_train_accuracy"

LENET_ITERATIONS = 15_000
"""The last iteration that figure 3 shows of LeNet."""
SPARSE_FROM = 0.7
"""Highest density of sparse steps: `lth.training.sparse.DENSEST`, whose import would need torch."""
SPARSE = (
    "on a CPU, fully connected networks train with sparse steps at densities up to "
    f"{drawing.percent(SPARSE_FROM)}, and the first such training of a process includes the time "
    "to load them"
)
SAME_LINE = 0.03
"""Largest relative distance between the densities of layers that are drawn as one line."""


def figure1(runs: Runs) -> FigureWithData:
    """Winning tickets against randomly sampled sparse networks: early stop, accuracy there."""
    both = _with_arms(runs.levels, {TICKET, RANDOM})
    return against_density(both, (STOP, AT_STOP))


def figure3(runs: Runs) -> FigureWithData:
    """Test accuracy against iteration at six densities: one panel for each arm and rate."""
    levels = _of_arms(runs.levels, {TICKET, REINIT})
    short = set(levels.loc[levels["model"].isin(LENET), "experiment"])
    metrics = runs.curves(at_densities(levels))
    shown = _in_all_runs(metrics, "experiment")  # at other iterations only some runs were tested
    found = points(shown, "test_accuracy", "iteration")
    ends = found["experiment"].isin(short).map({True: LENET_ITERATIONS, False: math.inf})
    drawn = found[found["iteration"] <= ends]
    rows = list(drawn.groupby(["experiment", "rate"], sort=False))
    figure, axes = drawing.panels(len(rows), found["arm"].nunique(), width=4.6)
    for row, ((experiment, rate), of_row) in zip(axes, rows, strict=True):
        arms = list(of_row.groupby("arm", sort=False))
        for axis in row[len(arms) :]:
            axis.remove()
        for axis, (arm, of_arm) in zip(row, arms, strict=False):
            _draw_curves(axis, of_arm, of_row)
            drawing.title(axis, f"{experiment}\n{arm}, {rate} per level")
    later = f"iterations after {LENET_ITERATIONS:,} are not shown"
    fewer = "other levels are not shown"
    notes = ["starts of curves lie beyond the axes", *([later] if len(drawn) < len(found) else [])]
    notes += [fewer] * (
        len(found.groupby([*LINE, "level"])) < len(levels.groupby([*LINE, "level"]))
    )
    drawing.caption(figure, found, notes)
    return FigureWithData(figure, found)


def figure4(runs: Runs) -> FigureWithData:
    """LeNet: early stop, accuracies there and at the end; iterative and one-shot, with reinits."""
    lenet = _of_models(runs.levels, LENET)
    return against_density(
        _of_arms(lenet, {TICKET, REINIT, ONE_SHOT, ONE_SHOT_REINIT}),
        (STOP, AT_STOP, AT_END, TRAIN_AT_STOP),
    )


def figure4c(runs: Runs) -> FigureWithData:
    """LeNet: one-shot pruning alone, on a linear axis."""
    one_shot = _of_arms(_of_models(runs.levels, LENET), {ONE_SHOT, ONE_SHOT_REINIT})
    return against_density(one_shot, (STOP, AT_STOP), linear=True)


def figure5(runs: Runs) -> FigureWithData:
    """Conv-2, 4 and 6: early stop, accuracies there and at the end; iterative pruning."""
    conv = _of_models(runs.levels, CONV)
    without = some(conv[~_has_dropout(conv)], "runs without dropout, and all of these have it")
    return against_density(
        _of_arms(without, {TICKET, REINIT}),
        (STOP, AT_STOP, TRAIN_AT_STOP, AT_END),
    )


def figure6(runs: Runs) -> FigureWithData:
    """Conv-2, 4 and 6 with dropout; the same arms without it, faint."""
    conv = _of_arms(_of_models(runs.levels, CONV), {TICKET, REINIT})
    dropout = _has_dropout(conv)
    shown = some(conv[dropout], "runs with dropout (preset=conv2_dropout), and there are none")
    behind = conv[~dropout & conv["arm"].isin(shown["arm"])]
    quantities = (STOP, AT_STOP, TRAIN_AT_STOP, AT_END)
    notes = ["faint: without dropout"] if len(behind) else []
    return against_density(shown, quantities, behind=behind, notes=notes)


def figure7(runs: Runs) -> FigureWithData:
    """VGG-19: test accuracy at iterations 30,000, 60,000 and the last, by learning rate."""
    return _during_training(runs, VGG, (30_000 / 112_480, 60_000 / 112_480, 1.0))


def figure8(runs: Runs) -> FigureWithData:
    """ResNet-18: test accuracy at iterations 10,000, 20,000 and the last, by learning rate."""
    return _during_training(runs, RESNET, (1 / 3, 2 / 3, 1.0))


def figure9(runs: Runs) -> FigureWithData:
    """Resetting the weights against continued training (figures 9 and 10)."""
    return against_density(_with_arms(runs.levels, {TICKET, CONTINUED}), (STOP, AT_STOP))


def figure12(runs: Runs) -> FigureWithData:
    """Training accuracy at the end (figures 12 and 13)."""
    usual = {TICKET, REINIT, ONE_SHOT, ONE_SHOT_REINIT}
    return against_density(_of_arms(runs.levels, usual), (TRAIN_AT_END,))


def figure14(runs: Runs) -> FigureWithData:
    """Random reinitialisation against random sparsity."""
    arms = {TICKET, REINIT, RANDOM, RANDOM_REINIT}
    return against_density(
        _with_arms(runs.levels, arms, at_least={REINIT, RANDOM}), (STOP, AT_STOP)
    )


def settings(runs: Runs) -> FigureWithData:
    """Winning tickets of one network under several settings (appendix G)."""
    tickets = _of_arms(runs.levels, {TICKET})
    several = tickets.groupby("network")["experiment"].transform("nunique") > 1
    shown = some(tickets[several], "winning tickets of one network under several settings")
    return against_density(shown, (STOP, AT_STOP, AT_END), hue="setting")


def arms(runs: Runs) -> FigureWithData:
    """All arms of every experiment that has other arms than those of figures 4 and 5."""
    model, arm = runs.levels["model"], runs.levels["arm"]
    figure4 = model.isin(LENET) & arm.isin({TICKET, REINIT, ONE_SHOT, ONE_SHOT_REINIT})
    figure5 = model.isin(CONV) & arm.isin({TICKET, REINIT})
    others = set(runs.levels.loc[~(figure4 | figure5), "experiment"])
    chosen = runs.levels[runs.levels["experiment"].isin(others)]
    some(chosen, "arms or models that figures 4 and 5 do not show")
    return against_density(chosen, (STOP, AT_STOP, AT_END))


def layers(runs: Runs) -> FigureWithData:
    """Density of each layer of the winning tickets at each level."""
    tickets = _of_arms(runs.levels, {TICKET})
    columns = [name for name in tickets.columns if str(name).startswith("density/")]
    rows = tickets.melt([*LINE, "level", "density", "run"], columns, "layer", "kept")
    rows = some(rows.dropna(subset=["kept"]), "densities of layers")
    rows["layer"] = rows["layer"].str.removeprefix("density/")
    found = points(rows, "kept", "layer")
    lines = list(found.groupby(["experiment", "rate"], sort=False))
    figure, axes = drawing.panels(-(-len(lines) // 3), min(len(lines), 3), width=4.6)
    for axis in axes.flat[len(lines) :]:
        axis.remove()
    for axis, ((experiment, rate), of_line) in zip(axes.flat, lines, strict=False):
        shown = one_line_each(of_line, [*rows["layer"].unique()])
        own = drawing.colours([*shown["layer"].unique()])
        few = len(own) <= drawing.SIDE_ENTRIES
        drawing.draw_lines(
            axis, shown, "level", colour="layer", colours=own, dash="layer", marked=few
        )
        axis.set(yscale="log", xlabel="Level", ylabel=QUANTITIES["kept"])
        drawing.title(axis, f"{experiment}\n{rate} per level")
        drawing.density_ticks(axis.yaxis, of_line["mean"].min())
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        styles = drawing.line_styles(shown, "layer") if few else {}
        drawing.side_legend(axis, own, "Layer", styles)
    drawing.caption(figure, found)
    return FigureWithData(figure, found)


def differences(runs: Runs) -> FigureWithData:
    """Differences within a seed: each arm against the dense network and the winning ticket."""
    pairs = some(paired(runs.levels), "levels beyond level 0")
    quantities = ("gain", "gain_at_end", "behind", "stop")
    marks, notes = printed(runs), ["ratios: geometric mean, and interval of the logarithm"]
    return against_density(pairs, quantities, interval=True, marks=marks, notes=notes)


def time(runs: Runs) -> FigureWithData:
    """Seconds of one training at each density."""
    notes = [SPARSE] if runs.levels["density"].min() <= SPARSE_FROM else []
    return against_density(runs.levels, ("seconds",), notes=notes)


FIGURES: dict[str, Callable[[Runs], FigureWithData]] = {
    function.__name__: function
    for function in (figure1, figure3, figure4, figure4c, figure5, figure6, figure7, figure8,
                     figure9, figure12, figure14, settings, arms, differences, layers,
                     connectivity, stability, level_connectivity, mask_distance,
                     gradient_flow, cost, data_share, time)
}  # fmt: skip
"""Name -> function: the paper's figures in its order, then others."""
PAGES = dict.fromkeys(FIGURES, "experiment") | dict.fromkeys(
    ("figure6", "figure7", "figure8", "settings"), "network"
)
"""Name -> what has a page of its own. Figures of one network compare its experiments."""


def pages(
    name: str, draw: Callable[[Runs], FigureWithData], runs: Runs
) -> list[tuple[str, FigureWithData]]:
    """Return each page that the runs support: NAME, NAME-2, and so on, with its figure. Figures
    that are not in PAGES have one page. Raises Lacking if there is none."""
    drawn, why = [], Lacking("it needs runs")
    for part in runs.pages(PAGES[name]) if name in PAGES else [runs]:
        try:
            drawn.append(draw(part))
        except Lacking as lacking:
            why = lacking
    if not drawn:
        raise why
    return [(f"{name}-{n}" if n > 1 else name, figure) for n, figure in enumerate(drawn, 1)]


def _of_models(levels: pd.DataFrame, models: Set[str]) -> pd.DataFrame:
    return needed(levels, "model", models)


def _of_arms(levels: pd.DataFrame, arms: Set[str]) -> pd.DataFrame:
    return needed(levels, "arm", arms)


def _with_arms(
    levels: pd.DataFrame, arms: Set[str], at_least: Set[str] = frozenset()
) -> pd.DataFrame:
    """Return the rows of these arms in the experiments that have all arms in `at_least` (by default
    all of these)."""
    return _of_arms(with_all_arms(levels, at_least or arms), arms)


def _has_dropout(levels: pd.DataFrame) -> "pd.Series[bool]":
    name = "model.options.dropout"
    return levels[name].fillna(0) > 0 if name in levels else pd.Series(False, levels.index)


def _in_all_runs(metrics: pd.DataFrame, *among: str) -> pd.DataFrame:
    """Return the points of curves at the iterations where all curves with the same values in the
    columns `among` were tested."""
    curve = metrics["run"] + " " + metrics["level"].astype(str)
    curves = curve.groupby([metrics[name] for name in among]).transform("nunique")
    there = [metrics[name] for name in (*among, "iteration")]
    return metrics[curve.groupby(there).transform("nunique") == curves]


def one_line_each(found: pd.DataFrame, layers: list[str]) -> pd.DataFrame:
    """Return one line for all layers with the same densities within SAME_LINE, named by them: lines
    that lie on each other would hide each other."""
    means = found.pivot(index="level", columns="layer", values="mean")
    same: dict[str, list[str]] = {}
    for layer in (name for name in layers if name in means):
        distances = {first: (means[layer] / means[first] - 1).abs().max() for first in same}
        near = (first for first, distance in distances.items() if distance < SAME_LINE)
        same.setdefault(next(near, layer), []).append(layer)
    shown = found[found["layer"].isin(same)]
    names = {first: _listed(others) for first, others in same.items()}
    shown = shown.assign(layer=pd.Categorical(shown["layer"].map(names), [*names.values()]))
    return shown.sort_values("layer", kind="stable").astype({"layer": str})


def _listed(names: list[str]) -> str:
    few = names if len(names) < 4 else [names[0], "...", f"{names[-1]} ({len(names)} layers)"]
    return ", ".join(few)


def _draw_curves(axis: Axes, found: pd.DataFrame, of_row: pd.DataFrame) -> None:
    """Draw the curves of one arm, on the accuracy scale of its row of panels."""
    own = density_colours(found["density"])
    shown = found.assign(shown=[drawing.in_percent(density) for density in found["density"]])
    drawing.draw_lines(
        axis, shown, "iteration", colour="shown", colours=own, dash="shown", marked=False
    )
    axis.set(xlabel="Iteration", ylabel=QUANTITIES["test_accuracy"])
    axis.margins(x=0.01)
    drawing.iteration_axis(axis.xaxis)
    last = of_row[of_row["iteration"] == of_row["iteration"].max()]
    dense = last.loc[last["level"] == 0, "mean"].mean()
    drawing.accuracy_axis(axis, min(last["mean"].min(), dense - drawing.AXIS_DEPTH), of_row)
    styles = {name: (dash, "") for name, (dash, _) in drawing.line_styles(shown, "shown").items()}
    drawing.side_legend(axis, own, "Density", styles)


def _during_training(runs: Runs, models: Set[str], fractions: tuple[float, ...]) -> FigureWithData:
    """Draw test accuracy at fractions of the budget: for each line, at the last iteration before
    each fraction at which all its runs were tested."""
    levels = _of_arms(_of_models(runs.levels, models), {TICKET, REINIT})
    tested = _in_all_runs(runs.curves(levels), *LINE, "level").sort_values("iteration")
    found = {}
    for fraction in fractions:
        before = tested[tested["iteration"] <= (fraction * tested["final_iteration"]).round()]
        last = before.groupby([*LINE, "level", "run"], as_index=False).tail(1)
        at = ", ".join(f"{iteration:,}" for iteration in sorted(last["iteration"].unique()))
        found[f"Test accuracy at iteration {at}"] = points(last, "test_accuracy")
    return grid(found, levels, hue="setting")
