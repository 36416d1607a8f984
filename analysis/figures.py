"""The paper's figures, one function each: tidy rows in, Figure out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.collect import ARMS, in_order, in_words, repetitions

STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "axes.titlesize": "medium",
    "font.size": 10,
    "savefig.dpi": 160,
}
DENSITY_TICKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
NARROW_TICKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of a run that has not yet reached 50 %."""
CURVE_DENSITIES = (1.0, 0.513, 0.211, 0.070, 0.036, 0.019)
"""Those of the paper's figure 3."""
NEAR = 0.15
"""How far from one of them, relatively, a level's density may be to be drawn for it."""
MOST_ACROSS = 4
"""Panels in a row of curves."""
LEGEND_WIDTH = 130
"""Characters that fit below the three panels of a density figure."""
AXIS_DEPTH = 0.05
"""How far below the dense network's accuracy an axis goes: 5 points, as in the paper."""

PANELS = {
    "early_stop_iteration": "Early-stop iteration",
    "early_stop_test_accuracy": "Test accuracy at early stop",
    "final_test_accuracy": "Test accuracy at the end",
}


def density_figure(levels: pd.DataFrame, title: str) -> Figure:
    """Early-stop iteration and test accuracy against density (figures 1 and 4): arms by colour,
    rates by line and marker, mean with a band from minimum to maximum over the repetitions.

    `levels`: rows of one experiment, as `collect` gives them.
    """
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (column, label) in zip(axes, PANELS.items(), strict=True):
        sns.lineplot(
            levels,
            x="density",
            y=column,
            hue="arm",
            hue_order=in_order(set(levels["arm"])),
            palette=_colours(levels),
            style="rate",
            markers=True,
            errorbar=("pi", 100),
            err_kws={"alpha": 0.18},
            markersize=5,
            ax=axis,
        )
        _mark_incomplete(axis, levels, column)
        axis.set(xlabel="Density (log scale)", ylabel=label)
        _density_axis(axis, levels)
        if column != "early_stop_iteration":
            _accuracy_axis(axis, levels.loc[levels["level"] == 0, column].mean(), levels[column])
    _one_legend(figure, axes, levels)
    figure.suptitle(title)
    return figure


