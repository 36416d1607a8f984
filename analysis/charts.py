"""Interactive charts of the explorer and the report, drawn by Plotly from the rows of
`analysis.points`. A click on the legend switches a line on and off."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from analysis.drawing import DENSITY_TICKS, Colour, arm_colours, colours, in_hundredths
from analysis.points import LINE, points

QUANTITIES = {
    "early_stop_test_accuracy": "Test accuracy at early stop",
    "early_stop_iteration": "Early-stop iteration",
    "final_test_accuracy": "Test accuracy at the end",
    "early_stop_train_accuracy": "Training accuracy at early stop",
    "final_train_accuracy": "Training accuracy at the end",
    "early_stop_val_accuracy": "Validation accuracy at early stop",
    "early_stop_val_loss": "Validation loss at early stop",
    "seconds": "Seconds of training",
}
"""Column of `levels` -> its label."""
CURVES = {
    "val_loss": "Validation loss",
    "train_loss": "Training loss",
    "val_accuracy": "Validation accuracy",
    "test_accuracy": "Test accuracy",
    "learning_rate": "Learning rate",
}
"""Column of `metrics` -> its label."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
HEIGHT = 460
PLOTLY: Any = {"displaylogo": False, "toImageButtonOptions": {"scale": 2, "filename": "lth"}}
"""Settings of every chart on a page."""
MOST_DOTS = 3000
"""With more levels than this, single trials are not drawn: a browser would become slow."""
FEW = 12
"""Up to so many levels, a chart of curves names each in the legend."""
FIFTHS = [f"{percent}" for percent in range(0, 101, 20)]
SETTLED = 0.02
"""A chart of curves shows the values after this fraction of training; a double click shows all."""


class Series(NamedTuple):
    """The points of one line: means with their spread, or single trials (`low` is None)."""

    name: str
    colour: str
    dash: str
    rows: pd.DataFrame
    """The columns x, y and text, for means low and high, and run and level, which a click opens."""
    trials: bool


def against_density(
    levels: pd.DataFrame,
    quantity: str,
    *,
    interval: bool = False,
    trials: bool = True,
    log: Sequence[str] = ("x",),
) -> go.Figure:
    """Return a chart of a quantity against density: means with bars from low to high, and each
    trial as a dot. `log`: the axes that are logarithmic, of "x" and "y"."""
    figure = _figure()
    for of in series(levels, quantity, interval=interval, trials=trials):
        figure.add_trace(_trace(of))
    figure.update_xaxes(**density_axis("x" in log))
    figure.update_yaxes(type=_scale("y" in log), **value_axis(quantity, QUANTITIES[quantity]))
    return _keeping_zoom(figure, quantity, log)


def _keeping_zoom(figure: go.Figure, quantity: str, log: Sequence[str]) -> go.Figure:
    """Return a figure whose axes keep the ranges to which its reader zooms while the figure is
    replaced, until an axis has another quantity or scale."""
    figure.update_xaxes(uirevision=_scale("x" in log))
    return figure.update_yaxes(uirevision=f"{quantity}, {_scale('y' in log)}")


def switchable(levels: pd.DataFrame) -> go.Figure:
    """Return a chart against density with buttons for the quantity and the scales: all numbers are
    in it, for a page without a server."""
    trials = len(levels) <= MOST_DOTS
    figure = against_density(levels, next(iter(QUANTITIES)), trials=trials)
    quantities = [
        _button(label, "update", *_update(levels, name, trials=trials))
        for name, label in QUANTITIES.items()
    ]
    density = [
        _button(f"x: {kind}", "relayout", _of_axis("x", density_axis(kind == "log")))
        for kind in ("log", "linear")
    ]
    scale = [
        _button(f"y: {kind}", "relayout", {"yaxis.type": kind, "yaxis.autorange": True})
        for kind in ("linear", "log")
    ]
    place = {"y": 1.02, "yanchor": "bottom", "xanchor": "left"}
    menus = [
        {"type": "dropdown", "x": 0.0, "buttons": quantities, **place},
        {"type": "buttons", "direction": "right", "x": 0.45, "buttons": density, **place},
        {"type": "buttons", "direction": "right", "x": 0.68, "buttons": scale, **place},
    ]
    return figure.update_layout(margin={"t": 70}, updatemenus=menus)


def _button(label: str, method: str, *changes: Mapping[str, Any]) -> dict[str, Any]:
    return {"label": label, "method": method, "args": [*changes]}


