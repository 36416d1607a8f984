"""Figures of what probes measured: error barriers on the line between two trained networks."""

import pandas as pd

from analysis import drawing
from analysis.densities import at_densities, density_colours
from analysis.drawing import FigureWithData
from analysis.grid import QUANTITIES, against_density
from analysis.labels import REPLICATE
from analysis.needs import some
from analysis.points import LINE, points
from analysis.runs import Runs

DISTANCE, WINDOW = 0.1, 5
"""A mask has settled within this distance of the masks of a window (You et al. 2020)."""
STABLE = 0.02
"""Two networks count as connected below this barrier (Frankle et al. 2020, section 2)."""


def connectivity(runs: Runs) -> FigureWithData:
    """Linear mode connectivity: error barrier between two copies of each network.

    Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis".
    """
    lines = _probed(runs, "connectivity")
    found = barriers(lines, "iteration")
    arms = [
        f"{arm}, branched at iteration {i:,}"
        for arm, i in zip(found["arm"], found["iteration"], strict=True)
    ]
    drawn = against_density(found.assign(arm=arms), ("barrier",))
    for axis in drawn.figure.axes:
        axis.axhline(STABLE, color="0.4", linestyle="--", linewidth=1)
        axis.yaxis.set_major_formatter(drawing.percent)
    return drawn


