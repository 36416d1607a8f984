"""Run one experiment, or with -m a sweep: python run.py [-m] [KEY=VALUE ...]. See README.md."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import hydra
except ModuleNotFoundError:
    sys.exit(
        "error: lth is not installed in this Python. Activate its environment (source "
        ".venv/bin/activate), or install it (pip install -e .)"
    )
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.config import VERSION_BASE, from_config, whole_from_config
from lth.experiment.names import arm_name, layers_of, layers_text, rate_name
from lth.experiment.node import Stored
from lth.experiment.nodes import Training
from lth.experiment.recipe import identity
from lth.experiment.results import early_stop
from lth.experiment.settings import Spec
from lth.runs.folder import RunFolder
from lth.runs.notes import notes
from lth.runs.signals import stop_on_signal
from lth.store.files import writing
from lth.store.store import Damaged, Store
from lth.trackers import check_tracker, tracked

log = logging.getLogger(__name__)

WHITELIST = {} if VERSION_BASE else {"execution_whitelist": "hydra_plugins.lth_launchers.*"}
"""Code that Hydra itself may call because a configuration names it: an argument since 1.4."""
Requested = Mapping[Stored, list[int]]
"""Everything that a run reports -> its levels."""


@hydra.main(**VERSION_BASE, **WHITELIST, config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    """Run one Hydra job; return the validation accuracy at the early stop of its last level."""
    output = Path(HydraConfig.get().runtime.output_dir)
    with stop_on_signal() as stopping, ExitStack() as after_the_end, ExitStack() as opened:
        with _no_folder_if_refused(output):
            spec = from_config(config)
            check_tracker(spec.tracker)
            requested = lottery.requested(spec)
            layers = {} if all_stored(spec, requested) else checked(spec, config)
            description = describe(spec, requested) | layers
            folder = opened.enter_context(RunFolder(output, description))
        if layers:
            log.info("each level removes %s", layers_text(layers["layers"]))
        write_hydra_files(config, output / ".hydra")
        show_notes(spec)
        after_the_end.enter_context(tracked(spec.tracker, output))
        return run(spec, requested, folder, stopping)


@contextmanager
def _no_folder_if_refused(output: Path) -> Iterator[None]:
    """Remove the folder that Hydra has made for a run that is refused before it starts."""
    try:
        yield
    except LotteryError as error:
        _remove_if_empty(output)
        if HydraConfig.get().mode == RunMode.RUN:
            raise SystemExit(f"error: {error}") from None  # Hydra would print lines of its own
        raise


def _remove_if_empty(output: Path) -> None:
    """Remove a folder that holds nothing but the empty log that Hydra opens before a run starts."""
    log = output / "run.log"
    if {*output.iterdir()} <= {log} and not log.stat().st_size:
        log.unlink()
        with suppress(OSError):  # the folder of a day, if nothing else is in it
            output.rmdir()
            output.parent.rmdir()


def checked(spec: Spec, config: DictConfig) -> dict[str, Any]:
    """Build the network to check a run. Return what this shows, for run.json."""
    from lth.engine.checks import check, counted  # imports torch, which takes a second

    check(whole_from_config(config))
    return {"layers": layers_of(spec.pruning, counted(spec).types)}


def show_notes(spec: Spec) -> None:
    """Write the notes on a run to run.log and, unless its sweep does, to the console."""
    for note in notes(spec):
        log.warning(note)
        if HydraConfig.get().mode == RunMode.RUN:
            print(f"note: {note}", file=sys.stderr)


def write_hydra_files(config: DictConfig, folder: Path) -> None:
    """Write what Hydra itself would write too early: before the folder is known to be this run's
    own."""
    whole, overrides = HydraConfig.instance().cfg, HydraConfig.get().overrides.task
    files = {"config.yaml": config, "hydra.yaml": whole, "overrides.yaml": overrides}
    with writing(str(folder)):
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            OmegaConf.save(content, folder / name)


def describe(spec: Spec, requested: Requested) -> dict[str, Any]:
    """Return the content of run.json at the start of a run."""
    job = HydraConfig.get()
    groups = {group: name for group, name in job.runtime.choices.items() if "/" not in group}
    return {
        "overrides": list(job.overrides.task),
        "preset": groups.pop("preset", None),
        "groups": groups,
        "arm": arm_name(spec),
        "rate": rate_name(spec.pruning),
        "levels": max(map(max, requested.values())),
        "identity": identity(spec),
        "spec": dataclasses.asdict(spec),
    }


def run(spec: Spec, requested: Requested, folder: RunFolder, stopping: Callable[[], bool]) -> float:
    """Make everything that a run reports exist, and record each part as soon as it does."""
    results = record_stored(spec, requested, folder) or make(spec, requested, folder, stopping)
    trainings = (node for node in requested if isinstance(node, Training))
    last = max(trainings, key=lambda training: max(requested[training]))
    objective = early_stop(results[last].curve).val_accuracy
    folder.status["objective"] = objective
    return objective


def all_stored(spec: Spec, requested: Requested) -> bool:
    """Return whether a run has nothing to make."""
    store = Store(Path(spec.store))
    return all(map(store.is_made if spec.remake_weights else store.exists, requested))


def record_stored(spec: Spec, requested: Requested, folder: RunFolder) -> dict[Stored, Any]:
    """Record results that are all stored; return nothing if some are missing or damaged."""
    store = Store(Path(spec.store))
    if not all_stored(spec, requested):
        return {}
    try:
        results = {node: store.results(node) for node in requested}
    except Damaged:
        return {}
    for node, result in results.items():
        for level in requested[node]:
            folder.add(level, node, result, cached=True)
    return results


def make(
    spec: Spec, requested: Requested, folder: RunFolder, stopping: Callable[[], bool]
) -> dict[Stored, Any]:
    """Make what is missing, or wait for the process that is making it; record each result."""
    from lth.engine.edited import edited
    from lth.engine.engine import engine_for
    from lth.engine.forecast import Forecast, costs_of
    from lth.engine.monitor import Watch

    def on_progress(trainings: Sequence[Training], iteration: int, speed: float) -> None:
        (training,) = trainings
        level, *_ = requested.get(training, [training.level])
        end, where = training.recipe.training.iterations, forecast.at(trainings, iteration)
        folder.update(level=level, iteration=iteration, iterations=end, speed=speed, **where)

    def pending() -> list[Training]:
        return [node for node in engine.pending(requested) if isinstance(node, Training)]

    engine = engine_for(spec, Watch(on_progress=on_progress, stopping=stopping))
    forecast = Forecast(pending, costs_of(spec))
    folder.status["edited"] = [
        name for node in pending()[:1] for name in edited(node, engine.store)
    ]
    results = {}
    try:
        for node, results[node] in engine.ensure(requested):
            for level in requested[node]:
                folder.add(level, node, results[node], cached=node not in engine.made)
    finally:
        folder.status |= {"trained": engine.trained, "damaged": engine.damaged}
    return results


if __name__ == "__main__":
    from hydra_plugins.lth_launchers import console

    console.show(main)
