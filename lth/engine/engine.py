"""The engine makes trainings exist: look up, claim, materialise the inputs, train, publish."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lth.engine.build import Inputs, build_model
from lth.errors import Interrupted, LotteryError
from lth.experiment import nodes
from lth.experiment.nodes import Final, Fresh, Line, Snapshot, Stored, Training
from lth.experiment.results import Outcome, Point, curve_to_csv, to_csv
from lth.store.provenance import provenance
from lth.store.store import Damaged, Store
from lth.training import interpolation, masks, packed
from lth.training.loop import Progress, Task, loop, position_of, set_precision, train
from lth.training.seeds import stream_seed

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Stored)
R = TypeVar("R")

POLL_SECONDS = 0.05
PULSE_SECONDS = 0.5


def find_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or `auto`: CUDA where there is one. Raises LotteryError for a missing one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise LotteryError("device=cuda: torch finds no CUDA device here. Use device=auto or cpu.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@dataclass
class Engine:
    """A store, a device, and who wants to know: `pulse(training, iteration, speed)`, the last in
    iterations a second, is called about twice a second; `stopping()` is asked before every step
    whether to save and stop."""

    store: Store
    device: torch.device
    data_root: Path
    threads: int = 1
    checkpoint_seconds: float = 120.0
    backend: str = "auto"
    """`eager`: autograd alone (`lth.training.loop.backend`)."""
    pack: int = 1
    """How many trainings with one recipe may run as one (`lth.training.packed`)."""
    pulse: Callable[[Training, int, float], None] = lambda _, __, ___: None
    stopping: Callable[[], bool] = lambda: False
    made: set[Stored] = field(default_factory=set)
    """What this engine has made."""
    damaged: list[str] = field(default_factory=list)
    """What it found damaged in the store, set aside and made again."""
    _awaited: set[Stored] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._inputs = Inputs(self.store, self.data_root, self.device)
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)

    def ensure(
        self, wanted: Iterable[Training], then: Sequence[Line] = ()
    ) -> Iterator[tuple[Training, Outcome]]:
        """Make all of `wanted` exist, and what they need; yield each with its outcome as soon as it
        does. Processes on one store share the work. `then`: what will be asked of `lines` later, so
        that the snapshots which that needs are kept.

        Raises Interrupted once `stopping()`, with the training in progress saved.
        """
        return self._ensure(wanted, self.store.outcome, then)

    def lines(self, wanted: Iterable[Line]) -> Iterator[tuple[Line, list[Point]]]:
        """The same for lines."""
        return self._ensure(wanted, self.store.line, ())

    def _ensure(
        self, wanted: Iterable[N], read: Callable[[N], R], then: Sequence[Stored]
    ) -> Iterator[tuple[N, R]]:
        waiting = list(wanted)
        while waiting:
            try:
                for node in [node for node in waiting if self.store.exists(node)]:
                    yield node, read(node)
                    waiting.remove(node)
                wished = [*waiting, *then] if waiting else []
                self._make_one(nodes.missing(wished, self.store.exists, self.store.has_weights))
            except Damaged as damage:
                self._set_aside(damage)

    @property
    def trained(self) -> int:
        """How many trainings this engine has made."""
        return sum(isinstance(node, Training) for node in self.made)

    def _set_aside(self, damage: Damaged) -> None:
        if str(damage) in self.damaged:
            raise LotteryError(f"{damage}, again, though it was made anew. Is the disk sound?")
        log.warning("%s; it was set aside and will be made again", damage)
        self.damaged.append(str(damage))
        self.store.set_aside(damage.node)

    def _make_one(self, pending: list[Stored]) -> None:
        """Make the first of `pending` that is ready and nobody else's, and with it those that can
        be packed with it; else wait a little."""
        for node in pending:
            if self.stopping():
                raise Interrupted
            if not self._is_ready(node):
                continue
            with ExitStack() as claims, torch.random.fork_rng(devices=[]):
                if self._claim(node, claims):
                    self._make(node, pending, claims)
                    return
            if node not in self._awaited:
                self._awaited.add(node)
                log.info("%s is being made by %s", node, self.store.holder(node))
        if pending:
            time.sleep(POLL_SECONDS)

    def _is_ready(self, node: Stored) -> bool:
        return all(map(self.store.has_weights, nodes.parents(node)))

    def _claim(self, node: Stored, claims: ExitStack) -> bool:
        claim = self.store.lock(node)
        if claim is not None:
            claims.enter_context(claim)
        return claim is not None

    def _make(self, node: Stored, pending: list[Stored], claims: ExitStack) -> None:
        if self.store.is_made(node):  # published between the look and the claim
            return
        if isinstance(node, Snapshot):  # nobody had asked for it when its training ran
            self._run(node.of, {node.iteration: node}, until=node.iteration)
            self.made.add(node)
            return
        if isinstance(node, Line):
            self._draw(node)
            return
        group = [node, *self._companions(node, pending, claims)]
        asked = [
            {n.iteration: n for n in pending if isinstance(n, Snapshot) and n.of == training}
            for training in group
        ]
        try:
            done = self._run_packed(group, asked) if len(group) > 1 else [self._run(node, asked[0])]
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            self.pack = len(group) // 2
            log.warning("%d networks at once need too much memory: %d", len(group), self.pack)
            return
        self._publish(group, done)
        self.made.update(group)

    def _companions(
        self, node: Training, pending: list[Stored], claims: ExitStack
    ) -> Iterator[Training]:
        """Others that are ready and nobody's, and go in a pack with `node`: now ours."""
        if self.pack == 1 or not packed.fits(self._model(node), node.recipe.optimizer):
            return
        left = self.pack - 1
        for other in pending:
            if left and other != node and self._fit_together(node, other) and self._is_ready(other):
                claimed = self._claim(other, claims)
                if claimed and not self.store.has_weights(other):
                    left -= 1
                    yield other  # type: ignore[misc]

    def _fit_together(self, one: Training, other: Stored) -> bool:
        if not isinstance(other, Training) or one.pruned != other.pruned:
            return False
        same = nodes.canonical(one.recipe) == nodes.canonical(other.recipe)
        return same and self._beginning(one) == self._beginning(other)

    def _beginning(self, training: Training) -> tuple[int, object]:
        """The first iteration, and what it would go on from."""
        saved = self.store.read_checkpoint(training)
        return training.start, position_of(saved) if saved else None

    def _model(self, training: Training) -> nn.Module:
        return build_model(Fresh(training.recipe.network, training.seed)).to(self.device)

    def _task(self, training: Training, snapshots: dict[int, Snapshot], *, saved: bool) -> Task:
        def publish(iteration: int, state: dict[str, Tensor]) -> None:
            self.store.publish(snapshots[iteration], {"state.safetensors": save(state)})

        log.info("training %s, level %d", training, training.mask.level)
        checkpoint = self.store.read_checkpoint(training) if saved else None
        return Task(_noise(training), snapshots, publish, checkpoint)

    def _run(
        self, training: Training, snapshots: dict[int, Snapshot], until: int | None = None
    ) -> Progress:
        """Train from where the last attempt was saved, to the end or `until` an iteration."""
        recipe, whole = training.recipe, until is None
        set_precision(recipe)  # criteria compute too
        return train(
            self._model(training),
            self._inputs.weights(training.weights, recipe.network),
            self._inputs.mask(training.mask, recipe.network),
            self._inputs.data(recipe),
            recipe,
            self._task(training, snapshots, saved=whole),
            start=training.start,
            pruned=training.pruned,
            until=until,
            only_eager=self.backend == "eager",
            tick=Ticker(self, [training], saving=whole),
        )

    def _run_packed(
        self, group: list[Training], snapshots: list[dict[int, Snapshot]]
    ) -> list[Progress]:
        first = group[0]
        recipe, network = first.recipe, first.recipe.network
        set_precision(recipe)
        stack = packed.Pack(
            self._model(first),
            [self._inputs.weights(training.weights, network) for training in group],
            [self._inputs.mask(training.mask, network) for training in group],
            recipe.optimizer,
            pruned=first.pruned,
        )
        asked = zip(group, snapshots, strict=True)
        return loop(
            stack.members,
            [self._task(training, of_it, saved=True) for training, of_it in asked],
            stack.step,
            self._inputs.data(recipe),
            recipe,
            start=first.start,
            tick=Ticker(self, group, saving=True),
        )

    def _draw(self, line: Line) -> None:
        """Evaluate the networks on a line and store what they give."""
        recipe = line.one.recipe
        one, other = (
            self._inputs.weights(Final(of), recipe.network) for of in (line.one, line.other)
        )
        test = self._inputs.data(recipe).test
        set_precision(recipe)
        points = interpolation.along(self._model(line.one), one, other, line.points, test)
        table = to_csv((point._asdict() for point in points), Point._fields)
        origin = json.dumps(provenance() | {"device": str(self.device)}, indent=1)
        self.store.publish(line, {"line.csv": table, "provenance.json": origin.encode()})
        self.made.add(line)

    def _publish(self, group: list[Training], done: list[Progress]) -> None:
        """Store what trainings that ran together came to."""
        examples = self._inputs.data(group[0].recipe)
        final = [(p.network.state(), p.network.evaluate(examples.train)[1]) for p in done]
        for progress in done:
            progress.network.load(progress.early)
        early = [progress.network.evaluate(examples.train)[1] for progress in done]
        for training, progress, (state, at_end), at_stop in zip(
            group, done, final, early, strict=True
        ):
            accuracies = {"early_stop_train_accuracy": at_stop, "final_train_accuracy": at_end}
            self._publish_one(training, progress, state, accuracies)

    def _publish_one(
        self,
        training: Training,
        progress: Progress,
        final: dict[str, Tensor],
        accuracies: dict[str, float],
    ) -> None:
        mask = self._inputs.mask(training.mask, training.recipe.network)
        examples = self._inputs.data(training.recipe)
        final = final if training.pruned == "frozen" else masks.apply(final, mask)
        weights = {name: (int(kept.sum()), kept.numel()) for name, kept in mask.items()}
        summary = {**accuracies, "weights": weights}
        origin = provenance() | {
            "device": str(self.device),
            "threads": self.threads,
            "backend": type(progress.network).__name__.lower(),
            "seconds": progress.seconds,
            "input_mean": examples.mean,
            "input_std": examples.std,
        }
        artefacts = {
            "curve.csv": curve_to_csv(progress.curve),
            "mask.safetensors": save(masks.pack(mask)),
            "final.safetensors": save(final),
            "summary.json": json.dumps(summary, indent=1).encode(),
            "provenance.json": json.dumps(origin, indent=1).encode(),
        }
        self.store.publish(training, artefacts)
        collapsed = [name for name, kept in mask.items() if not kept.any()]
        if collapsed:
            log.warning("%s: no weight is left in %s", training, ", ".join(collapsed))


