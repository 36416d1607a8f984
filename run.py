"""One run, or with -m a sweep of them: python run.py [-m] [KEY=VALUE ...]. See README.md."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lth import lottery, spec, terminal
from lth.config import from_config
from lth.records import early_stop
from lth.run_folder import RunFolder
from lth.smoke import shrunk
from lth.tracking import check_tracker, tracked


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    """One Hydra job; returns the test accuracy at the early stop of its last level."""
    job = HydraConfig.get()
    groups = {group: name for group, name in job.runtime.choices.items() if "/" not in group}
    status = {"overrides": list(job.overrides.task), "groups": groups}
    output = Path(job.runtime.output_dir)
    with (
        terminal.stop_on_signal() as stopping,
        ExitStack() as after_the_end,
        RunFolder(output, status) as folder,
    ):
        wanted = from_config(config)
        check_tracker(wanted.tracker)
        after_the_end.enter_context(tracked(wanted.tracker, output))
        return run(wanted, folder, stopping)


def run(wanted: spec.Spec, folder: RunFolder, stopping: Callable[[], bool]) -> float:
    """Make the trainings of a run exist, and record each level as soon as it is there."""
    from lth.checks import check  # torch takes a second to import: not before it is needed
    from lth.engine import Engine, find_device
    from lth.store import Store

    whole, wanted = wanted, shrunk(wanted) if wanted.smoke else wanted
    levels = {training: level for level, training in lottery.levels(wanted)}
    store = Store(Path(wanted.store))
    if not all(map(store.exists, levels)):  # what is there has been checked
        check(whole)
    folder.update(
        spec=dataclasses.asdict(wanted),
        identity=spec.identity(wanted),
        levels=max(levels.values()),
    )
    engine = Engine(
        store,
        find_device(wanted.device),
        Path(wanted.dataset.root),
        threads=wanted.threads,
        checkpoint_seconds=wanted.checkpoint_seconds,
        pulse=lambda training, at, speed: folder.update(
            level=levels.get(training, training.mask.level), iteration=at, speed=speed
        ),
        stopping=stopping,
    )
    outcomes = {}
    try:
        for training, outcomes[training] in engine.ensure(levels):
            cached = training not in engine.made
            folder.add(levels[training], training.digest, outcomes[training], cached=cached)
    finally:
        folder.status |= {"trained": engine.trained, "damaged": engine.damaged}
    *_, last = levels
    objective = early_stop(outcomes[last].curve).test_accuracy
    folder.status["objective"] = objective
    return objective


if __name__ == "__main__":
    terminal.show(main)
