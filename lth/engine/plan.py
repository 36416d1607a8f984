"""Estimate what a sweep needs before it runs: trainings, weights, iterations, time and disk."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from lth.engine.build import build_model
from lth.engine.checks import check, counted
from lth.engine.scheduler import missing
from lth.errors import LotteryError
from lth.experiment import lottery
from lth.experiment.names import layers_of, layers_text
from lth.experiment.node import Mask, Stored
from lth.experiment.nodes import Dense, Fresh, Snapshot, Training
from lth.experiment.recipe import Network
from lth.experiment.settings import Budget, Spec
from lth.experiment.targets import canonical
from lth.store.store import Store

CURVE_ROW_BYTES = 150
OTHER_BYTES = 4_000
"""Size of a stored node beside its weights, mask and curve."""
NEAR = 0.05
"""Difference in log-density up to which trainings count as equally near."""

Counts = tuple[int, ...]
"""Surviving weights at each level from 0."""


@dataclass(frozen=True)
class Plan:
    """Requirements of all runs of a sweep together."""

    counts: dict[Counts, list[str]]
    """Surviving weights -> overrides of the runs that have them."""
    layers: dict[Counts, str]
    """Surviving weights -> rate and number of weights of each type of layer, of the first of these
    runs."""
    refused: dict[str, str]
    """Overrides of a run -> why it is refused."""
    reported: int
    """Levels that the runs report, counting shared trainings each time."""
    distinct: int
    """Different trainings among them."""
    stored: int
    """Number of these that are stored."""
    trainings: list[Training]
    """Trainings to be made, parents first."""
    seconds: float
    """Estimated time of one process for all trainings that are not `untimed`."""
    untimed: list[Training]
    """The `trainings` like which the store has none, so that their time is not known."""
    disk: int
    """Bytes."""

    @property
    def iterations(self) -> int:
        return sum(t.recipe.training.iterations - t.start for t in self.trainings)


@dataclass
class _Described:
    """Nodes and survivor counts of the runs of a sweep, collected run by run."""

    counts: dict[Counts, list[str]] = field(default_factory=dict)
    layers: dict[Counts, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    nodes: list[Stored] = field(default_factory=list)
    densities: dict[Mask, float] = field(default_factory=dict)
    remade: set[Stored] = field(default_factory=set)
    """Nodes of runs with `remake_weights`."""
    _known: dict[str, Counts] = field(default_factory=dict)

    def add(self, overrides: str, compose: Callable[[], Spec]) -> None:
        try:
            spec = compose()
            counts = self._checked(spec)
            nodes = list(lottery.nodes(spec))
        except LotteryError as error:
            self.refused[overrides] = str(error)
            return
        self.counts.setdefault(counts, []).append(overrides)
        for level, node in nodes:
            self.nodes.append(node)
            if spec.remake_weights:
                self.remade.add(node)
            if isinstance(node, Training) and (level == 0 or node.mask != Dense()):
                self.densities[node.mask] = counts[level] / counts[0]

    def _checked(self, spec: Spec) -> Counts:
        """Return the survivors of a valid run, which do not depend on seeds and draws. Raises
        LotteryError for an invalid run."""
        key = repr(replace(spec, seed=0, split_seed=0, rewind=replace(spec.rewind, draw=0)))
        if key not in self._known:
            check(spec)
            types, levels = counted(spec)
            self._known[key] = tuple(levels)
            self.layers.setdefault(tuple(levels), layers_text(layers_of(spec.pruning, types)))
        return self._known[key]


def plan(jobs: Mapping[str, Callable[[], Spec]], store: Store) -> Plan:
    """Return the plan of runs, given as overrides -> a function that composes them. Nothing is
    trained, and no data is read."""
    described = _Described()
    for overrides, compose in jobs.items():
        described.add(overrides, compose)

    def is_there(node: Stored) -> bool:
        return store.is_made(node) if node in described.remade else store.exists(node)

    reported = [node for node in described.nodes if isinstance(node, Training)]
    unmade = missing(dict.fromkeys(described.nodes), is_there, store.is_made)
    trainings = [node for node in unmade if isinstance(node, Training)]
    timings = list(_timings(store))
    times = [_seconds(t, described.densities.get(t.mask, 1.0), timings) for t in trainings]
    return Plan(
        counts=described.counts,
        layers=described.layers,
        refused=described.refused,
        reported=len(reported),
        distinct=len(set(reported)),
        stored=sum(map(is_there, set(reported))),
        trainings=trainings,
        seconds=sum(time for time in times if time is not None),
        untimed=[t for t, time in zip(trainings, times, strict=True) if time is None],
        disk=_disk(unmade),
    )


class Timing(NamedTuple):
    """Time of one stored training. `kind`: everything that its speed depends on except density."""

    kind: str
    density: float
    seconds_per_iteration: float


def _timings(store: Store) -> Iterator[Timing]:
    for folder in store.folders():
        try:
            node = json.loads((folder / "node.json").read_bytes())
            training = node["nodes"][node["digest"]]
            weights = json.loads((folder / "summary.json").read_bytes())["weights"].values()
            seconds = json.loads((folder / "provenance.json").read_bytes())["seconds"]
            kind = _kind(training["recipe"], training.get("update"))
            steps = training["recipe"]["training"]["iterations"] - training.get("start", 0)
        except (OSError, ValueError, KeyError):
            continue  # not a training, damaged, or of another version
        density = sum(kept for kept, _ in weights) / sum(total for _, total in weights)
        yield Timing(kind, density, seconds / steps)


def _kind(recipe: Mapping[str, Any], update: object) -> str:
    """Return the parts of a canonical recipe that decide the speed of an iteration, and how the
    mask moves."""
    budget = Budget(**{**Budget.NEUTRAL, **recipe["training"]})
    of_budget = [budget.batch_size, budget.evaluate_every, budget.test_every, budget.precision]
    parts = [recipe["model"], of_budget, recipe["optimizer"]["name"], recipe["dataset"]["loader"],
             update]  # fmt: skip
    return json.dumps(parts, sort_keys=True)


def _seconds(training: Training, density: float, timings: list[Timing]) -> float | None:
    """Estimate from trainings of the same kind at the nearest density; None without any."""
    kind = _kind(canonical(training.recipe), canonical(training.update))
    same = [timing for timing in timings if timing.kind == kind]
    if not same:
        return None
    distances = [abs(math.log((timing.density or 1e-9) / density)) for timing in same]
    near = [t for t, d in zip(same, distances, strict=True) if d <= min(distances) + NEAR]
    steps = training.recipe.training.iterations - training.start
    return steps * median(timing.seconds_per_iteration for timing in near)


def _disk(unmade: Iterable[Stored]) -> int:
    sizes: dict[str, int] = {}

    def size(network: Network) -> int:
        key = str(canonical(network))
        if key not in sizes:
            state = build_model(Fresh(network, seed=0)).state_dict().values()
            sizes[key] = sum(tensor.numel() * tensor.element_size() for tensor in state)
        return sizes[key]

    def bytes_of(node: Stored) -> int:
        if isinstance(node, Snapshot):
            return size(node.of.recipe.network)
        if not isinstance(node, Training):
            return OTHER_BYTES
        budget, weights = node.recipe.training, size(node.recipe.network)
        curve = CURVE_ROW_BYTES * (budget.iterations // budget.evaluate_every)
        return weights + weights // 32 + curve + OTHER_BYTES  # a mask bit for each 4 bytes

    return sum(map(bytes_of, unmade))
