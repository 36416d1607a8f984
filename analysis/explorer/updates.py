"""The callbacks of the page: they answer new results, filters, and clicks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from dash import Dash, Input, Output, State, ctx, html, no_update

from analysis import charts
from analysis.arms import in_order
from analysis.explorer.layout import FILTERS
from analysis.explorer.live import Live
from analysis.explorer.run_panel import details
from analysis.labels import numerically
from analysis.points import points
from analysis.runs import Runs
from analysis.status import counted, fraction_done, position

LISTED = 5
"""The most problems, and the most running runs, that are listed."""
NO_PRESET = "no preset"
Options = list[dict[str, str]]


def connect(app: Dash, live: Live) -> None:
    """Register the callbacks of the page."""
    _connect_filters(app, live)
    _connect_chart(app, live)
    _connect_run(app, live)


def _connect_filters(app: Dash, live: Live) -> None:
    """Look at the folders again and again, and offer what is there."""

    @app.callback(
        Output("version", "data"), Output("progress", "children"), Input("clock", "n_intervals"),
        State("version", "data"),
    )  # fmt: skip
    def keep_up_to_date(_: int | None, before: int | None) -> tuple[Any, list[Any]]:
        version = live.refresh()
        return (no_update if version == before else version), progress(live)

    @app.callback(
        *(Output(column, part) for column in FILTERS for part in ("options", "value")),
        Input("version", "data"),
        *(State(column, part) for column in FILTERS for part in ("options", "value")),
        prevent_initial_call=True,
    )
    def update_filters(_: int, *before: Any) -> list[Any]:  # noqa: ANN401 - as Dash gives them
        columns = zip(FILTERS, before[::2], before[1::2], strict=True)
        return [part for each in columns for part in _still_chosen(live.runs, *each)]


def _connect_chart(app: Dash, live: Live) -> None:
    """Draw the chart, list the runs, and give the numbers of the chart."""
    chosen = [Input(column, "value") for column in FILTERS]

    @app.callback(
        Output("chart", "figure"), Output("chart-note", "children"),
        Output("chart", "relayoutData"), *chosen, Input("quantity", "value"),
        Input("spread", "value"), Input("look", "value"), State("chart", "relayoutData"),
        prevent_initial_call=True,
    )  # fmt: skip
    def draw(*values: Any) -> tuple[Any, ...]:  # noqa: ANN401 - as Dash gives them
        *filters, quantity, spread, look, changes = values
        levels = selected(live.runs, filters)
        if levels.empty:
            return charts.empty(), "No level yet, or no run is switched on.", no_update
        many = len(levels) > charts.MOST_DOTS and "trials" in look
        figure = charts.against_density(
            levels, quantity, interval=spread == "interval", log=look,
            trials="trials" in look and not many,
        )  # fmt: skip
        zoom = changes if ctx.triggered_id in FILTERS else None  # else, axes may have other units
        keep_zoom(figure, zoom or {})
        note = f"{len(levels):,} levels: single trials are drawn for up to {charts.MOST_DOTS:,}."
        return figure, note * many, zoom

    @app.callback(
        Output("runs", "rowData"), Output("problems", "children"), *chosen,
        prevent_initial_call=True,
    )  # fmt: skip
    def list_runs(*filters: list[str]) -> tuple[list[dict[str, Any]], list[html.Li]]:
        rows = list(table_rows(live, filters))
        return rows, [html.Li(line) for line in _first(live.runs.problems)]

    @app.callback(
        Output("file", "data"), Input("numbers", "n_clicks"),
        *(State(column, "value") for column in FILTERS), State("quantity", "value"),
        State("spread", "value"), prevent_initial_call=True,
    )  # fmt: skip
    def export(_: int, *values: Any) -> Any:  # noqa: ANN401 - as Dash gives them
        *filters, quantity, spread = values
        levels = selected(live.runs, filters)
        if levels.empty:
            return no_update
        found = points(levels, quantity, interval=spread == "interval")
        return {"content": found.to_csv(index=False), "filename": f"{quantity}.csv"}


def _connect_run(app: Dash, live: Live) -> None:
    """Open the run that is clicked on, and keep it up to date."""

    @app.callback(
        Output("chosen", "data"), Input("chart", "clickData"), Input("runs", "selectedRows"),
        prevent_initial_call=True,
    )  # fmt: skip
    def choose(click: dict[str, Any] | None, rows: list[dict[str, Any]] | None) -> Any:  # noqa: ANN401
        if ctx.triggered_id == "runs":
            run = rows[0]["id"] if rows else None
        else:
            run = click["points"][0]["customdata"][0] if click else None
        return run if run is not None and live.status(run) else no_update

    @app.callback(
        Output("run", "hidden"), Output("run-name", "children"), Output("curves", "figure"),
        Input("chosen", "data"), Input("version", "data"), Input("curve", "value"),
        Input("curve-look", "value"), prevent_initial_call=True,
    )  # fmt: skip
    def show_curves(run: str | None, _: int, column: str, look: list[str]) -> tuple[Any, ...]:
        if run is None or not live.status(run):
            return True, "", no_update
        own = live.runs.where(run=run)
        usable = len(own.levels) and not live.fault(run)
        curves = charts.curves(own.metrics, column, log=look) if usable else charts.empty()
        return False, run, curves

    @app.callback(
        Output("run-details", "children"), Output("details-of", "data"),
        Output("log", "children"), Input("chosen", "data"), Input("clock", "n_intervals"),
        State("details-of", "data"), prevent_initial_call=True,
    )  # fmt: skip
    def show_details(run: str | None, _: int, before: Any) -> tuple[Any, ...]:  # noqa: ANN401
        if run is None or not (status := live.status(run)):
            return no_update, no_update, no_update
        of = [run, status["state"], status.get("done"), status.get("started")]
        shown = (no_update, no_update) if of == before else (details(live, run), of)
        return *shown, live.log(run)


def keep_zoom(figure: Any, changes: Mapping[str, Any]) -> None:  # noqa: ANN401 - a chart
    """Give a chart the ranges to which its reader has zoomed (`relayoutData` of the chart that it
    replaces)."""
    for axis in ("xaxis", "yaxis"):
        ends = [changes.get(f"{axis}.range[{place}]") for place in (0, 1)]
        if None not in ends:
            figure.layout[axis].update(range=ends, autorange=False)


def progress(live: Live) -> list[Any]:
    """Return a line about all runs, a bar, and a line about each that is running."""
    runs = list(live.statuses.items())
    done = sum(fraction_done(status) for _, status in runs) / max(len(runs), 1)
    lines = [
        f"{run.name} ({' '.join(status.get('overrides', []))}): {position(status)}"
        for run, status in runs
        if status["state"] == "running"
    ]
    bar = html.Progress(value=str(done), max="1")
    summary = html.Div([bar, f" {done:.0%}: {counted(runs) or 'no runs'}"])
    return [summary, *(html.Div(line) for line in _first(lines))]


def _first(lines: Sequence[str]) -> list[str]:
    """Return the first lines of many, and how many more there are."""
    return [*lines[:LISTED], *[f"and {len(lines) - LISTED} more"] * (len(lines) > LISTED)]


def _still_chosen(
    runs: Runs, column: str, before: Options, chosen: list[str]
) -> tuple[Options, list[str]]:
    """Return the options of a filter and those that are on: all but those that were switched off,
    so that a new arm of a running sweep is on."""
    values = names(runs.levels, column)
    off = {option["value"] for option in before} - {*chosen}
    options = [{"label": value, "value": value} for value in values]
    return options, [value for value in values if value not in off]


def names(levels: pd.DataFrame, column: str) -> list[str]:
    """Return the values of a column that a filter has, in order; runs without a preset have one
    value."""
    ordered = levels[[column]].fillna(NO_PRESET).drop_duplicates()
    values = list(ordered.sort_values(column, key=numerically)[column])
    return in_order(values) if column == "arm" else values


def selected(runs: Runs, filters: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Return the levels of the runs that are switched on; `filters`: a list for each of FILTERS."""
    levels = runs.levels
    for column, chosen in zip(FILTERS, filters, strict=True):
        levels = levels[levels[column].fillna(NO_PRESET).isin(chosen)]
    return levels


