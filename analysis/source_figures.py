"""Figures of tickets that were found under another recipe than the one that trains them."""

import pandas as pd

from analysis import drawing
from analysis.densities import at_densities, density_colours
from analysis.drawing import FigureWithData
from analysis.grid import QUANTITIES
from analysis.needs import some
from analysis.points import points
from analysis.runs import Runs

TRAIN, SUBSET = "source.dataset.train", "source.dataset.subset"
QUANTITY = "final_test_accuracy"


def data_share(runs: Runs) -> FigureWithData | None:
    """Test accuracy at the end against the number of examples with which the mask was found.

    A panel for each experiment and choice of examples, a line for each of up to six densities; the
    last point of a line is the ticket found with all examples. Paul et al. 2022, "Lottery Tickets
    on a Data Diet".
    """
    levels = runs.levels
    with_less = levels[levels[TRAIN].notna()] if TRAIN in levels else levels[:0]
    less = some(with_less, "tickets found with fewer examples: source.dataset.train=5500,550")
    tickets = levels["rewind.survivors"].eq("rewind") & levels["level"].gt(0)
    rows = pd.concat([_of_subset(levels[tickets], subset) for subset in less[SUBSET].unique()])
    shown = points(at_densities(rows), QUANTITY, "examples")
    panels = list(shown.groupby(["experiment", "arm", "rate"], sort=False))
    figure, axes = drawing.panels(1, len(panels), width=4.6)
    lowest = shown["mean"].max() - drawing.AXIS_DEPTH
    for axis, ((experiment, arm, rate), own) in zip(axes.flat, panels, strict=True):
        colours = density_colours(own["density"])
        named = own.assign(shown=[drawing.in_percent(density) for density in own["density"]])
        drawing.draw_lines(axis, named, "examples", colour="shown", colours=colours, dash="shown")
        axis.set(xscale="log", xlabel="Examples that found the mask", ylabel=QUANTITIES[QUANTITY])
        drawing.iteration_axis(axis.xaxis)
        drawing.accuracy_axis(axis, lowest, shown)
        drawing.title(axis, f"{experiment}\n{arm}, {rate} per level")
        drawing.side_legend(axis, colours, "Density", drawing.line_styles(named, "shown"))
    drawing.caption(figure, shown, [])
    return FigureWithData(figure, shown)


def _of_subset(tickets: pd.DataFrame, subset: str) -> pd.DataFrame:
    """Return the tickets that were found with such a subset, or with all examples of the same
    experiments, and `examples`, how many those were."""
    with_all = tickets[TRAIN].isna()
    own = tickets[with_all | tickets[SUBSET].eq(subset)]
    own = own[own["experiment"].isin(own.loc[own[TRAIN].notna(), "experiment"])]
    every = own["dataset.examples"] - own["dataset.validation"] - own["dataset.test"]
    train = own["dataset.train"].astype(float)  # None: all that are not set aside
    examples = own[TRAIN].astype(float).fillna(train).fillna(every).astype(int)
    return own.assign(examples=examples, arm=f"{subset} examples")
