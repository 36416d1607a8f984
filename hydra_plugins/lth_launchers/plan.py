"""hydra/launcher=plan: says what a sweep would do, and does nothing."""

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

LEVELS_ABREAST = 3


class PlanLauncher(Launcher):
    """Composes and checks every run, and prints what they would need."""

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,  # noqa: ARG002 - nothing is run
        config: DictConfig,
    ) -> None:
        self._compose = Composer(hydra_context.config_loader, config)
        self._store = str(config.store)

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002 - numbers of runs are of no interest here
    ) -> Sequence[JobReturn]:
        """Nothing is launched, nothing comes back. Raises LotteryError where a run is refused."""
        from rich.console import Console

        from hydra_plugins.lth_launchers import console
        from lth.engine.plan import plan
        from lth.errors import LotteryError
        from lth.experiment.config import from_config
        from lth.store.store import Store

        console.dismiss()
        jobs = {
            " ".join(filter_overrides(overrides)): partial(
                lambda words: from_config(self._compose(words)), overrides
            )
            for overrides in job_overrides
        }
        made = plan(jobs, Store(Path(self._store)))
        Console(highlight=False, soft_wrap=True).print(*report(made, self._store), sep="\n")
        if made.faults:
            raise LotteryError(f"{len(made.faults)} of {len(job_overrides)} runs are refused.")
        return []


def report(plan: "Plan", store: str) -> Iterator[str]:
    """A plan to read in a terminal."""
    from rich.markup import escape

    runs = sum(map(len, plan.ladders.values()))
    shared = plan.reported - plan.wanted
    yield (
        f"[bold]runs[/]: {runs}, which report {plan.reported} levels; {shared} of them share a "
        f"training with another. {plan.stored} of the {plan.wanted} trainings are in {store}."
    )
    for rungs, names in plan.ladders.items():
        yield from _ladder(rungs, names)
    yield (
        f"[bold]to train[/]: {len(plan.trainings)} networks, {plan.iterations:,} iterations, "
        f"{plan.disk / 1e6:,.0f} MB on disk"
    )
    yield f"[bold]time[/]: {_time(plan)}"
    for overrides, reason in plan.faults.items():
        yield f"[red]refused[/] {escape(overrides)}: {escape(reason)}"


def _ladder(rungs: tuple[int, ...], names: list[str]) -> Iterator[str]:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    yield f"[bold]weights at each level[/] of {names[0] or 'the run'}{others}:"
    steps = [f"{level:2} {n:>12,} {n / rungs[0]:>8.3%}" for level, n in enumerate(rungs)]
    rows = -(-len(steps) // LEVELS_ABREAST)
    yield from ("   ".join(steps[row::rows]) for row in range(rows))


def _time(plan: "Plan") -> str:
    from analysis.status import clock

    cores = os.cpu_count() or 1
    unknown = (
        f"; the like of {plan.unmeasured} of them has not been measured: run one with few levels"
        if plan.unmeasured
        else ""
    )
    if plan.unmeasured == len(plan.trainings) and plan.trainings:
        return f"unknown{unknown}"
    at_once = f", {clock(plan.seconds / cores)} of {cores} at once" if cores > 1 else ""
    return f"{clock(plan.seconds)} of one process{at_once}{unknown}"
