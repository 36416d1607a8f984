"""How a run or a sweep stands, read from its run.json files: while it runs, and at its end."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lth.runs.status import Status, find_runs, read_status, read_statuses

REFRESH_SECONDS = 0.25
LOG_SECONDS = 10.0


class View:
    """A live picture of `folder` on a terminal; elsewhere a plain line from time to time."""

    def __init__(self, folder: Path, runs: int | None) -> None:
        self.folder = folder
        self.note = ""
        """What a launcher has to say beside what the runs do."""
        self._runs = runs
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._console = Console(highlight=False)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        if not sys.stdout.isatty():
            while not self._stopped.wait(LOG_SECONDS):
                print(self._line(read_statuses(self.folder)), flush=True)
            return
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(REFRESH_SECONDS):
                live.update(self._picture(read_statuses(self.folder)), refresh=True)

    def _share_done(self, runs: list[tuple[Path, Status]]) -> float:
        total = max(self._runs or 0, len(runs), 1)
        return sum(_share(status) for _, status in runs) / total

    def _line(self, runs: list[tuple[Path, Status]]) -> str:
        share = self._share_done(runs)
        elapsed = time.monotonic() - self._started
        left = f", {clock(elapsed * (1 - share) / share)} left" if share > 0.02 else ""
        count = f" of {self._runs}" if self._runs else ""
        progress = f"{share:.0%} in {clock(elapsed)}{left}"
        said = f" | {self.note}" if self.note else ""
        return f"{len(runs)}{count} runs: {_counted(runs) or 'starting'} | {progress}{said}"

    def _picture(self, runs: list[tuple[Path, Status]]) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for path, status in runs:
            if status["state"] == "running":
                overrides = Text(" ".join(status["overrides"]), overflow="ellipsis", no_wrap=True)
                table.add_row(_bar(_share(status)), path.name, Text(_position(status)), overrides)
        table.add_row(_bar(self._share_done(runs)), "all")
        return Group(Text(self._line(runs)), table)


def _bar(share: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share, width=24)


def _share(status: Status) -> float:
    """How much of a run's levels is done, in [0, 1]."""
    if status["state"] == "finished":
        return 1.0
    return float(min(status.get("done", 0) / (status.get("levels", 0) + 1), 1.0))


def _position(status: Status) -> str:
    if "level" not in status:
        return "starting, or waiting for a training that another run has begun"
    iterations = status["spec"]["training"]["iterations"]
    speed = f", {status['speed']:,.0f} a second" if "speed" in status else ""
    return (
        f"level {status['level']} of {status['levels']}, "
        f"iteration {status['iteration']:,} of {iterations:,}{speed}{_left(status)}"
    )


def _left(status: Status) -> str:
    """The time that a run needs for its own levels at its present speed; others may make some."""
    if not status.get("speed"):
        return ""
    iterations = status["spec"]["training"]["iterations"]
    to_do = (status["levels"] + 1 - status["done"]) * iterations - status["iteration"]
    return f", {clock(max(to_do, 0) / status['speed'])} left"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{seconds:02} min"


def overview(folders: Iterable[Path]) -> tuple[RenderableType, set[str]]:
    """Every sweep and run at or below `folders`: how many runs are in which state, where those
    stand that run, and why others do not; and all states that there are."""
    sweeps: dict[Path, list[tuple[Path, Status]]] = {}
    for run in sorted({run for root in folders for run in find_runs(root)}, key=_by_number):
        sweep = run.parent if run.name.isdigit() else run  # Hydra numbers the jobs of a sweep
        sweeps.setdefault(sweep, []).append((run, read_status(run)))
    parts: list[RenderableType] = []
    for sweep, runs in sweeps.items():
        share = sum(_share(status) for _, status in runs) / len(runs)
        parts.append(Text(f"{sweep}: {_counted(runs)} | {share:.0%}", style="bold"))
        parts += [_row(path, status) for path, status in runs if status["state"] != "finished"]
    states = {status["state"] for runs in sweeps.values() for _, status in runs}
    return Group(*parts or ["no runs here: give folders of runs or sweeps"]), states


def _by_number(run: Path) -> tuple[Path, int, str]:
    return run.parent, len(run.name), run.name


def _row(path: Path, status: Status) -> RenderableType:
    told = status.get("error") or (_position(status) if status["state"] == "running" else "")
    overrides = " ".join(status.get("overrides", []))
    return Text(f"  {path.name} ({overrides}): {status['state']}{', ' * bool(told)}{told}")


def _counted(runs: list[tuple[Path, Status]]) -> str:
    states = Counter(status["state"] for _, status in runs)
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items()))


def summary(folder: Path, runs: list[tuple[Path, Status]]) -> RenderableType:
    """What came of a run or a sweep, where its tables lie, and every failure with its reason."""
    states = Counter(status["state"] for _, status in runs)
    trained = sum(status.get("trained", 0) for _, status in runs)
    damaged = [line for _, status in runs for line in status.get("damaged", [])]
    levels = sum(status.get("done", 0) for _, status in runs)
    lines = [
        f"[bold]runs[/]: {_counted(runs) or 'none'}. [bold]{trained} networks trained[/] for the "
        f"{levels} levels reported; the others were shared or in the store already.",
        *(f"[yellow]repaired[/]: {escape(line)}" for line in damaged),
        *(_failure(path, status) for path, status in runs if status["state"] == "failed"),
    ]
    lines += [
        f"[yellow]{state}[/]: run the same command again, it goes on from there."
        for state in ("interrupted", "killed")
        if states[state]
    ]
    lines += [
        f"[bold]CSVs[/]: levels.csv and metrics.csv in {escape(_where(folder, runs))}",
        f"[bold]figures[/]: python -m analysis figures {escape(str(folder))}",
    ]
    return Group(*_tables(folder), *(Text.from_markup(line) for line in lines))


def _tables(folder: Path) -> Iterator[RenderableType]:
    from analysis.collect import collect  # pandas takes a while: not before it is needed
    from analysis.tables import level_tables

    levels = collect([folder]).levels
    if not levels.empty:
        yield from level_tables(levels)


def _where(folder: Path, runs: list[tuple[Path, Status]]) -> str:
    return str(folder) if [path for path, _ in runs] == [folder] else f"{folder}/*/"


def _failure(path: Path, status: Status) -> str:
    where = f"{path.name} ({' '.join(status['overrides'])})"
    log = path / "run.log"
    return f"[red]failed[/] {escape(where)}: {escape(status['error'])} [dim]{escape(str(log))}[/]"
