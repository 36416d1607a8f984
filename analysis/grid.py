"""Grids of panels against density: a row for each experiment, a column for each quantity."""

from collections.abc import Mapping
from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from analysis import drawing
from analysis.arms import ARMS, CONTINUED, RANDOM_REINIT
from analysis.drawing import FigureWithData
from analysis.points import points

QUANTITIES = {
    "early_stop_iteration": "Early-stop iteration",
    "early_stop_test_accuracy": "Test accuracy at early stop",
    "early_stop_train_accuracy": "Training accuracy at early stop",
    "final_test_accuracy": "Test accuracy at the end",
    "final_train_accuracy": "Training accuracy at the end",
    "test_accuracy": "Test accuracy",
    "seconds": "Seconds of training",
    "kept": "Density of the layer",
    "barrier": "Error barrier",
    "level_barrier": "Error barrier to the next level (points)",
    "gain": "Points above dense, at early stop",
    "gain_at_end": "Points above dense, at the end",
    "behind": "Points behind the ticket",
    "stop": "Early stop / that of dense",
}
"""Column -> axis label."""


def against_density(
    levels: pd.DataFrame,
    quantities: tuple[str, ...],
    *,
    hue: str = "arm",
    linear: bool = False,
    behind: pd.DataFrame | None = None,
    interval: bool = False,
) -> FigureWithData | None:
    """Draw quantities against density: a row of panels for each experiment or, with
    hue="setting", for each network. Rows `behind` are drawn faintly in the background."""
    if levels.empty:
        return None
    found = {QUANTITIES[q]: points(levels, q, interval=interval) for q in quantities}
    faint = (
        {}
        if behind is None
        else {QUANTITIES[q]: _named(points(behind, q), behind) for q in quantities}
    )
    return grid(found, levels, hue=hue, linear=linear, behind=faint)


def grid(
    found: Mapping[str, pd.DataFrame],
    levels: pd.DataFrame,
    *,
    hue: str,
    linear: bool = False,
    behind: Mapping[str, pd.DataFrame] | None = None,
) -> FigureWithData | None:
    """Draw a row of panels for each experiment or network, a column for each of `found` (label ->
    rows of `analysis.points`)."""
    title = "experiment" if hue == "arm" else "network"
    numbers = {label: _named(rows, levels, hue) for label, rows in found.items()}
    numbers = {
        label: rows.assign(panel=label) for label, rows in numbers.items() if rows["n"].sum()
    }
    if not numbers:
        return None
    everything = pd.concat(numbers.values())
    own, dash = _colours(everything, hue), "kind" if everything["kind"].any() else hue
    titles = everything[title].unique()
    square = len(titles) == 1 and len(numbers) == 4
    figure, axes = drawing.panels(2, 2) if square else drawing.panels(len(titles), len(numbers))
    for row, name in zip(axes.reshape(len(titles), -1), titles, strict=True):
        for axis, (label, of_label) in zip(row, numbers.items(), strict=True):
            here = of_label[of_label[title] == name]
            back = behind[label] if behind else here[:0]
            back = back[back["network"].isin(here["network"])]
            draw = partial(drawing.draw_lines, axis, x="density", colour=hue, colours=own)
            draw(back, dash="rate", faint=True)
            draw(here, dash=dash, among=everything)
            _label(axis, here, label, linear=linear)
        row[0].set_title(name, loc="left")
    drawing.legend(figure, everything, colour=hue, own=own, dash=dash)
    return FigureWithData(figure, everything.drop(columns=["network", "setting", "kind"]))


def _label(axis: Axes, here: pd.DataFrame, label: str, *, linear: bool) -> None:
    """Label the axes of a panel; remove a panel that has nothing to show."""
    if here.empty:
        axis.remove()
        return
    axis.set_ylabel(label)
    drawing.density_axis(axis, here["density"], linear=linear)
    if "accuracy" in label:
        drawing.accuracy_axis(axis, here.loc[here["level"] == 0, "mean"].mean(), here)


def _named(found: pd.DataFrame, levels: pd.DataFrame, hue: str = "arm") -> pd.DataFrame:
    """Add the columns `network`; `setting`, the part of the experiment's title after the network;
    and `kind`, the arm and the rate where an experiment has several beside `hue`."""
    named = levels if "network" in levels else levels.assign(network=levels["experiment"])
    networks = named.drop_duplicates("experiment").set_index("experiment")["network"]
    network = found["experiment"].map(networks)
    pairs = zip(found["experiment"], network, strict=True)
    setting = [experiment.removeprefix(f"{of}, ") for experiment, of in pairs]
    others = [name for name in ("arm", "rate") if name != hue]
    lines = ["experiment", "arm"] if hue == "arm" else ["experiment"]
    kinds = levels.groupby(lines)[others].nunique().max()
    several = [name for name in others if kinds[name] > 1]
    kind = found[several].agg(", ".join, axis=1) if several else ""
    return found.assign(network=network, setting=setting, kind=kind)


def _colours(found: pd.DataFrame, hue: str) -> dict[str, drawing.Colour]:
    names = list(dict.fromkeys(found[hue]))
    known = hue == "arm" and set(names) <= {*ARMS, CONTINUED, RANDOM_REINIT}
    return drawing.arm_colours(names) if known else drawing.colours(names)
