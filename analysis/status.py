"""Show the state of runs and sweeps on a terminal: while they run, and at their end."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.remaining import seconds_left
from lth.experiment.names import layers_text
from lth.runs.status import Status, find_runs, read_status, read_statuses
from lth.runs.superseded import superseded

REFRESH_SECONDS = 0.25
LOG_SECONDS = 10.0


class View:
    """A live view of the runs in `folder` on a terminal; elsewhere, a plain line every LOG_SECONDS.

    `runs`: the number of runs, None if unknown.
    """

    def __init__(self, folder: Path, runs: int | None) -> None:
        self.folder = folder
        self.note = ""
        """Text that a launcher adds to the line."""
        self.trained = 0
        """Networks that a launcher has trained itself, before the runs that report them."""
        self.ahead: tuple[float, float | None] | None = None
        """While a launcher trains for all runs: the fraction of this work that is done, and the
        estimated seconds left."""
        self._runs = runs
        self._earlier = [run for run in read_statuses(folder) if run[1]["state"] != "running"]
        """Runs that ended before this command. They count again when it starts them again."""
        self._announced: set[str] = set()
        self._seen: dict[str, float] = {}
        """The work of every training that a run had left when it was first seen."""
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
                self.log(self.runs())
            return
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            while not self._stopped.wait(REFRESH_SECONDS):
                runs = self.runs()
                self.announce(runs, live.console)
                live.update(self._picture(runs), refresh=True)

    def runs(self) -> list[tuple[Path, Status]]:
        """Return the runs of this command that have started, with their status."""
        return [run for run in read_statuses(self.folder) if run not in self._earlier]

    def log(self, runs: list[tuple[Path, Status]]) -> None:
        """Print the progress as a plain line. Before the first run has started there is none: a run
        that is refused prints its reason alone, however long the check takes."""
        if runs or self.note:
            self.announce(runs, self._console)
            print(self.line(runs), flush=True)

    def announce(self, runs: list[tuple[Path, Status]], console: Console) -> None:
        """Print the rates of runs that were not printed before."""
        new = [text for text in rates_of(runs) if text not in self._announced]
        self._announced.update(new)
        for text in new:
            console.print(f"each level removes {text}", soft_wrap=True)

    def _fraction_done(self, runs: list[tuple[Path, Status]]) -> float:
        if ahead := self.ahead:  # another thread sets it
            return ahead[0]
        total = max(self._runs or 0, len(runs), 1)
        return sum(fraction_done(status) for _, status in runs) / total

    def line(self, runs: list[tuple[Path, Status]]) -> str:
        """Return the progress of all runs in one line."""
        elapsed = clock(time.monotonic() - self._started)
        count = f" of {self._runs}" if self._runs else ""
        progress = f"{self._fraction_done(runs):.0%} in {elapsed}{self._left(runs)}"
        note = f" | {self.note}" if self.note else ""
        return f"{len(runs)}{count} runs: {counted(runs) or 'starting'} | {progress}{note}"

    def _left(self, runs: list[tuple[Path, Status]]) -> str:
        """Return the estimated time left, in words. Runs that have not started are taken to need as
        much new work as the others do on average."""
        if ahead := self.ahead:
            return left_in_words(ahead[1])
        statuses = [status for _, status in runs]
        for status in statuses:
            self._seen = status.get("left", {}) | self._seen
        unstarted = max((self._runs or 0) - len(runs), 0) * sum(self._seen.values())
        return time_left(statuses, unstarted / max(len(runs), 1))

    def _picture(self, runs: list[tuple[Path, Status]]) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for path, status in runs:
            if status["state"] == "running":
                overrides = Text(" ".join(status["overrides"]), overflow="ellipsis", no_wrap=True)
                table.add_row(
                    _bar(fraction_done(status)), path.name, Text(position(status)), overrides
                )
        table.add_row(_bar(self._fraction_done(runs)), "all")
        return Group(Text(self.line(runs)), table)


def rates_of(runs: list[tuple[Path, Status]]) -> list[str]:
    """Return the rates and weights of the types of layer, each combination once. Runs whose results
    were all stored built no network, and have none."""
    layers = (status["layers"] for _, status in runs if status.get("layers"))
    return list(dict.fromkeys(map(layers_text, layers)))


def _bar(fraction: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=fraction, width=24)


def fraction_done(status: Status) -> float:
    """Return the fraction of a run's levels that is done, in [0, 1]."""
    if status["state"] == "finished":
        return 1.0
    return float(min(status.get("done", 0) / (status.get("levels", 0) + 1), 1.0))


def position(status: Status) -> str:
    """Return where a running run is, in words."""
    if "level" not in status:
        return "starting, or waiting for a training that another run has started"
    end = status.get("iterations", status["spec"]["training"]["iterations"])  # or of older code
    speed = f", {status['speed']:,.0f} a second" if "speed" in status else ""
    return (
        f"level {status['level']} of {status['levels']}, "
        f"iteration {status['iteration']:,} of {end:,}{speed}{time_left([status])}"
    )


