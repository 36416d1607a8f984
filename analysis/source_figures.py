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
WEIGHTS, SOURCE = "source.weights", "source.optimizer.name"
PRUNED = ("experiment", "rate", "pruning.criterion.name", "pruning.at", "pruning.mode",
          "pruning.scope", "rewind.kind", "rewind.iteration")  # fmt: skip
"""Columns in which tickets of all examples must equal those of fewer."""
TICKETS = {
    "rewind.survivors": "rewind", "rewind.shuffle": False, "rewind.pruned": "zero",
    "rewind.budget": "level",
}  # fmt: skip
"""The settings that make a network a ticket, not a control."""
QUANTITY = "final_test_accuracy"


def data_share(runs: Runs) -> FigureWithData:
    """Test accuracy at the end against the number of examples with which the mask was found.

    A panel for each experiment and choice of examples, a line for each of up to six densities; the
    last point of a line is the ticket found with all examples. Paul et al. 2022, "Lottery Tickets
    on a Data Diet".
    """
    tickets = _tickets(runs.levels)
    less = some(
        tickets[tickets["fewer"]] if len(tickets) else tickets,
        "tickets found with fewer examples: source=recipe source.dataset.train=5500,550",
    )
    rows = pd.concat([_of_subset(tickets, subset) for subset in less[SUBSET].unique()])
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


def _tickets(levels: pd.DataFrame) -> pd.DataFrame:
    """Return the tickets that were found under the run's own recipe, or one that differs from it in
    its examples alone, with `examples`, how many those were, and `fewer`: whether they were not all
    that the run itself has."""
    if TRAIN not in levels:
        return levels[:0]
    of_tickets = (levels[list(TICKETS)] == pd.Series(TICKETS)).all(axis=1)
    own = levels[of_tickets & levels["level"].gt(0)]
    with_source = own[TRAIN].notna()
    for name in [n for n in own if n.startswith("source.") and n not in (TRAIN, SUBSET, WEIGHTS)]:
        of_run = own.get(name.removeprefix("source."), pd.Series(None, own.index, dtype=object))
        differs = own[name].astype(object) != of_run.astype(object)
        own = own[~(differs & own[name].notna())]
    every = own["dataset.examples"] - own["dataset.validation"] - own["dataset.test"]
    trained = own["dataset.train"].astype(float).fillna(every)
    examples = own[TRAIN].astype(float).fillna(trained)
    fewer = with_source[own.index] & (examples < trained)
    return own.assign(examples=examples.astype(int), fewer=fewer)


def _of_subset(tickets: pd.DataFrame, subset: str) -> pd.DataFrame:
    """Return the tickets that were found with such a subset, and those of the same experiments and
    way of pruning that were found with all examples."""
    less = tickets[tickets["fewer"] & tickets[SUBSET].eq(subset)]
    same = [name for name in PRUNED if name in tickets]
    all_examples = tickets[tickets[SOURCE].isna()] if SOURCE in tickets else tickets
    others = all_examples[~all_examples["fewer"]].merge(less[same].drop_duplicates(), on=same)
    return pd.concat([less, others]).assign(arm=f"{subset} examples")
