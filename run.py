"""One run, or with -m a sweep of them: python run.py [-m] [KEY=VALUE ...]. See README.md."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lth.experiment import lottery, settings
from lth.experiment.config import from_config
from lth.experiment.names import arm_name, rate_name
from lth.experiment.nodes import Line, Training
from lth.experiment.results import Outcome, early_stop
from lth.experiment.smoke import shrunk
from lth.runs.folder import RunFolder
from lth.runs.signals import stop_on_signal
from lth.store.store import Damaged, Store
from lth.trackers import check_tracker, tracked


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run reports: the level of each training, and of each line."""

    levels: Mapping[Training, int]
    lines: Mapping[Line, int]


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    """One Hydra job; returns the test accuracy at the early stop of its last level."""
    job = HydraConfig.get()
    groups = {group: name for group, name in job.runtime.choices.items() if "/" not in group}
    status = {
        "overrides": list(job.overrides.task),
        "groups": groups,
        "preset": groups.pop("preset", None),
    }
    output = Path(job.runtime.output_dir)
    with (
        stop_on_signal() as stopping,
        ExitStack() as after_the_end,
        RunFolder(output, status) as folder,
    ):
        wanted = from_config(config)
        check_tracker(wanted.tracker)
        after_the_end.enter_context(tracked(wanted.tracker, output))
        return run(wanted, folder, stopping)


def run(wanted: settings.Spec, folder: RunFolder, stopping: Callable[[], bool]) -> float:
    """Make the trainings of a run exist, and record each level as soon as it is there."""
    whole, wanted = wanted, shrunk(wanted) if wanted.smoke else wanted
    asked = Asked(
        {training: level for level, training in lottery.levels(wanted)},
        {line: level for level, line in lottery.lines(wanted)},
    )
    store = Store(Path(wanted.store))
    found = all(map(store.exists, [*asked.levels, *asked.lines]))
    if not found:  # what is there has been checked
        from lth.engine.checks import (
            check,  # torch takes a second to import: not before it is needed
        )

        check(whole)
    folder.update(
        arm=arm_name(wanted),
        rate=rate_name(wanted.pruning),
        spec=dataclasses.asdict(wanted),
        identity=settings.identity(wanted),
        levels=max(asked.levels.values()),
    )
    outcomes = record_stored(asked, store, folder) if found else {}
    outcomes = outcomes or make(wanted, asked, store, folder, stopping)
    *_, last = asked.levels
    objective = early_stop(outcomes[last].curve).test_accuracy
    folder.status["objective"] = objective
    return objective


def record_stored(asked: Asked, store: Store, folder: RunFolder) -> dict[Training, Outcome]:
    """What the store has, where it has all that is asked; nothing where some of it is damaged."""
    try:
        outcomes = {training: store.outcome(training) for training in asked.levels}
        lines = {line: store.line(line) for line in asked.lines}
    except Damaged:
        return {}
    for training, outcome in outcomes.items():
        folder.add(asked.levels[training], training.digest, outcome, cached=True)
    for line, points in lines.items():
        folder.add_line(asked.lines[line], line.one.start, points, cached=True)
    return outcomes


def make(
    wanted: settings.Spec,
    asked: Asked,
    store: Store,
    folder: RunFolder,
    stopping: Callable[[], bool],
) -> dict[Training, Outcome]:
    """Train what is missing, or wait for who does."""
    from lth.engine.engine import Engine, find_device

    engine = Engine(
        store,
        find_device(wanted.device),
        Path(wanted.dataset.root),
        threads=wanted.threads,
        backend=wanted.backend,
        checkpoint_seconds=wanted.checkpoint_seconds,
        pulse=lambda training, at, speed: folder.update(
            level=asked.levels.get(training, training.mask.level), iteration=at, speed=speed
        ),
        stopping=stopping,
    )
    outcomes = {}
    try:
        for training, outcomes[training] in engine.ensure(asked.levels, then=[*asked.lines]):
            cached = training not in engine.made
            folder.add(asked.levels[training], training.digest, outcomes[training], cached=cached)
        for line, points in engine.lines(asked.lines):
            folder.add_line(asked.lines[line], line.one.start, points, cached=False)
    finally:
        folder.status |= {"trained": engine.trained, "damaged": engine.damaged}
    return outcomes


if __name__ == "__main__":
    from hydra_plugins.lth_launchers import console

    console.show(main)
