"""The figures of appendix F: initial weights of survivors, distances moved, connections, masks.

They read masks and weights from the store, and therefore need torch.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis import drawing
from analysis.arms import TICKET
from analysis.densities import at_densities, density_colours
from analysis.drawing import FigureWithData
from analysis.needs import Lacking, needed, some
from analysis.points import LINE, points
from analysis.runs import Runs

BINS = 40
SHADES = 100
"""The most rows and columns of a heat map."""

STORED = "winning tickets whose weights are in the store"

Array = NDArray[Any]


class Layer(NamedTuple):
    """A prunable tensor of a ticket: values at the start and the end of training, and which of them
    survive at its level (`kept`) and at the next (`next`; None at the last)."""

    place: dict[str, object]
    start: Array
    end: Array
    kept: Array
    next: Array | None


def initial_weights(runs: Runs) -> FigureWithData:
    """Distribution of the initial values of surviving weights, for each layer."""
    reaches: dict[str, float] = {}
    rows = [row for layer in _layers(runs) for row in _histogram(layer, reaches)]
    found = points(some(pd.DataFrame(rows), STORED), "frequency", "layer", "value")
    layers = list(found.groupby("layer", sort=False))
    figure, axes = drawing.panels(1, len(layers))
    colours = density_colours(found["density"])
    for axis, (layer, of_layer) in zip(axes[0], layers, strict=True):
        shown = of_layer.assign(shown=[drawing.in_percent(d) for d in of_layer["density"]])
        drawing.draw_lines(axis, shown, "value", colour="shown", colours=colours, marked=False)
        axis.set(title=layer, xlabel="Initial weight", ylabel="Frequency")
    drawing.side_legend(axes[0][-1], colours, "Density")
    drawing.caption(figure, found)
    figure.suptitle(str(found["experiment"].iloc[0]))
    return FigureWithData(figure, found)


def distance(runs: Runs) -> FigureWithData:
    """Mean distance that weights move in training: weights that the next level keeps, or prunes."""
    rows = [row for layer in _layers(runs, every=True) for row in _moved(layer)]
    moved = some(pd.DataFrame(rows), f"{STORED}, of two levels in a row")
    found = points(moved, "moved", "layer", "fate")
    layers = list(found.groupby("layer", sort=False))
    figure, axes = drawing.panels(1, len(layers))
    colours = drawing.colours(["stays", "goes"])
    for axis, (layer, of_layer) in zip(axes[0], layers, strict=True):
        drawing.draw_lines(axis, of_layer, "density", colour="fate", colours=colours, dash="fate")
        axis.set(title=layer, ylabel="Mean distance moved")
        drawing.density_axis(axis, of_layer["density"])
    drawing.legend(figure, found, colour="fate", own=colours, dash="fate")
    figure.suptitle(str(found["experiment"].iloc[0]))
    return FigureWithData(figure, found)


def connections(runs: Runs) -> FigureWithData:
    """Connections that units keep, incoming and outgoing, sorted in descending order."""
    rows = [row for layer in _layers(runs) for row in _connections(layer)]
    found = points(some(pd.DataFrame(rows), STORED), "count", "layer", "side", "rank")
    panels = list(found.groupby(["side", "layer"], sort=False))
    figure, axes = drawing.panels(2, found["layer"].nunique())
    colours = density_colours(found["density"])
    for axis, ((side, layer), here) in zip(axes.flat, sorted(panels, key=_title), strict=True):
        shown = here.assign(shown=[drawing.in_percent(d) for d in here["density"]])
        drawing.draw_lines(axis, shown, "rank", colour="shown", colours=colours, marked=False)
        unit = "Unit" if side == "incoming" else "Input"
        axis.set(title=f"{layer}, {side}", xlabel=f"{unit}, by rank", ylabel="Connections")
    drawing.side_legend(axes[0][-1], colours, "Density")
    drawing.caption(figure, found)
    figure.suptitle(str(found["experiment"].iloc[0]))
    return FigureWithData(figure, found)


def masks(runs: Runs) -> FigureWithData:
    """Masks of the tickets of one run: the density of each block of weights."""
    layers = list(_layers(runs, only_first=True))
    if not layers:
        raise Lacking(f"it needs {STORED}")
    names = list(dict.fromkeys(layer.place["layer"] for layer in layers))
    levels = list(dict.fromkeys(layer.place["level"] for layer in layers))
    figure, axes = drawing.panels(len(names), len(levels), width=3.0)
    for layer in layers:
        place = names.index(layer.place["layer"]), levels.index(layer.place["level"])
        _heat_map(axes[place], layer)
    figure.supxlabel(f"one run: {layers[0].place['run']}", fontsize="small", color="0.35")
    numbers = [layer.place | {"kept": int(layer.kept.sum())} for layer in layers]
    return FigureWithData(figure, pd.DataFrame(numbers))


WEIGHT_FIGURES: dict[str, Callable[[Runs], FigureWithData]] = {
    "appendix_f_initial": initial_weights, "appendix_f_distance": distance,
    "appendix_f_connections": connections, "appendix_f_masks": masks,
}  # fmt: skip


def _layers(runs: Runs, *, every: bool = False, only_first: bool = False) -> Iterator[Layer]:
    """Yield the layers of the winning tickets of the last experiment, if their weights are stored:
    at the paper's densities or, with `every`, at every level; of all runs or the first. Raises
    Lacking if there are no winning tickets."""
    from lth.audit.run_rules import open_run  # imports torch, which is slow

    tickets = needed(runs.levels, "arm", {TICKET})
    *_, (_, tickets) = tickets.groupby(["experiment", "rate"], sort=False)
    chosen = tickets if every else at_densities(tickets)
    for run, rows in list(chosen.groupby("run", sort=False))[: 1 if only_first else None]:
        stored = open_run(Path(str(run)))
        for row in rows.to_dict("records"):
            place = {name: row[name] for name in (*LINE, "level", "density", "run")}
            for name, (start, end, kept, later) in stored.tensors(int(row["level"])).items():
                yield Layer(place | {"layer": name}, start, end, kept, later)


def _histogram(layer: Layer, reaches: dict[str, float]) -> Iterator[dict[str, object]]:
    """Yield a row for each bin of the initial weights; bins reach three standard deviations of all
    initial weights of the layer in the first run."""
    name = str(layer.place["layer"])
    reach = reaches.setdefault(name, round(3 * float(layer.start.std()), 2))
    counts, edges = np.histogram(layer.start[layer.kept], BINS, (-reach, reach), density=True)
    middles = (edges[:-1] + edges[1:]) / 2
    for value, frequency in zip(middles.round(6), counts, strict=True):
        yield layer.place | {"value": value, "frequency": frequency}


def _moved(layer: Layer) -> Iterator[dict[str, object]]:
    if layer.next is not None:
        moved = np.abs(layer.end - layer.start)
        for fate, there in (("stays", layer.next), ("goes", layer.kept & ~layer.next)):
            if there.any():
                yield layer.place | {"fate": fate, "moved": float(moved[there].mean())}


def _heat_map(axis: Axes, layer: Layer) -> None:
    kept = layer.kept.reshape(len(layer.kept), -1)
    blocks = [np.array_split(np.arange(size), min(size, SHADES)) for size in kept.shape]
    densities = np.array([[kept[np.ix_(i, j)].mean() for j in blocks[1]] for i in blocks[0]])
    axis.imshow(densities, cmap="magma", vmin=0, aspect="auto", interpolation="nearest")
    density = drawing.in_percent(float(str(layer.place["density"])))
    axis.set(title=f"{layer.place['layer']}, {density}", xlabel="Input", ylabel="Unit")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)


def _connections(layer: Layer) -> Iterator[dict[str, object]]:
    kept = layer.kept.reshape(len(layer.kept), -1)
    for side, counts in (("incoming", kept.sum(1)), ("outgoing", kept.sum(0))):
        for rank, count in enumerate(sorted(counts.tolist(), reverse=True)):
            yield layer.place | {"side": side, "rank": rank, "count": count}


def _title(panel: tuple[Any, object]) -> tuple[str, str]:
    return tuple(map(str, panel[0]))  # type: ignore[return-value]
