"""Make nodes whose locks are held: train one network or a pack, take a snapshot, or measure."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from lth.engine import publisher
from lth.engine.build import Builder
from lth.engine.monitor import Monitor, Watch
from lth.experiment.node import Stored
from lth.experiment.nodes import Measurement, Snapshot, Training
from lth.experiment.recipe import Network
from lth.experiment.targets import canonical
from lth.store.provenance import provenance
from lth.training import masks
from lth.training.checkpoint import Checkpoint
from lth.training.loop import Progress, train
from lth.training.networks import Task
from lth.training.precision import set_precision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Maker:
    """Makes nodes and publishes them. `backend`: `auto` or `eager` (autograd alone)."""

    build: Builder
    threads: int = 1
    backend: str = "auto"
    watch: Watch = field(default_factory=Watch)

    def make(self, node: Stored, others: Iterable[Stored] = ()) -> set[Stored]:
        """Make a snapshot that was requested after its training had run, with all of `others` that
        are snapshots of this training; or make a measurement. Return what was made."""
        if isinstance(node, Snapshot):
            alike = {s for s in others if isinstance(s, Snapshot) and s.of == node.of} | {node}
            last = max(alike, key=lambda snapshot: snapshot.iteration)
            self._run({node.of: self.checkpoint(last)}, list(alike), until=last)
            return {*filter(self.build.store.is_made, alike)}
        if isinstance(node, Measurement):
            log.info("measuring %s", node)
            self._set_precision(node)
            publisher.publish_measurement(self.build, node)
            return {node}
        raise TypeError(f"{node} must be a snapshot or a measurement")

    def train(
        self, group: Mapping[Training, Checkpoint | None], snapshots: Iterable[Snapshot]
    ) -> None:
        """Train networks together, each from its checkpoint if it has one, and publish them, with
        those of `snapshots` that belong to them."""
        done = self._run(group, list(snapshots))
        for training, progress in zip(group, done, strict=True):
            publisher.publish_training(self.build, training, progress)

    def checkpoint(self, node: Training | Snapshot) -> Checkpoint | None:
        """Return the saved state of an interrupted training, if there is one. A training that is
        repeated for a snapshot is saved under the snapshot's digest."""
        content = self.build.store.read_checkpoint(node)
        try:
            return Checkpoint.from_bytes(content) if content else None
        except (KeyError, ValueError, TypeError):
            log.warning("the checkpoint of %s is of another version: it starts again", node)
            return None

    def _run(
        self,
        group: Mapping[Training, Checkpoint | None],
        snapshots: Sequence[Snapshot],
        until: Snapshot | None = None,
    ) -> list[Progress]:
        """Train to the end, or `until` the iteration of a snapshot."""
        first, *_ = trainings = list(group)
        set_precision(
            first.recipe.training.precision
        )  # before the masks are built: criteria compute as well
        saved_as: Sequence[Stored] = [until] if until else trainings
        return train(
            [self._task(training, snapshots, saved) for training, saved in group.items()],
            until=until.iteration if until else None,
            only_eager=self.backend == "eager",
            on_step=Monitor(self.watch, self.build.store, trainings, saved_as),
        )

    def _task(
        self, training: Training, snapshots: Sequence[Snapshot], saved: Checkpoint | None
    ) -> Task:
        network = training.recipe.network
        mask = self.build.mask(training.mask, network)
        log.info("training %s, %.3g %% of the weights", training, 100 * masks.density(mask))
        return Task(
            training,
            self.build.model(training),
            self.build.weights(training.weights, network),
            mask,
            self.build.data(training.recipe),
            {s.iteration: self._publish_snapshot(s) for s in snapshots if s.of == training},
            saved,
            self._origin(network),
            self.build.counts(training),
        )

    def _origin(self, network: Network) -> dict[str, object]:
        """Return what provenance.json says of this process."""
        convolutions = any(len(shape) == 4 for _, shape in self.build.layers(network).values())
        return provenance() | {
            "device": str(self.build.device),
            "threads": self.threads,
            "memory_format": "channels_last" if convolutions else "contiguous",
        }

    def _publish_snapshot(self, snapshot: Snapshot) -> Callable[[dict[str, Tensor]], None]:
        return partial(publisher.publish_snapshot, self.build, snapshot)

    def _set_precision(self, node: Measurement) -> None:
        for parent in node.parents():
            if isinstance(parent, Training):
                set_precision(parent.recipe.training.precision)


def fit_together(one: Training, other: Stored) -> bool:
    """Return whether two trainings can be members of one pack: one recipe but for the split of the
    examples, one first iteration, and masks that stay."""
    if not isinstance(other, Training) or one.update or other.update:
        return False
    if (one.pruned, one.start) != (other.pruned, other.start):
        return False
    split = one.recipe.split_seed
    return bool(canonical(one.recipe) == canonical(replace(other.recipe, split_seed=split)))
