"""Grids of panels against density: a row for each experiment, a column for each quantity."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from analysis import drawing
from analysis.arms import ARMS, CONTINUED, RANDOM_REINIT
from analysis.drawing import FigureWithData
from analysis.needs import Lacking
from analysis.points import points
from analysis.sample import STOP, learnt

QUANTITIES = {
    "early_stop_iteration": "Early-stop iteration",
    "early_stop_test_accuracy": "Test accuracy at early stop",
    "early_stop_train_accuracy": "Training accuracy at early stop",
    "final_test_accuracy": "Test accuracy at the end",
    "final_train_accuracy": "Training accuracy at the end",
    "test_accuracy": "Test accuracy",
    "seconds": "Seconds of training",
    "kept": "Density of the layer (%)",
    "barrier": "Error barrier",
    "gradient_flow": "Squared norm of the gradient",
    "level_barrier": "Error barrier to the next level (points)",
    "gain": "Points above dense, at early stop",
    "gain_at_end": "Points above dense, at the end",
    "behind": "Points behind the ticket",
    "stop": "Early stop / that of dense",
}
"""Column -> axis label."""
AXES: dict[str, Callable[[Axes], None]] = {
    "early_stop_iteration": drawing.stop_axis,
    "gain": drawing.points_axis,
    "gain_at_end": drawing.points_axis,
    "behind": drawing.points_axis,
    "stop": drawing.ratio_axis,
    "gradient_flow": lambda axis: axis.set_yscale("log"),
}
"""Column -> scale and limits of its axis, if it has its own; accuracies go down to AXIS_DEPTH."""
BEYOND = "triangles at an edge: points beyond the axis (in the CSV)"
DRAWS = "the draws of a seed share its masks"
BUDGET_LINE = "dotted: the budget of iterations"
PRINTED = "crosses: the paper's numbers"


def against_density(
    levels: pd.DataFrame,
    quantities: tuple[str, ...],
    *,
    hue: str = "arm",
    linear: bool = False,
    behind: pd.DataFrame | None = None,
    interval: bool = False,
    marks: pd.DataFrame | None = None,
    notes: Iterable[str] = (),
) -> FigureWithData:
    """Draw quantities against density: a row of panels for each experiment or, with
    hue="setting", for each network. Rows `behind` are drawn faintly in the background, `marks` as
    crosses. The caption ends with `notes`."""
    levels = learnt(levels) if STOP in levels else levels
    behind = learnt(behind) if behind is not None and STOP in behind else behind
    notes = [*notes, *([DRAWS] if has_draws(levels) else [])]
    every = levels if behind is None else pd.concat([levels, behind])
    found = {QUANTITIES[q]: points(levels, q, interval=interval) for q in quantities}
    faint = {} if behind is None else {QUANTITIES[q]: points(behind, q) for q in quantities}
    return grid(found, every, hue=hue, linear=linear, behind=faint, marks=marks, notes=notes)


def has_draws(levels: pd.DataFrame) -> bool:
    """Return whether some ticket was drawn again more than once."""
    return "rewind.draw" in levels and levels["rewind.draw"].nunique() > 1


def grid(
    found: Mapping[str, pd.DataFrame],
    levels: pd.DataFrame,
    *,
    hue: str,
    linear: bool = False,
    behind: Mapping[str, pd.DataFrame] | None = None,
    marks: pd.DataFrame | None = None,
    notes: Iterable[str] = (),
) -> FigureWithData:
    """Draw a row of panels for each experiment or network, a column for each of `found` (label ->
    rows of `analysis.points`). Arms have a colour each; with several rates, each rate of an arm.
    `marks`: what the paper prints (`analysis.printed`). Raises Lacking if there are no numbers."""
    title = "experiment" if hue == "arm" else "network"
    numbers = {label: _named(rows, levels, hue) for label, rows in found.items()}
    numbers = {
        label: rows.assign(panel=label) for label, rows in numbers.items() if rows["n"].sum()
    }
    if not numbers:
        raise Lacking("it needs levels with numbers of what it shows")
    everything = pd.concat(numbers.values())
    faint = {label: _named(rows, levels, hue) for label, rows in (behind or {}).items()}
    colour = "kind" if hue == "arm" else hue
    own = _colours(pd.concat([everything, *faint.values()]), colour)
    dash = "kind" if everything["kind"].any() else hue
    titles, outside, noted = everything[title].unique(), False, set[str]()
    square = len(titles) == 1 and len(numbers) == 4
    figure, axes = drawing.panels(2, 2) if square else drawing.panels(len(titles), len(numbers))
    for row, name in zip(axes.reshape(len(titles), -1), titles, strict=True):
        for axis, (label, of_label) in zip(row, numbers.items(), strict=True):
            here = of_label[of_label[title] == name]
            back = faint.get(label, here[:0])
            back = back[back["network"].isin(here["network"])]
            draw = partial(drawing.draw_lines, axis, x="density", colour=colour, colours=own)
            draw(back, dash="rate", faint=True)
            draw(here, dash=dash, among=everything)
            outside |= _label(axis, here, back, label, linear=linear)
            noted |= {*_lines(axis, here, levels, marks)}
        width = int(drawing.TITLE_CHARACTERS * figure.get_figwidth())
        row[0].set_title("\n".join(textwrap.wrap(name, width)), loc="left")
    notes = [*notes, *sorted(noted), *([BEYOND] if outside else [])]
    drawing.legend(figure, everything, colour=colour, own=own, dash=dash, notes=notes)
    return FigureWithData(figure, everything.drop(columns=["network", "setting", "kind"]))


def _lines(
    axis: Axes, here: pd.DataFrame, levels: pd.DataFrame, marks: pd.DataFrame | None
) -> Iterator[str]:
    """Draw the budget beside early stops, and what the paper prints. Yield the notes on them."""
    if here.empty:
        return
    quantity, shown = here["quantity"].iloc[0], {*here["experiment"]}
    if quantity == "early_stop_iteration":
        for budget in levels.loc[levels["experiment"].isin(shown), "final_iteration"].unique():
            axis.axhline(budget, color="0.4", linewidth=1, linestyle=":", gid=BUDGET_LINE)
        yield BUDGET_LINE
    if marks is not None:
        own = marks[marks["experiment"].isin(shown) & (marks["quantity"] == quantity)]
        if len(own):
            axis.scatter(
                own["density"], own["value"], 40, color="black", marker="x", zorder=5, gid=PRINTED
            )
            yield PRINTED


def _label(axis: Axes, here: pd.DataFrame, back: pd.DataFrame, label: str, *, linear: bool) -> bool:
    """Label the axes of a panel; remove a panel that has nothing to show. Its limits hold `back`,
    too. Return whether it has points beyond them."""
    if here.empty:
        axis.remove()
        return False
    shown = pd.concat([here, back.assign(low=back["mean"], high=back["mean"])])
    axis.set_ylabel(label)
    drawing.density_axis(axis, shown["density"], linear=linear)
    if "accuracy" in label:
        dense = [of.loc[of["level"] == 0, "mean"].mean() for of in (here, back) if len(of)]
        drawing.accuracy_axis(axis, pd.Series(dense).min() - drawing.AXIS_DEPTH, shown)
    AXES.get(str(here["quantity"].iloc[0]), lambda _: None)(axis)
    return drawing.mark_outside(axis)


def _named(found: pd.DataFrame, levels: pd.DataFrame, hue: str) -> pd.DataFrame:
    """Add the columns `network`; `setting`, the part of the experiment's title after the network;
    and `kind`. If `hue` is the arm, it is the arm, and the rate where one arm has several; else the
    arm and the rate where an experiment has several, or ""."""
    named = levels if "network" in levels else levels.assign(network=levels["experiment"])
    networks = named.drop_duplicates("experiment").set_index("experiment")["network"]
    network = found["experiment"].map(networks)
    pairs = zip(found["experiment"], network, strict=True)
    setting = [experiment.removeprefix(f"{of}, ") for experiment, of in pairs]
    rates = levels.groupby(["experiment", "arm"])["rate"].nunique().groupby("arm").max().to_dict()
    arms = levels.groupby("experiment")["arm"].nunique().max()
    with_arm = bool(hue == "arm" or arms > 1)
    lines = zip(found["arm"], found["rate"], strict=True)
    words = ((arm * with_arm, f"{rate} per level" * (rates[arm] > 1)) for arm, rate in lines)
    kind = [", ".join(filter(None, pair)) for pair in words]
    return found.assign(network=network, setting=setting, kind=kind)


def _colours(found: pd.DataFrame, hue: str) -> dict[str, drawing.Colour]:
    names = list(dict.fromkeys(found[hue]))
    known = set(names) <= {*ARMS, CONTINUED, RANDOM_REINIT}
    return drawing.arm_colours(names) if known else drawing.colours(names)
