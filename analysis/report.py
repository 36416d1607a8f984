"""Write runs, charts, claims and problems to one HTML page that needs no other file."""

import base64
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import style
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from analysis.arms import in_order
from analysis.charts import PLOTLY, switchable
from analysis.claims import judged
from analysis.drawing import STYLE
from analysis.figures import FIGURES, pages
from analysis.needs import Lacking
from analysis.points import LINE, points
from analysis.reading import ORIGIN
from analysis.runs import Runs
from analysis.tables import CLAIM_COLUMNS, claim_rows
from analysis.winners import EPSILON, smallest_winners, winners
from lth.runs.status import Status, find_runs, read_status

SHOWN = ("early_stop_iteration", "early_stop_test_accuracy", "final_test_accuracy")
Cells = Sequence[object]


class Picture(NamedTuple):
    """A page of a figure, as SVG in base64; `about`: what it is about, and the first line of its
    function's docstring."""

    name: str
    about: str
    svg: str


def write_report(runs: Runs, folders: Iterable[Path], out: Path, epsilon: float = EPSILON) -> None:
    """Write the page of these runs, and of the runs in `folders` that have failed."""
    folders, notes = list(folders), list(runs.problems)
    statuses = [
        (run, read_status(run)) for run in sorted({r for f in folders for r in find_runs(f)})
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html").render(
        title=_title(runs),
        folders=[str(folder) for folder in folders],
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        runs=statuses,
        experiments=list(_experiments(runs.levels, dict(statuses))),
        origins=list(_origins([status for _, status in statuses])),
        plotly=Markup(get_plotlyjs()),
        charts=list(_charts(runs)),
        figures=list(_pictures(runs, notes)),
        claims=list(claim_rows(judged(runs))),
        claim_columns=CLAIM_COLUMNS,
        epsilon=epsilon,
        winners=list(smallest_winners(winners(runs.levels, epsilon))),
        levels=list(_levels(runs.levels)),
        failures=list(_failures(statuses)),
        notes=notes,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")


def _title(runs: Runs) -> str:
    return f"Lottery tickets: {', '.join(runs.levels['network'].unique())}"


def _experiments(levels: pd.DataFrame, statuses: dict[Path, Status]) -> Iterator[dict[str, Any]]:
    for title, rows in levels.groupby("experiment", sort=False):
        lines = dict(list(rows.groupby(["arm", "rate"])))
        arms = [
            (arm, rate, _numbers(own["seed"]), own["run"].nunique(), *_done(own, statuses))
            for each in in_order({arm for arm, _ in lines})
            for (arm, rate), own in lines.items()
            if arm == each
        ]
        settings = json.loads(rows["setting"].iloc[0])
        yield {"title": title, "arms": arms, "settings": sorted(settings.items())}


def _numbers(values: "pd.Series[int]") -> str:
    return ", ".join(str(value) for value in sorted(values.unique()))


def _done(rows: pd.DataFrame, statuses: dict[Path, Status]) -> tuple[int, int, str]:
    """Return how many levels are done, how many were requested, and the states of the runs."""
    own = [statuses[Path(run)] for run in rows["run"].unique()]
    states = sorted({status["state"] for status in own})
    requested = sum(status.get("levels", status.get("done", 1) - 1) + 1 for status in own)
    return sum(status.get("done", 0) for status in own), requested, ", ".join(states)


def _origins(statuses: Iterable[Status]) -> Iterator[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for status in statuses:
        versions = status.get("versions", {}).items()
        for name, value in (*((name, status.get(name)) for name in ORIGIN), *versions):
            if value is not None:
                found.setdefault(name, set()).add(str(value))
    yield from ((name, ", ".join(sorted(values))) for name, values in found.items())


def _charts(runs: Runs) -> Iterator[tuple[str, Markup]]:
    """Yield the interactive chart of each network, with its experiments."""
    for page in runs.pages("network"):
        drawn = to_html(switchable(page.levels), PLOTLY, include_plotlyjs=False, full_html=False)
        yield page.levels["network"].iloc[0], Markup(drawn)


def _pictures(runs: Runs, notes: list[str]) -> Iterator[Picture]:
    """Draw all figures. A figure that fails is added to `notes`; the others are still drawn."""
    for name, draw in FIGURES.items():
        with style.context(STYLE):
            try:
                found = pages(name, draw, runs)
            except Lacking:
                continue
            except Exception as error:
                notes.append(f"{name} could not be drawn: {type(error).__name__}: {error}")
                continue
            summary = (draw.__doc__ or "").partition("\n")[0]
            for page, figure in found:
                drawn = io.BytesIO()
                figure.figure.savefig(drawn, format="svg")
                titles = ", ".join(figure.numbers["experiment"].unique())
                svg = base64.b64encode(drawn.getvalue()).decode()
                yield Picture(page, f"{titles}. {summary}", svg)


def _levels(levels: pd.DataFrame) -> Iterator[tuple[str, list[Cells]]]:
    place = [*LINE, "level", "density"]
    shown = [points(levels, quantity).set_index(place) for quantity in SHOWN]
    columns = ["mean", "low", "high", "censored"]
    numbers = pd.concat([of[columns] for of in shown], axis=1, keys=SHOWN)
    numbers["n", ""] = shown[0]["n"]
    found = numbers[numbers["n", ""] > 0].reset_index()
    for (experiment, arm, rate), rows in found.groupby(LINE, sort=False):
        cells = [tuple(_cells(row)) for row in rows.to_dict("records")]
        yield f"{experiment}: {arm}, {rate} per level", list(cells)


def _cells(row: Mapping[Any, Any]) -> Iterator[object]:
    """Return level, density, n, then mean, minimum and maximum of each quantity; early stops that
    are censored as lower bounds."""
    yield from (row["level", ""], f"{100 * row['density', '']:.1f}", int(row["n", ""]))
    for quantity in SHOWN:
        factor, form = (1, ",.0f") if quantity == SHOWN[0] else (100, ".2f")
        for column in ("mean", "low", "high"):
            value = factor * row[quantity, column]
            bound = ">=" * (quantity == SHOWN[0] and _is_bound(row, column))
            yield "" if math.isnan(value) else f"{bound}{value:{form}}"


def _is_bound(row: Mapping[Any, Any], column: str) -> bool:
    """Return whether the mean, minimum or maximum of early stops is a lower bound."""
    few = row["n", ""] if column == "low" else 1  # an early stop that is known may be the minimum
    return bool(row[SHOWN[0], "censored"] >= few)


def _failures(statuses: Iterable[tuple[Path, Status]]) -> Iterator[Cells]:
    for run, status in statuses:
        if status["state"] != "finished":
            overrides = " ".join(status.get("overrides", []))
            yield run, overrides, status["state"], status.get("error", "")