def _noise(training: Training) -> int:
    """The seed of the streams for batches, augmentation and dropout: a copy has one of its own."""
    copy = stream_seed(training.seed, "copy", training.order)
    return copy if training.order else training.seed


class Ticker:
    """What happens between two steps of some trainings that run together: the clock, the pulse, the
    checkpoints, the wish to stop."""

    def __init__(self, engine: Engine, trainings: list[Training], *, saving: bool) -> None:
        self._engine = engine
        self._trainings = trainings
        self._saving = saving
        self._last = self._saved = time.monotonic()
        self._shown, self._at = -math.inf, 0

    def __call__(self, running: Sequence[Progress]) -> None:
        now = time.monotonic()
        for progress in running:
            progress.seconds += (now - self._last) / len(running)
        self._last = now
        if now - self._shown > PULSE_SECONDS:
            self._show(running[0].iteration, now)
        stopping = self._engine.stopping()
        if stopping or now - self._saved > self._engine.checkpoint_seconds:
            self._save(running, now)
        if stopping:
            raise Interrupted

    def _show(self, iteration: int, now: float) -> None:
        speed = (iteration - self._at) / (now - self._shown)
        for training in self._trainings:
            self._engine.pulse(training, iteration, speed)
        self._shown, self._at = now, iteration

    def _save(self, running: Sequence[Progress], now: float) -> None:
        if self._saving:
            for training, progress in zip(self._trainings, running, strict=True):
                self._engine.store.write_checkpoint(training, progress.to_bytes())
        self._saved = now
