"""Panels of lines with bands, drawn from the rows of `analysis.points`; shared by all figures."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.arms import ARMS, in_order
from analysis.points import LINE, in_words, incomplete
from analysis.sample import BUDGET

STYLE = Path(__file__).with_name("paper.mplstyle")
DENSITY_TICKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
NARROW_TICKS = {0.5: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), 0.2: (1.0, 0.8, 0.6, 0.4, 0.3, 0.2)}
"""Density that a run has not reached -> its ticks."""
TITLE_CHARACTERS = 12
"""Characters of a title that fit into one inch of a figure's width."""
LEGEND_CHARACTERS = 11
"""Characters of a legend that fit into one inch of a figure's width."""
PANEL_CHARACTERS = 44
"""Characters that fit into one line above a panel."""
SIDE_ENTRIES = 11
"""Entries in one column of a legend beside a panel."""
AXIS_DEPTH = 0.05
"""Depth of an axis below the dense network's accuracy: 5 points, as in the paper."""
NARROWEST = 0.01
"""Least range of accuracies on an axis: one point."""
UNBROKEN = "\u00a0"
"""A space at which no line is broken."""
EDGE, FAINT = "edge", "faint"
"""Mark points beyond an axis, and lines in the background."""
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"


Colour = tuple[float, float, float]


class FigureWithData(NamedTuple):
    """A figure and the numbers that it shows, each with the runs it comes from."""

    figure: Figure
    numbers: pd.DataFrame


def panels(rows: int, columns: int, width: float = 3.9) -> tuple[Figure, "np.ndarray[Any, Any]"]:
    """Return a figure and its (rows, columns) axes, each `width` inches wide."""
    figure = Figure(figsize=(max(width * columns, 5.2), 2.9 * rows + 0.7), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_lines(
    axis: Axes,
    found: pd.DataFrame,
    x: str,
    *,
    colour: str,
    colours: Mapping[str, Colour],
    dash: str = "rate",
    among: pd.DataFrame | None = None,
    marked: bool = True,
    faint: bool = False,
) -> None:
    """Draw each line of `found`, with a band from low to high, a ring where there are fewer
    repetitions than elsewhere, and open markers where early stops are censored; or `faint`, without
    these. The column `colour` chooses the colour, the column `dash` dashes and markers: `among` has
    all values of it in the figure."""
    dashes = line_styles(found if among is None else among, dash)
    others = [name for name in LINE if name not in (colour, dash)]
    for (name, kind, *_), of_line in found.groupby([colour, dash, *others], sort=False):
        own, own_colour = of_line.sort_values(x), colours[name]
        line, marker = dashes[kind]
        style = (
            {"alpha": 0.3, "zorder": 1, "gid": FAINT}
            if faint
            else {"marker": marker if marked else ""}
        )
        axis.plot(own[x], own["mean"], color=own_colour, linestyle=line, **style)
        if faint:
            continue
        axis.fill_between(
            own[x], own["low"], own["high"], color=own_colour, alpha=0.15, linewidth=0
        )
        few, censored = (incomplete(own), own[own["censored"] > 0]) if marked else (own[:0],) * 2
        if len(few):
            axis.scatter(few[x], few["mean"], 90, facecolors="none", edgecolors=own_colour)
        if len(censored):
            axis.scatter(
                censored[x],
                censored["mean"],
                26,
                facecolors="white",
                edgecolors=own_colour,
                marker=marker,
                zorder=3,
            )


def line_styles(found: pd.DataFrame, dash: str) -> dict[str, tuple[Dash, str]]:
    """Return the dash and the marker of each value of a column. Each of the paper's arms has the
    same in every figure that shows no others."""
    kinds = list(dict.fromkeys(found[dash]))
    kinds = [*ARMS] if set(kinds) <= {*ARMS} else kinds
    return {k: (DASHES[n % len(DASHES)], MARKERS[n % len(MARKERS)]) for n, k in enumerate(kinds)}


def arm_colours(arms: Iterable[str]) -> dict[str, Colour]:
    """Return the colours of arms. Each of the paper's arms has the same in every figure with up to
    ten arms."""
    return colours(in_order({*ARMS, *arms}))


def colours(names: Sequence[str], palette: str = "") -> dict[str, Colour]:
    """Return distinct colours, of a palette of seaborn; by default, for more than ten names, from
    dark to light."""
    palette = palette or ("colorblind" if len(names) <= 10 else "viridis")
    return dict(zip(names, sns.color_palette(palette, len(names)), strict=True))


def density_axis(axis: Axes, densities: "pd.Series[float]", *, linear: bool = False) -> None:
    """Let density fall from 100 % on the left, as in the paper; logarithmic unless `linear`."""
    lowest = densities[densities > 0].min()
    axis.set_xlabel("Density (%)" if linear else "Density (%, log scale)")
    if linear:
        axis.xaxis.set_major_formatter(FuncFormatter(in_hundredths))
        axis.set_xlim(1.03, -0.03)
        return
    axis.set_xscale("log")
    axis.set_xlim(1.12, lowest / 1.12)
    density_ticks(axis.xaxis, lowest)


def density_ticks(axis: Axis, lowest: float) -> None:
    """Set the ticks of a logarithmic axis that goes down to the density `lowest`."""
    reached = (ticks for end, ticks in NARROW_TICKS.items() if lowest > end)
    ticks = next(reached, DENSITY_TICKS)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(in_hundredths))