def _update(levels: pd.DataFrame, quantity: str, *, trials: bool) -> Iterator[dict[str, Any]]:
    """Yield the changes of the traces and of the axis that show another quantity."""
    lines = list(series(levels, quantity, interval=False, trials=trials))
    changed = {name: [list(of.rows[name]) for of in lines] for name in ("x", "y", "text")}
    changed["customdata"] = [_customdata(of.rows) for of in lines]
    bars = [_bars(of) for of in lines]
    yield changed | {f"error_y.{end}": [of[end] for of in bars] for end in ("array", "arrayminus")}
    axis = value_axis(quantity, QUANTITIES[quantity])
    yield _of_axis("y", axis) | {"yaxis.title.text": QUANTITIES[quantity]}


def _of_axis(letter: str, axis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes that give an axis these properties, besides its title."""
    return {f"{letter}axis.{name}": value for name, value in axis.items() if name != "title"}


def series(
    levels: pd.DataFrame, quantity: str, *, interval: bool, trials: bool
) -> Iterator[Series]:
    """Yield the lines of a chart; arms have the colours of the figures, experiments a dash each."""
    lines = points(levels, "density")[LINE].drop_duplicates()  # also those without this quantity
    measured = dict(list(points(levels, quantity, interval=interval).groupby(LINE)))
    nothing = points(levels[:0], quantity, interval=interval)
    several = {name: lines[name].nunique() > 1 for name in LINE}
    colour_of = _line_colours(lines)
    dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(lines["experiment"].unique())}
    singles = dict(list(levels.groupby(LINE)))
    for experiment, arm, rate in lines.itertuples(index=False):
        parts = [arm, f"{rate} per level" * several["rate"], experiment * several["experiment"]]
        name, colour = _plain(", ".join(filter(None, parts))), to_hex(colour_of[arm, rate])
        line = experiment, arm, rate
        if trials:
            yield Series(name, colour, "", _dots(singles[line], quantity), trials=True)
        means = _means(measured.get(line, nothing), quantity, name)
        yield Series(name, colour, dashes[experiment], means, trials=False)


def _plain(text: str) -> str:
    """Return a text as Plotly shows it: it takes tags for HTML, but knows no entity of a quote."""
    return escape(text, quote=False)


def _line_colours(lines: pd.DataFrame) -> dict[tuple[str, str], Colour]:
    """Return the colour of each arm and rate: that of the arm, if there is one rate."""
    kinds = list(dict.fromkeys(zip(lines["arm"], lines["rate"], strict=True)))
    if lines["rate"].nunique() == 1:
        of_arm = arm_colours(lines["arm"])
        return {(arm, rate): of_arm[arm] for arm, rate in kinds}
    names = [f"{arm}, {rate}" for arm, rate in kinds]
    return dict(zip(kinds, colours(names).values(), strict=True))


def _dots(levels: pd.DataFrame, quantity: str) -> pd.DataFrame:
    rows = levels.dropna(subset=[quantity])
    text = [
        f"<b>seed {row.seed}</b>, level {row.level}, {100 * row.density:.3g} % of the weights<br>"
        f"{value(quantity, getattr(row, quantity), row.censored)}<br>{_plain(row.run)}"
        for row in rows.itertuples()
    ]
    own = rows[["run", "level"]].assign(x=rows["density"], y=rows[quantity], text=text)
    return own.reset_index(drop=True)


def _means(found: pd.DataFrame, quantity: str, name: str) -> pd.DataFrame:
    text = [
        f"<b>{name}</b><br>level {row.level}, {100 * row.density:.3g} % of the weights<br>"
        f"{value(quantity, row.mean, row.censored > 0)}, n = {row.n}{_spread(quantity, row)}"
        for row in found.itertuples()
    ]
    run = found["runs"].str.split(";").str[0]
    own = found[["level", "low", "high"]].assign(run=run, x=found["density"], y=found["mean"])
    return own.assign(text=text).reset_index(drop=True)


def _spread(quantity: str, row: Any) -> str:  # noqa: ANN401 - a row of points
    if math.isnan(row.low) or row.n == 1:
        return ""
    # an early stop that is known may be the lowest, but one that is censored is among the highest
    bounds = row.censored == row.n, row.censored > 0
    ends = [value(quantity, e, b) for e, b in zip((row.low, row.high), bounds, strict=True)]
    return f"<br>{ends[0]} to {ends[1]}, {row.spread.partition(' (')[0]}"


def value(quantity: str, number: float, censored: bool = False) -> str:
    """Format a value with its unit; a censored early stop as a lower bound."""
    if math.isnan(number):
        return "not measured"
    if "accuracy" in quantity:
        return f"{100 * number:.2f} %"
    if quantity == "early_stop_iteration":
        return f"{'at least ' * censored}iteration {number:,.0f}"
    return f"{number:.4g}" + " s" * (quantity == "seconds")


def _trace(of: Series) -> go.Scatter:
    rows = of.rows
    common = {
        "x": rows["x"], "y": rows["y"], "text": rows["text"], "name": of.name,
        "customdata": _customdata(rows), "legendgroup": of.name,
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    if of.trials:
        marker = {"color": of.colour, "size": 5, "opacity": 0.35}
        return go.Scatter(
            **common, uid=f"{of.name}, trials", mode="markers", marker=marker, showlegend=False
        )
    return go.Scatter(
        **common, uid=of.name, mode="lines+markers", line={"color": of.colour, "dash": of.dash},
        error_y={"symmetric": False, "thickness": 1, "width": 3, **_bars(of)},
    )  # fmt: skip


def _customdata(rows: pd.DataFrame) -> list[list[Any]]:
    """Return what a click on each point gives: run and level."""
    found: list[list[Any]] = rows[["run", "level"]].to_numpy().tolist()
    return found


def _bars(of: Series) -> dict[str, list[float]]:
    """Return the lengths of the bars above and below each point; none for trials."""
    if of.trials:
        return {"array": [], "arrayminus": []}
    rows = of.rows
    return {"array": [*(rows["high"] - rows["y"])], "arrayminus": [*(rows["y"] - rows["low"])]}


def density_axis(log: bool) -> dict[str, Any]:
    """Return the axis of densities, which falls from 100 % on the left, as in the paper."""
    return {
        "title": {"text": "Weights left (%)"}, "type": _scale(log),
        "autorange": "reversed", "tickvals": DENSITY_TICKS if log else [i / 5 for i in range(6)],
        "ticktext": [in_hundredths(tick) for tick in DENSITY_TICKS] if log else FIFTHS,
    }  # fmt: skip


def value_axis(quantity: str, label: str) -> dict[str, Any]:
    """Return the axis of a quantity, besides its scale."""
    form = ".1%" if "accuracy" in quantity else ""
    return {"title": {"text": label}, "tickformat": form, "autorange": True}


def _scale(log: bool) -> str:
    return "log" if log else "linear"


def curves(metrics: pd.DataFrame, column: str, *, log: Sequence[str] = ()) -> go.Figure:
    """Return a chart of the curves of one run, a line for each level."""
    figure, rows = _figure(), metrics.dropna(subset=[column])
    levels = sorted(rows["level"].unique())
    palette = colours([str(level) for level in levels], "viridis")
    for level, of_level in rows.groupby("level"):
        name = f"level {level} ({100 * of_level['density'].iloc[0]:.3g} %)"
        figure.add_scatter(
            x=of_level["iteration"], y=of_level[column], name=name, mode="lines",
            line={"color": to_hex(palette[str(level)]), "width": 1.5},
            hovertemplate=f"{name}<br>iteration %{{x:,}}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="Iteration", type=_scale("x" in log))
    figure.update_yaxes(type=_scale("y" in log), **value_axis(column, CURVES[column]))
    settled = rows.loc[rows["iteration"] >= SETTLED * rows["iteration"].max(), column]
    if "y" not in log and len(settled):
        room = 0.05 * (settled.max() - settled.min())
        figure.update_yaxes(range=[settled.min() - room, settled.max() + room], autorange=False)
    beside = {"orientation": "v", "x": 1.01, "y": 1}
    figure.update_layout(showlegend=len(levels) <= FEW, legend=beside)
    return _keeping_zoom(figure, column, log)


def layers(levels: pd.DataFrame) -> go.Figure:
    """Return a chart of the density of each layer of one run, level by level."""
    figure = _figure()
    names = [n for n in levels.columns if n.startswith("density/") and levels[n].notna().any()]
    for name in names:
        layer = _plain(name.removeprefix("density/"))
        figure.add_scatter(
            x=levels["level"], y=levels[name], name=layer, mode="lines+markers",
            hovertemplate=f"{layer}<br>level %{{x}}: %{{y:.2%}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="Level")
    figure.update_yaxes(**density_axis(log=True) | {"autorange": True})
    figure.update_yaxes(title="Weights left in the layer (%)")
    return figure


def empty() -> go.Figure:
    """Return a chart without anything."""
    return _figure().update_layout(xaxis={"visible": False}, yaxis={"visible": False})


def _figure() -> go.Figure:
    layout = {
        "template": "simple_white", "height": HEIGHT, "hovermode": "closest",
        "margin": {"l": 70, "r": 20, "t": 20, "b": 60}, "uirevision": "kept",
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
    }  # fmt: skip
    return go.Figure(layout=layout)