def curves_figure(metrics: pd.DataFrame, title: str) -> Figure:
    """Test accuracy against iteration at chosen densities (figure 3): a panel for each arm and
    rate, those of a rate next to each other."""
    chosen = _in_all_runs(_at_densities(metrics))
    arms, rates = in_order(set(chosen["arm"])), _rates(chosen)
    across = min(len(arms), MOST_ACROSS)
    down = len(rates) * -(-len(arms) // across)
    figure = Figure(figsize=(4.6 * across + 1.6, 3.4 * down + 0.8), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for rate, rows in zip(rates, np.split(panels, len(rates)), strict=True):
        of_rate = chosen[chosen["rate"] == rate]
        shown = of_rate.drop_duplicates("shown").sort_values("density", ascending=False)
        own = in_order(set(of_rate["arm"]))
        for axis in rows.flat[len(own) :]:
            axis.remove()
        for place, (axis, arm) in enumerate(zip(rows.flat, own, strict=False)):
            _draw_curves(axis, of_rate[of_rate["arm"] == arm], shown)
            axis.set(title=f"{arm}\n{rate} per level", xlabel="Iteration", ylabel="Test accuracy")
            axis.tick_params(labelbottom=True)
            if place != min(across, len(own)) - 1:  # one legend a rate, whose arms share densities
                axis.get_legend().remove()
    dense = chosen[chosen["level"] == 0]
    last = dense.loc[dense["iteration"] == dense["iteration"].max(), "test_accuracy"].mean()
    _accuracy_axis(panels[0][0], last, chosen["test_accuracy"])
    figure.suptitle(title)
    caption = _caption(chosen.drop_duplicates(["run", "level"]))
    figure.supxlabel(caption, fontsize="small", color="0.35")
    return figure


def _in_all_runs(metrics: pd.DataFrame) -> pd.DataFrame:
    """The points of curves at which every run of the arm, rate and level was tested."""
    tested = metrics.dropna(subset="test_accuracy")
    level = ["arm", "rate", "level"]
    runs = tested.groupby(level)["run"].transform("nunique")
    there = tested.groupby([*level, "iteration"])["run"].transform("nunique")
    return tested[there == runs]


def _draw_curves(axis: Axes, rows: pd.DataFrame, shown: pd.DataFrame) -> None:
    """The curves of one arm and rate; `shown`: a row for each entry of the legend."""
    palette = sns.color_palette("viridis", len(CURVE_DENSITIES))
    sns.lineplot(
        rows,
        x="iteration",
        y="test_accuracy",
        hue="shown",
        hue_order=list(shown["shown"]),
        palette={
            name: palette[place] for name, place in zip(shown["shown"], shown["place"], strict=True)
        },
        errorbar=("pi", 100),
        err_kws={"alpha": 0.12},
        ax=axis,
    )
    axis.margins(x=0.01)
    axis.legend(title="Density", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _rates(rows: pd.DataFrame) -> list[str]:
    return sorted(set(rows["rate"]), key=lambda rate: (float(rate.split()[0].strip(",")), rate))


def _at_densities(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of the levels nearest to CURVE_DENSITIES, on the ladder of each arm and rate, with
    `place`, which of them it is, and `shown`, how a legend has it."""
    parts = []
    for _, rows in metrics.groupby(["arm", "rate"], sort=False):
        ladder = rows["density"].drop_duplicates()
        for place, wanted in enumerate(CURVE_DENSITIES):
            distance = (ladder / wanted - 1).abs()
            if distance.min() < NEAR:
                nearest = rows[rows["density"] == ladder[distance.idxmin()]]
                parts.append(nearest.assign(place=place))
    picked = pd.concat(parts)
    return picked.assign(shown=picked["density"].map(lambda density: f"{100 * density:.1f} %"))


def _colours(rows: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Of the arms in their order; a known arm has the same colour in every figure, as long
    as ten distinct ones are enough."""
    arms = in_order({*ARMS, *rows["arm"]})
    palette = "colorblind" if len(arms) <= 10 else "husl"
    return dict(zip(arms, sns.color_palette(palette, len(arms)), strict=True))


def _mark_incomplete(axis: Axes, levels: pd.DataFrame, column: str) -> None:
    """A ring around each mean over fewer repetitions than the arm's others."""
    colours, counts = _colours(levels), repetitions(levels)
    for row in counts[counts["n"] < counts["most"]].itertuples():
        here = levels[["arm", "rate", "level"]].eq([row.arm, row.rate, row.level]).all(axis=1)
        density, mean = levels.loc[here, ["density", column]].mean()
        axis.scatter(density, mean, s=90, facecolors="none", edgecolors=colours[row.arm])


def _density_axis(axis: Axes, levels: pd.DataFrame) -> None:
    """Logarithmic, from 100 % on the left, as in the paper."""
    axis.set_xscale("log")
    axis.set_xlim(1.12, levels["density"].min() / 1.12)
    narrow = levels["density"].min() > NARROW_TICKS[-1]
    axis.xaxis.set_major_locator(FixedLocator(NARROW_TICKS if narrow else DENSITY_TICKS))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_percent))


def _percent(share: float, _: object) -> str:
    return f"{round(100 * share, 6):g}%"


def _accuracy_axis(axis: Axes, dense: float, values: "pd.Series[float]") -> None:
    lowest = max(values.min(), dense - AXIS_DEPTH)
    room = 0.08 * max(values.max() - lowest, 0.002)
    axis.set_ylim(lowest - room, min(values.max() + room, 1.0 + room))
    axis.yaxis.set_major_formatter(FuncFormatter(_percent))


def _one_legend(figure: Figure, axes: Sequence[Axes], levels: pd.DataFrame) -> None:
    """One for all panels, below them; rates are named where there is more than one."""
    handles, labels = axes[0].get_legend_handles_labels()
    for axis in axes:
        axis.legend().remove()
    named = set(levels["arm"]) | (set(levels["rate"]) if levels["rate"].nunique() > 1 else set())
    shown = [
        (handle, label) for handle, label in zip(handles, labels, strict=True) if label in named
    ]
    columns = min(len(shown), LEGEND_WIDTH // (8 + max(len(label) for _, label in shown)))
    rows = -(-len(shown) // columns)
    figure.set_figheight(figure.get_figheight() + 0.22 * (rows - 1))
    legend = figure.legend(
        *zip(*shown, strict=True), loc="outside lower center", ncols=columns, frameon=False
    )
    legend.set_title(_caption(levels))


def _caption(rows: pd.DataFrame) -> str:
    """What the lines are and how many repetitions stand behind them."""
    counts = repetitions(rows)
    spread = "" if counts["n"].max() == 1 else "mean and range from minimum to maximum, "
    rings = "; rings: fewer than the arm's most" if (counts["n"] < counts["most"]).any() else ""
    return f"{spread}{in_words(counts)}{rings}"
