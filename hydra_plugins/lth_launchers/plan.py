"""hydra/launcher=plan: print what a sweep would do, without running it."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.lth_launchers.sweeper import Composer

if TYPE_CHECKING:
    from lth.engine.plan import Plan
    from lth.engine.step_cost import Comparison

COLUMNS = 3
"""Levels on one line of the table of weights."""
NOTICED = 1.1
"""Smallest ratio of two times that is called a difference: measurements of a second vary by some
percent."""


class PlanLauncher(Launcher):
    """Compose and check every run, and print what the sweep would need. `jobs`: the number of runs
    at once for which to estimate the time; None: one for each core."""

    def __init__(self, jobs: int | None) -> None:
        self._jobs = jobs or os.cpu_count() or 1

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,  # noqa: ARG002 - nothing is run
        config: DictConfig,
    ) -> None:
        self._compose = Composer(hydra_context.config_loader, config)
        self._store, self._device = str(config.store), str(config.device)
        self._threads = int(config.threads)

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002 - runs are shown by their overrides
    ) -> Sequence[JobReturn]:
        """Print the plan, and return no results. Raises LotteryError if a run is refused."""
        from rich.console import Console

        from hydra_plugins.lth_launchers import console
        from lth.engine.plan import plan
        from lth.errors import LotteryError
        from lth.experiment.config import from_config
        from lth.store.store import Store

        console.hide_progress()
        jobs = {
            " ".join(filter_overrides(overrides)): partial(
                lambda words: from_config(self._compose(words)), overrides
            )
            for overrides in job_overrides
        }
        made = plan(jobs, Store(Path(self._store)))
        out = Console(highlight=False, soft_wrap=True)
        out.print(*report(made, *self._measured(made), self._store, self._jobs), sep="\n")
        if made.refused:
            count = f"{len(made.refused)} of {len(job_overrides)}"
            raise LotteryError(f"{count} runs are refused for the reasons above. Correct them.")
        return []

    def _measured(self, plan: "Plan") -> "tuple[float, Comparison | None]":
        """Measure the steps of networks without timing data, and steps in float32 against
        bfloat16."""
        import torch

        from lth.engine.engine import find_device
        from lth.engine.step_cost import compare_precisions, dense_seconds

        torch.set_num_threads(self._threads)
        device = find_device(self._device)
        return dense_seconds(plan.untimed, device), compare_precisions(plan.trainings, device)


def of_bfloat16(comparison: "Comparison") -> str:
    """Return the line of a plan that says what bfloat16 saves or costs."""
    model, exact, rounded = comparison
    change = "no difference"
    if exact / rounded > NOTICED:
        change = f"{exact / rounded:.1f} times faster"
    elif rounded / exact > NOTICED:
        change = f"{rounded / exact:.1f} times slower"
    return (
        f"[bold]bfloat16[/]: a dense step of {model} takes {_in_ms(rounded)} ms instead of "
        f"{_in_ms(exact)} with training.precision=bfloat16, measured on this machine: {change}"
    )


def _in_ms(seconds: float) -> str:
    """Return milliseconds with three significant digits."""
    return f"{float(f'{1e3 * seconds:.3g}'):,g}"


def report(
    plan: "Plan", dense: float, comparison: "Comparison | None", store: str, jobs: int
) -> Iterator[str]:
    """Yield the lines of a plan, in rich's markup. `dense`: seconds that the steps of networks
    without timing data take, if all take as long as dense ones. `store`: the path to name. `jobs`:
    processes at once."""
    from rich.markup import escape

    runs = sum(map(len, plan.counts.values()))
    shared = plan.reported - plan.distinct
    yield (
        f"[bold]runs[/]: {runs}, which report {plan.reported} levels; {shared} of them share a "
        f"training with another. {plan.stored} of the {plan.distinct} trainings are in {store}."
    )
    for counts, names in plan.counts.items():
        yield from _counts(counts, names, plan.layers[counts])
    yield (
        f"[bold]to train[/]: {len(plan.trainings)} networks, {plan.iterations:,} iterations, "
        f"{plan.disk / 1e6:,.0f} MB on disk"
    )
    yield f"[bold]time[/]: {_time(plan, dense, jobs)}"
    if comparison:
        yield of_bfloat16(comparison)
    for overrides, reason in plan.refused.items():
        yield f"[red]refused[/] {escape(overrides)}: {escape(reason)}"


def _counts(counts: tuple[int, ...], names: list[str], layers: str) -> Iterator[str]:
    """Yield the lines with the surviving weights at each level. `names`: runs that have them.
    `layers`: rates and weights of the types of layer."""
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    yield f"[bold]weights at each level[/] of {names[0] or 'the run'}{others}:"
    yield f"each level removes {layers}"
    steps = [f"{level:2} {n:>12,} {n / counts[0]:>8.3%}" for level, n in enumerate(counts)]
    rows = -(-len(steps) // COLUMNS)
    yield from ("   ".join(steps[row::rows]) for row in range(rows))


def _time(plan: "Plan", dense: float, jobs: int) -> str:
    from analysis.status import clock

    def text(seconds: float) -> str:
        at_once = f", {clock(seconds / jobs)} of {jobs} at once" if jobs > 1 else ""
        return f"{clock(seconds)} of one process{at_once}"

    if not plan.untimed:
        return text(plan.seconds)
    known = f"{text(plan.seconds)}; " * (len(plan.untimed) < len(plan.trainings))
    return known + (
        f"networks like which none is in the store ({len(plan.untimed)}): their steps alone take "
        f"{text(dense)}, if each takes as long as a dense one does here"
    )
