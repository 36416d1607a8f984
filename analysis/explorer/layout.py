"""The parts of the page: filters on the left, the chart, the table of runs, and one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dash_ag_grid as dag
from dash import dcc, html

from analysis.charts import CURVES, PLOTLY, QUANTITIES

EVERY_MS = 2000
"""Milliseconds between two looks at the folders."""
FILTERS = {"experiment": "Experiments", "preset": "Presets", "arm": "Arms", "rate": "Rates"}
"""Column of `levels` by which runs are switched on and off -> its heading."""
HINT = "A click on a dot opens its run, and one on a mean the first of its runs."
GRID = {
    "animateRows": False, "rowHeight": 30, "headerHeight": 34, "enableCellTextSelection": True
}  # fmt: skip
CLICK = {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True}
COLUMNS = (
    ("run", "folder", 150), ("experiment", "experiment", 230), ("arm", "arm", 170),
    ("rate", "rate", 90), ("seed", "seed", 80), ("state", "state", 190),
    ("levels", "levels done", 110), ("early_stop_iteration", "early stop", 110),
    ("early_stop_test_accuracy", "accuracy there, %", 150),
    ("final_test_accuracy", "accuracy at the end, %", 170), ("overrides", "overrides", 320),
)  # fmt: skip
"""Field, heading and width in pixels of the columns of the table of runs."""


def layout(folders: Sequence[Path]) -> html.Div:
    """Return the page."""
    shown = ", ".join(str(folder) for folder in folders)
    heading = [html.H1("Lottery tickets"), html.Span(shown, className="faint")]
    return html.Div(
        [
            dcc.Interval("clock", interval=EVERY_MS),
            dcc.Store("version"),
            dcc.Store("chosen"),
            dcc.Store("details-of"),
            dcc.Download("file"),
            html.Header([*heading, html.Div(id="progress", role="status")]),
            html.Div([_sidebar(), html.Main([_chart(), _table(), _run()])], className="columns"),
        ]
    )


def _sidebar() -> html.Aside:
    parts = []
    for column, heading in FILTERS.items():
        parts += [html.H2(heading), dcc.Checklist(id=column, options=[], value=[])]
    return html.Aside(parts)


def _chart() -> html.Section:
    controls = [
        dcc.Dropdown(QUANTITIES, next(iter(QUANTITIES)), id="quantity", clearable=False),
        dcc.RadioItems(
            {"range": "minimum and maximum", "interval": "95 % interval"},
            "range",
            id="spread",
            inline=True,
        ),
        dcc.Checklist(
            {"x": "log x", "y": "log y", "trials": "each trial"},
            ["x", "trials"],
            id="look",
            inline=True,
        ),
        html.Button("Numbers as CSV", id="numbers"),
    ]
    return html.Section(
        [
            html.Div(controls, className="controls"),
            html.P(id="chart-note", className="faint"),
            dcc.Graph("chart", config=PLOTLY),
            html.P(
                "A click on a dot opens its run, and one on a mean the first of its runs.",
                className="faint",
            ),
        ]
    )


def _table() -> html.Section:
    columns = [
        {"field": field, "headerName": heading, "width": width, "tooltipField": field}
        for field, heading, width in COLUMNS
    ]
    return html.Section(
        [
            html.H2("Runs"),
            html.Ul(id="problems", className="problems"),
            table("runs", columns, height=300, rowSelection=CLICK),
        ]
    )


def _run() -> html.Section:
    look = dcc.Checklist({"x": "log x", "y": "log y"}, [], id="curve-look", inline=True)
    curve = [dcc.Dropdown(CURVES, next(iter(CURVES)), id="curve", clearable=False), look]
    return html.Section(
        [
            html.H2(id="run-name"),
            html.Div(curve, className="controls"),
            dcc.Graph("curves", config=PLOTLY),
            html.Div(id="run-details"),
            html.Details([html.Summary("Log"), html.Pre(id="log")], open=True),
        ],
        id="run",
        hidden=True,
    )


def table(
    name: str, columns: list[dict[str, Any]], *, height: int, **options: object
) -> dag.AgGrid:
    """Return a table that sorts and filters; its cells are text, never HTML."""
    return dag.AgGrid(
        id=name,
        columnDefs=columns,
        rowData=[],
        defaultColDef={"filter": True, "sortable": True, "resizable": True},
        dashGridOptions=GRID | options,
        style={"height": height},
    )