def table_rows(live: Live, filters: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each run that is switched on, with the results of its last level, and for
    each run without levels of its own: it has none yet, or repeats another run."""
    levels = selected(live.runs, filters)
    last = levels.drop_duplicates("run", keep="last").set_index("run")
    filtered = set(live.runs.levels["run"])
    for path, status in live.statuses.items():
        run = str(path)
        row = {"id": run, "run": _short(run, live), "state": status["state"],
               "overrides": " ".join(status.get("overrides", []))}  # fmt: skip
        if run in last.index:
            yield row | {"levels": status.get("done")} | _results(last.loc[run])
        elif run not in filtered:
            repeats = ", repeats another" * (run in live.runs.identities)
            yield row | {"state": f"{status['state']}{repeats}"}


def _results(level: "pd.Series[Any]") -> dict[str, Any]:
    shown = {name: level[name] for name in ("experiment", "arm", "rate")}
    numbers = {name: int(level[name]) for name in ("seed", "early_stop_iteration")}
    for name in ("early_stop_test_accuracy", "final_test_accuracy"):
        shown[name] = round(100 * float(level[name]), 2)
    return json.loads(json.dumps(shown | numbers))  # type: ignore[no-any-return]


def _short(run: str, live: Live) -> str:
    """Return the folder of a run without the folder that was given, if it was one."""
    only = f"{live.folders[0]}/" if len(live.folders) == 1 else ""
    return run.removeprefix(only)
