"""The engine makes trainings exist: look up, claim, materialise the inputs, train, publish."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from lth import graph, masks, models
from lth.errors import Interrupted, LotteryError
from lth.graph import Fresh, Snapshot, Stored, Training
from lth.inputs import Inputs, build_model
from lth.provenance import provenance
from lth.records import Outcome, curve_to_csv
from lth.store import Damaged, Store
from lth.training import Progress, evaluate, train

log = logging.getLogger(__name__)

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

    def ensure(self, wanted: Iterable[Training]) -> Iterator[tuple[Training, Outcome]]:
        """Make all of `wanted` exist, and what they need; yield each with its outcome as soon as it
        does. Processes on one store share the work.

        Raises Interrupted once `stopping()`, with the training in progress saved.
        """
        waiting = list(wanted)
        while waiting:
            try:
                for training in [node for node in waiting if self.store.exists(node)]:
                    yield training, self.store.outcome(training)
                    waiting.remove(training)
                self._make_one(graph.missing(waiting, self.store.exists, self.store.has_weights))
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
        """Make the first of `pending` that is ready and nobody else's; else wait a little."""
        for node in pending:
            if self.stopping():
                raise Interrupted
            ready = all(map(self.store.has_weights, graph.parents(node)))
            claim = self.store.claim(node) if ready else None
            if claim is not None:
                with claim:
                    self._make(node, pending)
                return
            if ready and node not in self._awaited:
                self._awaited.add(node)
                log.info("%s is being made by %s", node, self.store.holder(node))
        if pending:
            time.sleep(POLL_SECONDS)

    def _make(self, node: Stored, pending: list[Stored]) -> None:
        if self.store.has_weights(node):  # published between the look and the claim
            return
        if isinstance(node, Snapshot):  # nobody had asked for it when its training ran
            self._run(node.of, {node.iteration: node}, until=node.iteration)
        else:
            asked = (n for n in pending if isinstance(n, Snapshot) and n.of == node)
            self._publish(node, self._run(node, {n.iteration: n for n in asked}))
        self.made.add(node)

    def _run(
        self, training: Training, snapshots: dict[int, Snapshot], until: int | None = None
    ) -> Progress:
        """Train from where the last attempt was saved, to the end or `until` an iteration."""

        def publish(iteration: int, state: dict[str, Tensor]) -> None:
            self.store.publish(snapshots[iteration], {"state.safetensors": save(state)})

        log.info("training %s, level %d", training, training.mask.level)
        network = training.recipe.network
        with torch.random.fork_rng(devices=[]):
            return train(
                build_model(Fresh(network, training.seed)).to(self.device),
                self._inputs.weights(training.weights, network),
                self._inputs.mask(training.mask, network),
                self._inputs.data(training.recipe),
                training.recipe,
                seed=training.seed,
                start=training.start,
                pruned=training.pruned,
                until=until,
                snapshots=snapshots,
                on_snapshot=publish,
                checkpoint=self.store.read_checkpoint(training) if until is None else None,
                tick=Ticker(self, training, saving=until is None),
            )

    def _publish(self, training: Training, progress: Progress) -> None:
        mask = self._inputs.mask(training.mask, training.recipe.network)
        examples = self._inputs.data(training.recipe)
        final = models.state(progress.model)
        final = final if training.pruned == "frozen" else masks.apply(final, mask)
        final_accuracy = evaluate(progress.model, examples.train)[1]
        progress.model.load_state_dict(progress.early)
        summary = {
            "early_stop_train_accuracy": evaluate(progress.model, examples.train)[1],
            "final_train_accuracy": final_accuracy,
            "weights": {name: (int(kept.sum()), kept.numel()) for name, kept in mask.items()},
        }
        origin = provenance() | {
            "device": str(self.device),
            "threads": self.threads,
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


class Ticker:
    """What happens between two steps: the clock, the pulse, the checkpoint, the wish to stop."""

    def __init__(self, engine: Engine, training: Training, *, saving: bool) -> None:
        self._engine = engine
        self._training = training
        self._saving = saving
        self._last = self._saved = time.monotonic()
        self._shown, self._at = -math.inf, 0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        progress.seconds += now - self._last
        self._last = now
        if now - self._shown > PULSE_SECONDS:
            speed = (progress.iteration - self._at) / (now - self._shown)
            self._engine.pulse(self._training, progress.iteration, speed)
            self._shown, self._at = now, progress.iteration
        stopping = self._engine.stopping()
        due = stopping or now - self._saved > self._engine.checkpoint_seconds
        if due and self._saving:
            self._engine.store.write_checkpoint(self._training, progress.to_bytes())
            self._saved = now
        if stopping:
            raise Interrupted