def time_left(runs: list[Status], unstarted: float = 0.0) -> str:
    """Return the estimated time until these runs end, in words; nothing if none is running."""
    running = any(status["state"] == "running" for status in runs)
    return left_in_words(seconds_left(runs, unstarted)) * running


def left_in_words(seconds: float | None) -> str:
    """Return an estimated time left in words; None: there is no estimate yet."""
    return ", estimating the time left" if seconds is None else f", about {clock(seconds)} left"


def clock(seconds: float) -> str:
    """Format a duration in minutes and seconds, or hours and minutes."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{seconds:02} min"


def overview(folders: Iterable[Path]) -> tuple[RenderableType, set[str]]:
    """Return a text about every sweep and run at or below `folders`, and the set of their states.

    The text has the number of runs in each state, and the progress or error of unfinished runs.
    Unfinished runs that a later run completed are left out.
    """
    paths = sorted({run for root in folders for run in find_runs(root)}, key=_by_number)
    found = [(path, read_status(path)) for path in paths]
    completed = superseded(found)
    sweeps: dict[Path, list[tuple[Path, Status]]] = {}
    for run, status in found:
        if run not in completed:
            sweep = run.parent if run.name.isdigit() else run  # Hydra numbers the jobs of a sweep
            sweeps.setdefault(sweep, []).append((run, status))
    parts: list[RenderableType] = []
    for sweep, runs in sweeps.items():
        fraction = sum(fraction_done(status) for _, status in runs) / len(runs)
        of = "" if fraction == 1 else " of the runs that have started"
        parts.append(Text(f"{sweep}: {counted(runs)} | {fraction:.0%}{of}", style="bold"))
        parts += [_row(path, status) for path, status in runs if status["state"] != "finished"]
    states = {status["state"] for runs in sweeps.values() for _, status in runs}
    return Group(*parts), states


def _by_number(run: Path) -> tuple[Path, int, str]:
    return run.parent, len(run.name), run.name


def _row(path: Path, status: Status) -> RenderableType:
    detail = status.get("error") or (position(status) if status["state"] == "running" else "")
    overrides = " ".join(status.get("overrides", []))
    return Text(f"  {path.name} ({overrides}): {status['state']}{', ' * bool(detail)}{detail}")


def counted(runs: list[tuple[Path, Status]]) -> str:
    """Return the number of runs in each state, in words."""
    states = Counter(status["state"] for _, status in runs)
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items()))


def summary(
    folder: Path,
    runs: list[tuple[Path, Status]],
    tables: Iterable[RenderableType] = (),
    trained: int = 0,
) -> RenderableType:
    """Return the outcome of a run or a sweep: `tables` of its levels (`analysis.tables.tables_of`),
    every failure with its reason, and where its CSVs are. `trained`: networks trained for the runs
    besides those that they trained themselves."""
    trained += sum(status.get("trained", 0) for _, status in runs)
    states = Counter(status["state"] for _, status in runs)
    damaged = [line for _, status in runs for line in status.get("damaged", [])]
    levels = sum(status.get("done", 0) for _, status in runs)
    lines = [
        f"[bold]runs[/]: {counted(runs) or 'none'}.{_trained(trained, levels)}",
        *(f"[yellow]repaired[/]: {escape(line)}" for line in damaged),
        *(_failure(path, status) for path, status in runs if status["state"] == "failed"),
    ]
    lines += [
        f"[yellow]{state}[/]: run the same command again to continue."
        for state in ("interrupted", "killed")
        if states[state]
    ]
    names = sorted({name for _, status in runs for name in status.get("edited", ())})
    lines += [
        f"[yellow]trained again[/]: the store has the same networks with other code of "
        f"{escape(', '.join(names))}. Its module was edited, or given another _version_."
    ] * bool(names)
    every = all(status.get("layers") for _, status in runs)
    level = "each level" if every else "each level of the runs that trained"
    lines += [f"[bold]{level} removes[/] {text}." for text in rates_of(runs)]
    lines += [
        f"[bold]CSVs[/]: levels.csv and metrics.csv in {escape(_where(folder, runs))}",
        f"[bold]figures[/]: python -m analysis figures {escape(str(folder))}",
    ] * bool(levels)
    return Group(*tables, *(Text.from_markup(line) for line in lines))


def _trained(trained: int, levels: int) -> str:
    """Return how many of the levels that are recorded were trained for these runs, in words."""
    if not levels:
        return ""
    which = "the others" if trained else "all"
    others = f"; {which} were shared, or in the store before" * (trained < levels)
    return f" [bold]{trained} networks trained[/] for the {levels} levels reported{others}."


def _where(folder: Path, runs: list[tuple[Path, Status]]) -> str:
    return str(folder) if [path for path, _ in runs] == [folder] else f"{folder}/*/"


def _failure(path: Path, status: Status) -> str:
    where = f"{path.name} ({' '.join(status['overrides'])})"
    log = path / "run.log"
    return f"[red]failed[/] {escape(where)}: {escape(status['error'])} [dim]{escape(str(log))}[/]"