def title(axis: Axes, text: str) -> None:
    """Set the title of a panel with a legend beside it, in lines that fit."""
    lines = (part for line in text.splitlines() for part in textwrap.wrap(line, PANEL_CHARACTERS))
    axis.set_title("\n".join(lines), fontsize="small")


def in_hundredths(fraction: float, _: object = None) -> str:
    """Format a tick of an axis whose label has the unit."""
    return f"{round(100 * fraction, 6):g}"


def percent(fraction: float, _: object = None) -> str:
    """Format a tick."""
    return f"{in_hundredths(fraction)} %"


def in_percent(density: float) -> str:
    """Format a density as the paper prints it."""
    return f"{100 * density:.1f} %"


def accuracy_axis(axis: Axes, lowest: float, found: pd.DataFrame) -> None:
    """Let an axis show what is found, down to the accuracy `lowest`, with ticks up to 100 %."""
    lowest, highest = max(found["low"].min(), lowest), found["high"].max()
    lowest = min(lowest, highest - NARROWEST)
    room = 0.08 * (highest - lowest)
    bottom, top = lowest - room, highest + room
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(bottom, top)
    axis.set_ylim(bottom, top)
    axis.yaxis.set_major_locator(FixedLocator(ticks[(ticks >= bottom) & (ticks <= min(top, 1))]))
    axis.yaxis.set_major_formatter(FuncFormatter(percent))


def iteration_axis(axis: Axis) -> None:
    """Write thousands with a comma."""
    axis.set_major_formatter(FuncFormatter(lambda iteration, _: f"{iteration:,.10g}"))


