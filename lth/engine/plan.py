"""What a sweep would do, before it does it: trainings, weights, iterations, time and disk."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

from lth.engine.build import build_model
from lth.engine.checks import check, ladder
from lth.errors import LotteryError
from lth.experiment import lottery, nodes
from lth.experiment.nodes import Fresh, Line, Mask, Stored, Training, canonical
from lth.experiment.settings import Budget, Network, Spec, recipe
from lth.experiment.smoke import shrunk
from lth.store.store import Store

CURVE_ROW_BYTES = 150
OTHER_BYTES = 4_000
"""What a stored training takes beside its weights, mask and curve."""


@dataclass(frozen=True)
class Plan:
    """What the runs of a sweep need of the store, all of them together."""

    ladders: dict[tuple[int, ...], list[str]]
    """Surviving weights at each level from 0 -> overrides of the runs that have them."""
    faults: dict[str, str]
    """Overrides of a run -> why it is refused."""
    reported: int
    """Levels that the runs report, however many share a training."""
    wanted: int
    """Different trainings among them."""
    stored: int
    """How many of these there are already."""
    trainings: list[Training]
    """What would be made, parents first."""
    seconds: float
    """Of one process, as far as the store has measured the like."""
    unmeasured: int
    """Trainings the like of which it has not."""
    disk: int
    """Bytes."""

    @property
    def iterations(self) -> int:
        return sum(t.recipe.training.iterations - t.start for t in self.trainings)


def plan(jobs: Mapping[str, Callable[[], Spec]], store: Store) -> Plan:
    """That of runs, given as overrides -> what composes them. No training, no reading of data."""
    ladders: dict[tuple[int, ...], list[str]] = {}
    faults: dict[str, str] = {}
    reported: list[Training] = []
    lines: list[Line] = []
    densities: dict[Mask, float] = {}
    known: dict[str, tuple[int, ...]] = {}
    for overrides, compose in jobs.items():
        try:
            spec = compose()
            rungs = _checked(spec, known)
        except LotteryError as error:
            faults[overrides] = str(error)
            continue
        ladders.setdefault(rungs, []).append(overrides)
        wanted = shrunk(spec) if spec.smoke else spec
        for level, training in lottery.levels(wanted):
            reported.append(training)
            densities[training.mask] = rungs[level] / rungs[0]
        lines += [line for _, line in lottery.lines(wanted)]
    everything: dict[Stored, None] = dict.fromkeys([*reported, *lines])
    missing = nodes.missing(everything, store.exists, store.has_weights)
    trainings = [node for node in missing if isinstance(node, Training)]
    measured = _measured(store)
    times = [_seconds(t, densities.get(t.mask, 1.0), measured) for t in trainings]
    return Plan(
        ladders=ladders,
        faults=faults,
        reported=len(reported),
        wanted=len(set(reported)),
        stored=sum(store.exists(training) for training in set(reported)),
        trainings=trainings,
        seconds=sum(time for time in times if time is not None),
        unmeasured=times.count(None),
        disk=_disk(missing),
    )


def _checked(spec: Spec, known: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The ladder of a run that can be run; seeds and draws make no difference."""
    key = str(canonical(replace(spec, seed=0, rewind=replace(spec.rewind, draw=0))))
    key += f" {spec.pruning.levels} {spec.probe}"
    if key not in known:
        check(spec)
        model = build_model(Fresh(recipe(spec).network, seed=0))
        known[key] = tuple(ladder(spec, model))
    return known[key]


class Measured(NamedTuple):
    """What one stored training took."""

    like: str
    """What its speed depends on beside its density."""
    density: float
    seconds_per_iteration: float


def _measured(store: Store) -> list[Measured]:
    found = []
    for folder in store.folders():
        try:
            node = json.loads((folder / "node.json").read_bytes())
            training = node["nodes"][node["digest"]]
            weights = json.loads((folder / "summary.json").read_bytes())["weights"].values()
            seconds = json.loads((folder / "provenance.json").read_bytes())["seconds"]
            like = _like(training["recipe"])
        except (OSError, ValueError, KeyError):
            continue  # a snapshot, damaged (whoever needs it will see to that), or another version
        steps = training["recipe"]["training"]["iterations"] - training["start"]
        density = sum(kept for kept, _ in weights) / sum(total for _, total in weights)
        found.append(Measured(like, density, seconds / steps))
    return found


def _like(recipe: dict[str, Any]) -> str:
    """Of a canonical recipe, what decides the speed of an iteration."""
    budget = Budget(**recipe["training"])
    of_budget = [budget.batch_size, budget.evaluate_every, budget.test_every, budget.precision]
    parts = [recipe["model"], of_budget, recipe["optimizer"]["path"], recipe["dataset"]["loader"]]
    return json.dumps(parts, sort_keys=True)


def _seconds(training: Training, density: float, measured: list[Measured]) -> float | None:
    """From those of its like that are nearest in density; None where there are none."""
    like = _like(canonical(training.recipe))
    same = [m for m in measured if m.like == like]
    if not same:
        return None
    distances = [abs(math.log((m.density or 1e-9) / density)) for m in same]
    near = [m for m, d in zip(same, distances, strict=True) if d <= min(distances) + 0.05]
    steps = training.recipe.training.iterations - training.start
    return steps * median(m.seconds_per_iteration for m in near)


def _disk(missing: Iterable[Stored]) -> int:
    sizes: dict[str, int] = {}

    def size(network: Network) -> int:
        key = str(canonical(network))
        if key not in sizes:
            state = build_model(Fresh(network, seed=0)).state_dict().values()
            sizes[key] = sum(tensor.numel() * tensor.element_size() for tensor in state)
        return sizes[key]

    def bytes_of(node: Stored) -> Iterator[int]:
        if isinstance(node, Line):
            yield OTHER_BYTES
            return
        training = node if isinstance(node, Training) else node.of
        yield size(training.recipe.network)
        if isinstance(node, Training):
            budget = training.recipe.training
            yield size(training.recipe.network) // 32  # a bit for each of 4 bytes
            yield CURVE_ROW_BYTES * (budget.iterations // budget.evaluate_every) + OTHER_BYTES

    return sum(part for node in missing for part in bytes_of(node))
