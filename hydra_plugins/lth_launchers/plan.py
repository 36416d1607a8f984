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
    from lth.engine.precision_cost import Saving

COLUMNS = 3
"""Levels on one line of the table of weights."""
WORTH_IT = 1.1
"""Factor from which a gain is called one: measurements of a second vary by some percent."""


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
        saving = self._saving(made)
        out = Console(highlight=False, soft_wrap=True)
        out.print(*report(made, saving, self._store, self._jobs), sep="\n")
        if made.refused:
            count = f"{len(made.refused)} of {len(job_overrides)}"
            raise LotteryError(f"{count} runs are refused for the reasons above. Correct them.")
        return []

    def _saving(self, plan: "Plan") -> "Saving | None":
        """Measure a step in float32 and bfloat16, if there is anything to train in float32."""
        import torch

        from lth.engine.engine import find_device
        from lth.engine.precision_cost import bfloat16_saving

        torch.set_num_threads(self._threads)
        return bfloat16_saving(plan.trainings, find_device(self._device))


def of_bfloat16(saving: "Saving") -> str:
    """Return the line of a plan that says what bfloat16 would save."""
    exact, rounded = (f"{1e3 * seconds:.3g}" for seconds in (saving.float32, saving.bfloat16))
    factor = saving.float32 / saving.bfloat16
    change = f"{factor:.1f} times faster" if factor > WORTH_IT else "no gain here"
    return (
        f"[bold]bfloat16[/]: a dense step of {saving.model} takes {rounded} ms instead of {exact} "
        f"with training.precision=bfloat16, measured on this machine: {change}"
    )


def report(plan: "Plan", saving: "Saving | None", store: str, jobs: int) -> Iterator[str]:
    """Yield the lines of a plan, in rich's markup. `store`: the path to name. `jobs`: processes at
    once."""
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
    yield f"[bold]time[/]: {_time(plan, saving, jobs)}"
    if saving:
        yield of_bfloat16(saving)
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


def _time(plan: "Plan", saving: "Saving | None", jobs: int) -> str:
    from analysis.status import clock

    if not plan.untimed:
        at_once = f", {clock(plan.seconds / jobs)} of {jobs} at once" if jobs > 1 else ""
        return f"{clock(plan.seconds)} of one process{at_once}"
    unknown = (
        f"{plan.untimed} of the networks have no timing data: run one of their kind with few levels"
    )
    if plan.untimed < len(plan.trainings):
        return f"{clock(plan.seconds)} of one process for those that have timing data; {unknown}"
    return f"unknown{_bound(plan, saving)}; {unknown}"


def _bound(plan: "Plan", saving: "Saving | None") -> str:
    """Return the time if all steps took as long as the dense one that was measured, in words."""
    from analysis.status import clock

    networks = [training.recipe.network for training in plan.trainings]
    if saving is None or any(network != networks[0] for network in networks):
        return ""
    seconds = clock(plan.iterations * saving.float32)
    return f"; {seconds} of one process if every step took as long as a dense one does here"