def stop_axis(axis: Axes) -> None:
    """Make an axis of early stops logarithmic: tickets differ by less than reinits are later."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(NullLocator())
    iteration_axis(axis.yaxis)


def mark_outside(axis: Axes) -> bool:
    """Draw a triangle at the edge for each point beyond the limits of the y axis, except for faint
    lines; return whether there are any."""
    bottom, top = axis.get_ylim()
    marks = []
    for line in (line for line in axis.get_lines() if line.get_gid() != FAINT):
        x, y = np.asarray(line.get_xydata()).T
        marks += [(x[y < bottom], bottom, "v", line.get_color())]
        marks += [(x[y > top], top, "^", line.get_color())]
    marks = [mark for mark in marks if len(mark[0])]
    for number, (x, edge, marker, colour) in enumerate(marks):
        size = 18 * (len(marks) - number)  # so that triangles do not hide each other
        drawn = axis.scatter(x, [edge] * len(x), size, color=colour, marker=marker, clip_on=False)
        drawn.set(gid=EDGE, zorder=4)
    return bool(marks)


def points_axis(axis: Axes) -> None:
    """Limit an axis of differences in points to AXIS_DEPTH, with a line at 0."""
    depth = 100 * AXIS_DEPTH
    bottom, top = np.clip(axis.get_ylim(), -depth, depth)
    axis.set_ylim(min(bottom, -0.1), max(top, 0.1))
    axis.axhline(0, color="0.4", linewidth=1)


def ratio_axis(axis: Axes) -> None:
    """Make an axis of ratios logarithmic, from 0.2 to at most 32, with a line at 1."""
    axis.set_yscale("log", base=2)
    axis.set_ylim(0.2, min(max(axis.get_ylim()[1], 2), 32))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axis.axhline(1, color="0.4", linewidth=1)


def legend(
    figure: Figure,
    found: pd.DataFrame,
    *,
    colour: str,
    own: Mapping[str, Colour],
    dash: str,
    notes: Iterable[str] = (),
) -> None:
    """Draw one legend below all panels, with the caption, which ends with `notes`. Dashes are
    listed if they show another column than the colours."""
    dashes = line_styles(found, dash)
    shown = [name for name in own if name in set(found[colour])]
    plain: tuple[Dash, str] = ("-", "")
    entries = [_entry(own[name], dashes.get(name, plain), name) for name in shown]
    if dash != colour:
        there = set(found[dash])
        grey = (0.3, 0.3, 0.3)
        entries += [_entry(grey, of, kind) for kind, of in dashes.items() if kind in there]
    longest = 6 + max(len(label) for _, label in entries)
    columns = max(1, min(len(entries), int(LEGEND_CHARACTERS * figure.get_figwidth()) // longest))
    figure.set_figheight(figure.get_figheight() + 0.22 * (-(-len(entries) // columns) - 1))
    drawn = figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=columns)
    drawn.set_title(caption_text(found, figure, notes))
    drawn.get_title().set_fontsize("small")


def _entry(colour: Colour, style: tuple[Dash, str], name: str) -> tuple[Line2D, str]:
    line, marker = style
    return Line2D([], [], color=colour, linestyle=line, marker=marker), name


def side_legend(
    axis: Axes,
    own: Mapping[str, Colour],
    title: str,
    styles: Mapping[str, tuple[Dash, str]] = MappingProxyType({}),
) -> None:
    """Draw a legend beside one panel, for colours that only it uses. `styles`: the dash and the
    marker of each entry, by default a plain line."""
    entries = [_entry(colour, styles.get(name, ("-", "")), name) for name, colour in own.items()]
    many = len(own) > SIDE_ENTRIES
    axis.legend(
        *zip(*entries, strict=True), title=title, loc="center left", bbox_to_anchor=(1.0, 0.5),
        ncols=-(-len(own) // SIDE_ENTRIES), fontsize="xx-small" if many else None,
    )  # fmt: skip


def caption(figure: Figure, found: pd.DataFrame, notes: Iterable[str] = ()) -> None:
    """Write the caption below all panels."""
    figure.supxlabel(caption_text(found, figure, notes), fontsize="small", color="0.35")


def caption_text(found: pd.DataFrame, figure: Figure, notes: Iterable[str] = ()) -> str:
    """Return the spread, n, the meaning of rings and open markers, and `notes`, in lines that fit
    the figure's width."""
    parts = [in_words(found)]
    if len(incomplete(found)):
        parts.append("rings: fewer repetitions than elsewhere on the line")
    if found["censored"].any():
        parts.append(f"open markers: {BUDGET}, in some repetitions at least")
    text = "; ".join([*parts, *notes])
    width = int(1.25 * LEGEND_CHARACTERS * figure.get_figwidth())
    lines = textwrap.wrap(text.replace("n = ", f"n{UNBROKEN}={UNBROKEN}"), width)
    return "\n".join(lines).replace(UNBROKEN, " ")
