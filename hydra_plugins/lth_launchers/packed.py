"""hydra/launcher=packed: a whole sweep in one process; networks with one recipe train together.

For GPUs, which one small network leaves mostly idle. Each run is recorded as soon as all trainings
that it reports are stored.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.lth_launchers.local import job_config, raise_refused
from hydra_plugins.lth_launchers.sweeper import Composer

if TYPE_CHECKING:
    from lth.engine.engine import Engine
    from lth.engine.forecast import Forecast
    from lth.experiment.node import Stored
    from lth.experiment.nodes import Training
    from lth.experiment.settings import Spec

ON_A_GPU = 32
"""Networks trained together on a GPU at first, as many as torch has streams; halved whenever they
do not fit into memory."""


class PackedLauncher(Launcher):
    """Train what all runs of a sweep report, at most `pack` networks together; then run each job,
    which finds its trainings in the store."""

    def __init__(self, pack: int | None) -> None:
        if pack is not None and pack < 1:
            raise ValueError(
                f"hydra.launcher.pack must be >= 1, or null for as many as fit, got {pack}"
            )
        self._pack = pack

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs. Return their results or errors, in the order of the jobs."""
        from lth.runs.signals import stop_on_signal

        setup_globals()
        Path(self._config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        jobs = dict(enumerate(job_overrides, start=initial_job_idx))
        returned: dict[int, JobReturn] = {}
        with stop_on_signal():
            for specs in self._groups(jobs):
                try:
                    self._train(specs, jobs, returned)
                except Exception:  # also of user code
                    continue  # raised again, and recorded, by the jobs below
            for number in jobs.keys() - returned.keys():
                returned[number] = self._run(number, jobs[number])
        raise_refused(returned.values())
        return [returned[number] for number in sorted(returned)]

    def _groups(self, jobs: dict[int, Sequence[str]]) -> list[dict[int, "Spec"]]:
        """Return the specs by number of job, in groups that can share one engine. Invalid jobs are
        left out."""
        from lth.engine.checks import check
        from lth.errors import LotteryError
        from lth.experiment.config import from_config

        compose = Composer(self._context.config_loader, self._config)
        groups: dict[tuple[Any, ...], dict[int, Spec]] = {}
        for number, overrides in jobs.items():
            try:
                spec = from_config(compose(overrides))
                check(spec)
            except LotteryError:
                continue
            engine = (spec.store, spec.device, spec.dataset.root, spec.threads, spec.smoke,
                      spec.remake_weights)  # fmt: skip
            groups.setdefault(engine, {})[number] = spec
        return list(groups.values())

    def _train(
        self,
        specs: dict[int, "Spec"],
        jobs: dict[int, Sequence[str]],
        returned: dict[int, JobReturn],
    ) -> None:
        """Make what a group of runs reports; run each job as soon as all of it is stored. Runs that
        need a node that cannot be made are left out."""
        from lth.errors import Interrupted
        from lth.experiment import lottery
        from lth.experiment.nodes import with_ancestors

        left = {number: {n for _, n in lottery.nodes(spec)} for number, spec in specs.items()}
        engine = self._engine([*specs.values()], lambda: set().union(*left.values()))
        try:
            while left:
                try:
                    for number in _complete(engine, left):
                        returned[number] = self._run(number, jobs[number])
                except Interrupted:
                    raise
                except Exception:
                    if not engine.making:
                        raise
                    failed = set(engine.making)
                    left = {n: of for n, of in left.items() if not failed & with_ancestors(of)}
        finally:
            _count(engine.trained)

    def _engine(self, specs: Sequence["Spec"], needed: Callable[[], set["Stored"]]) -> "Engine":
        """Return an engine for some runs that shows its progress. `needed`: returns the nodes that
        they still need."""
        from lth.engine.engine import engine_for, find_device
        from lth.engine.forecast import Forecast, costs_of_all
        from lth.engine.monitor import Watch
        from lth.experiment.nodes import Training
        from lth.runs.signals import STOP

        def on_progress(trainings: Sequence[Training], iteration: int, speed: float) -> None:
            _show(trainings, iteration, speed, engine.trained, forecast)

        def pending() -> list[Training]:
            return [node for node in engine.pending(needed()) if isinstance(node, Training)]

        default = ON_A_GPU if find_device(specs[0].device).type == "cuda" else 1
        watch = Watch(on_progress=on_progress, stopping=STOP.is_set)
        engine = engine_for(specs[0], watch, pack=self._pack or default)
        forecast = Forecast(pending, costs_of_all(specs))
        return engine

    def _run(self, number: int, overrides: Sequence[str]) -> JobReturn:
        returned = run_job(
            hydra_context=self._context,
            config=job_config(self._context, self._config, number, overrides),
            task_function=self._task,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        return returned


def _complete(engine: "Engine", left: dict[int, set["Stored"]]) -> Iterator[int]:
    """Make the nodes of some runs. Yield the number of each run, and take it from `left`, as soon
    as all of its nodes are stored."""
    every = dict.fromkeys(node for of_run in left.values() for node in of_run)
    for node, _ in engine.ensure(every):
        for of_run in left.values():
            of_run.discard(node)
        for number in [number for number, of_run in left.items() if not of_run]:
            del left[number]
            yield number


def _count(trained: int) -> None:
    """Add networks that were trained here to those of the summary, and clear the progress shown."""
    from hydra_plugins.lth_launchers.console import ConsoleCallback

    if ConsoleCallback.view is not None:
        ConsoleCallback.view.trained += trained
        ConsoleCallback.view.note, ConsoleCallback.view.ahead = "", None


def _show(
    trainings: Sequence["Training"],
    iteration: int,
    speed: float,
    trained: int,
    forecast: "Forecast",
) -> None:
    """Show in the progress view what is being trained, and how much of the work is done. `trained`:
    number of networks trained so far."""
    from hydra_plugins.lth_launchers.console import ConsoleCallback

    if ConsoleCallback.view is None:
        return
    found, first = forecast.at(trainings, iteration), trainings[0]
    work, pace, whole = sum(found["left"].values()), found["pace"], trained + len(found["left"])
    ConsoleCallback.view.ahead = forecast.done / (forecast.done + work), pace and work / pace
    ConsoleCallback.view.note = (
        f"{trained} of {whole} networks trained, level {first.mask.level}, iteration "
        f"{iteration:,} of {first.recipe.training.iterations:,}, {speed:,.0f} a second"
    )
