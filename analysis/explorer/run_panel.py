"""One run on the page, below its curves: densities of its layers, settings and origin."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from dash import dcc, html

from analysis.charts import PLOTLY, layers
from analysis.explorer.live import Live
from analysis.reading import ORIGIN
from lth.runs.status import Status


def details(live: Live, run: str) -> list[Any]:
    """Return the parts of the page that are about a run, below its curves."""
    status = live.status(run)
    levels = live.runs.where(run=run).levels
    levels = levels.drop_duplicates("level")  # a run may belong to two experiments
    parts: list[Any] = [html.Pre(" ".join(status.get("overrides", [])), className="command")]
    if "error" in status:
        parts.append(html.P(f"{status['state']}: {status['error']}", className="problems"))
    if len(levels) and (fault := live.fault(run)):
        parts.append(html.P(f"The curves are not shown: {fault}", className="problems"))
    if len(levels):
        parts += [
            html.H3("Weights left in each layer"),
            dcc.Graph(figure=layers(levels), config=PLOTLY),
        ]
    return [
        *parts,
        _folded("Settings", _rows(status.get("identity", {}))),
        _folded("Origin", _rows(dict(_origin(status)))),
    ]


def _origin(status: Status) -> Iterator[tuple[str, object]]:
    for name in ("started", "finished"):
        if name in status:
            moment = datetime.fromtimestamp(status[name]).astimezone()
            yield name, moment.strftime("%Y-%m-%d %H:%M:%S %Z")
    yield from ((name, status[name]) for name in ORIGIN if status.get(name) is not None)
    yield from status.get("versions", {}).items()


def _folded(title: str, body: html.Table) -> html.Details:
    return html.Details([html.Summary(title), body])


def _rows(values: Mapping[str, object]) -> html.Table:
    rows = [html.Tr([html.Th(name, scope="row"), html.Td(str(of))]) for name, of in values.items()]
    return html.Table(html.Tbody(rows))