def stability(runs: Runs) -> FigureWithData:
    """Error barrier between two copies, against the iteration at which they part.

    A panel for each arm and rate, a line for each of up to six densities. Frankle et al. 2020,
    figures 3 and 5: networks are stable from an early iteration on, and tickets are matching only
    if they are rewound to an iteration at which they are stable.
    """
    found = barriers(_probed(runs, "connectivity"), "iteration")
    several = found.groupby(LINE)["iteration"].transform("nunique") > 1
    found = some(found[several], "copies that part at several iterations: probe.iteration=0,100")
    shown = points(at_densities(found), "barrier", "iteration")
    panels = list(shown.groupby(LINE, sort=False))
    figure, axes = drawing.panels(-(-len(panels) // 3), min(len(panels), 3), width=4.6)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, ((experiment, arm, rate), own) in zip(axes.flat, panels, strict=False):
        colours = density_colours(own["density"])
        labelled = own.assign(shown=[drawing.in_percent(density) for density in own["density"]])
        drawing.draw_lines(
            axis, labelled, "iteration", colour="shown", colours=colours, dash="shown"
        )
        axis.axhline(STABLE, color="0.4", linestyle="--", linewidth=1)
        first = own.loc[own["iteration"] > 0, "iteration"].min()
        axis.set_xscale("symlog", linthresh=first)
        axis.set(xlabel="Iteration at which the copies part", ylabel=QUANTITIES["barrier"])
        axis.set_xlim(left=0)
        drawing.iteration_axis(axis.xaxis)
        axis.yaxis.set_major_formatter(drawing.percent)
        drawing.title(axis, f"{experiment}\n{arm}, {rate} per level")
        drawing.side_legend(axis, colours, "Density", drawing.line_styles(labelled, "shown"))
    drawing.caption(figure, shown, ["dashed: the barrier below which networks count as stable"])
    return FigureWithData(figure, shown)


def mask_distance(runs: Runs) -> FigureWithData:
    """Distances between the masks that a training would give at several iterations, mean over
    seeds: a heat map for each experiment and rate (You et al. 2020, figure 2).

    Lines show the first iteration at which the mask has settled, in each seed.
    """
    rows = _probed(runs, "mask_distance")
    shown = points(rows, "distance", "iteration", "other")
    panels = list(shown.groupby(LINE, sort=False))
    figure, axes = drawing.panels(-(-len(panels) // 3), min(len(panels), 3), width=4.6)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    lines = dict(list(rows.groupby(LINE)))
    for axis, (line, own) in zip(axes.flat, panels, strict=False):
        means = own.pivot_table(index="iteration", columns="other", values="mean")
        drawn = axis.pcolormesh(means.columns, means.index, means, cmap="viridis_r", vmin=0)
        figure.colorbar(drawn, ax=axis, label="Fraction of entries that differ")
        for _, of_seed in lines[line].groupby("seed"):
            if (at := settled_at(of_seed)) is not None:
                axis.axhline(at, color="white", linewidth=1)
        axis.set(xlabel="Iteration", ylabel="Iteration", aspect="equal")
        axis.grid(visible=False)
        drawing.iteration_axis(axis.xaxis)
        drawing.iteration_axis(axis.yaxis)
        experiment, arm, rate = line
        drawing.title(axis, f"{experiment}\n{arm}, {rate} per level, n = {own['n'].max()}")
    note = f"white: the mask is within {DISTANCE:g} of each of the {WINDOW - 1} before it"
    figure.supxlabel(f"mean; {note}", fontsize="small", color="0.35")
    return FigureWithData(figure, shown)


def settled_at(distances: pd.DataFrame) -> int | None:
    """Return the first iteration whose mask is within DISTANCE of each of the WINDOW - 1 masks
    before it, from the distances of one training; None if there is none."""
    table = distances.pivot(index="iteration", columns="other", values="distance")
    for place in range(WINDOW - 1, len(table)):
        if table.iloc[place, place - WINDOW + 1 : place].max() < DISTANCE:
            return int(table.index[place])
    return None


def gradient_flow(runs: Runs) -> FigureWithData:
    """Squared norm of the gradient of the training loss, at the iterations that were probed.

    Evci et al. 2022, "Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win".
    """
    rows = _probed(runs, "gradient_flow")
    arms = [
        f"{arm}, iteration {i:,}" for arm, i in zip(rows["arm"], rows["iteration"], strict=True)
    ]
    return against_density(rows.assign(arm=arms), ("gradient_flow",))


def cost(runs: Runs) -> FigureWithData:
    """Test accuracy at early stop and at the end, against the operations of a forward pass."""
    counted = _probed(runs, "flops")[[*LINE, "level", "seed", "flops"]].drop_duplicates()
    rows = runs.levels.merge(counted, on=[*LINE, "level", "seed"])
    rows["flops"] = rows.groupby([*LINE, "level"])["flops"].transform("mean")  # of all seeds
    quantities = ("early_stop_test_accuracy", "final_test_accuracy")
    titles = list(dict.fromkeys(rows["experiment"]))
    figure, axes = drawing.panels(len(titles), len(quantities), width=4.6)
    colours = drawing.arm_colours(list(dict.fromkeys(rows["arm"])))
    found = [points(rows, quantity, "flops") for quantity in quantities]
    for own_axes, title in zip(axes, titles, strict=True):
        for axis, of_quantity, quantity in zip(own_axes, found, quantities, strict=True):
            here = of_quantity[of_quantity["experiment"] == title]
            drawing.draw_lines(axis, here, "flops", colour="arm", colours=colours)
            axis.set(xscale="log", xlabel="FLOPs of a forward pass", ylabel=QUANTITIES[quantity])
            dense = here.loc[here["level"] == 0, "mean"].mean()
            drawing.accuracy_axis(axis, dense - drawing.AXIS_DEPTH, here)
            drawing.mark_outside(axis)
        drawing.title(own_axes[0], title)
    shown = pd.concat(found)
    drawing.legend(figure, shown, colour="arm", own=colours, dash="rate")
    return FigureWithData(figure, shown)


def level_connectivity(runs: Runs) -> FigureWithData:
    """Error barrier between the trained networks of each level and the next (Paul et al. 2022).

    In percentage points, at the density of the first of the two levels. Paul et al. 2022,
    "Unmasking the Lottery Ticket Hypothesis" (arXiv:2210.03044): at high sparsity the networks of
    successive levels are linearly connected if and only if they are matching.
    """
    lines = _probed(runs, "level_connectivity")
    found = barriers(lines)
    drawn = against_density(found.assign(level_barrier=100 * found["barrier"]), ("level_barrier",))
    for axis in drawn.figure.axes:
        axis.axhline(100 * STABLE, color="0.4", linestyle="--", linewidth=1)
    return drawn


def _probed(runs: Runs, probe: str) -> pd.DataFrame:
    return some(runs.probes.get(probe, pd.DataFrame()), f"runs with probe={probe}")


def barriers(lines: pd.DataFrame, *place: str) -> pd.DataFrame:
    """Return the `barrier` of each line: its highest test error less the mean of its two ends, as
    a fraction (Frankle et al. 2020, section 2). `place`: columns that name a line, beside its
    level."""
    key = [*LINE, *REPLICATE, "level", "density", *place, "run"]
    rows = lines.assign(error=1 - lines["test_accuracy"]).sort_values("fraction")
    errors = rows.groupby(key, as_index=False)["error"].agg(["first", "last", "max"])
    return errors.assign(barrier=errors["max"] - (errors["first"] + errors["last"]) / 2)
