"""Is what runs report what their settings promise? `lth.audit.rules`, applied to runs and to the
trainings behind them."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from lth.audit.run_rules import RUN_RULES, Run, opened
from lth.audit.training_rules import TRAINING_RULES, Case
from lth.engine.build import Inputs
from lth.errors import LotteryError
from lth.experiment import lottery, nodes
from lth.experiment.nodes import Stored, Training
from lth.runs import status
from lth.store import cleanup
from lth.training.data import Data

S = TypeVar("S")
MIXED = ("commit", "dirty", "python", "versions", "device", "threads", "backend")
"""What trainings should have in common, though their settings do not say it."""


class Violation(NamedTuple):
    """`rule` is broken in the folder `where`."""

    where: Path
    rule: str
    what: str


def broken(
    rules: Iterable[Callable[[S], Iterator[str]]], subject: S, where: Path
) -> Iterator[Violation]:
    """What each rule says of a subject; what keeps a rule from being checked breaks it."""
    for rule in rules:
        name = rule.__name__.replace("_", " ")
        try:
            yield from (Violation(where, name, what) for what in rule(subject))
        except Exception as error:  # whatever it is, the audit goes on
            yield Violation(where, name, f"cannot be checked: {error}")


@dataclass
class Audit:
    """Of runs and the trainings behind them, each once. `quick`: without evaluating any weights."""

    quick: bool = False
    runs: int = 0
    notes: dict[str, None] = field(default_factory=dict)
    """What could not be looked at, and mixtures that are no violation."""
    made_with: dict[str, set[str]] = field(default_factory=dict)
    """Versions, devices and the like of the trainings -> their values."""
    _seen: set[Stored] = field(default_factory=set)
    _inputs: dict[tuple[Path, str], Inputs] = field(default_factory=dict)

    @property
    def trainings(self) -> int:
        return sum(isinstance(node, Training) for node in self._seen)

    def mixtures(self) -> Iterator[str]:
        """What the trainings differ in that settings do not say."""
        for name, values in self.made_with.items():
            if len(values) > 1:
                yield f"trainings of several kinds of {name}: {', '.join(sorted(values))}"

    def of_run(self, path: Path) -> Iterator[Violation]:
        """Everything that is not as it should be in a run's folder and behind it."""
        self.runs += 1
        try:
            if "spec" not in status.read_whole(path):
                self._note(f"{path}: it was refused before it began")
                return
            run = opened(path)
        except LotteryError as error:
            yield Violation(path, "runs can be read", str(error))
            return
        yield from broken(RUN_RULES, run, path)
        if not cleanup.is_store(run.store.root):
            self._note(f"{run.store.root}: no store there, so that no training was looked at")
            return
        reported = {row["training"] for row in run.levels}
        for node in nodes.missing(lottery.wanted(run.spec), lambda _: False):
            if node not in self._seen and (run.store.exists(node) or node.digest in reported):
                self._seen.add(node)
                yield from self._of_node(node, run)

    def _of_node(self, node: Stored, run: Run) -> Iterator[Violation]:
        where = run.store.path(node)
        if not run.store.exists(node):
            yield Violation(where, "trainings are stored", "it is not there")
        elif isinstance(node, Training):
            yield from self._of_training(node, run, where)
        else:
            faults = cleanup.faults_of(cleanup.entry(where))
            yield from (Violation(where, "files are whole", fault) for fault in faults)

    def _of_training(self, training: Training, run: Run, where: Path) -> Iterator[Violation]:
        inputs = self._inputs_of(run)
        data = None if self.quick else self._data(inputs, training)
        case = Case(training, run.store, inputs, data)
        yield from broken(TRAINING_RULES, case, where)
        self._remember(case)

    def _inputs_of(self, run: Run) -> Inputs:
        key = run.store.root, run.spec.dataset.root
        if key not in self._inputs:
            self._inputs[key] = run.inputs()
        return self._inputs[key]

    def _data(self, inputs: Inputs, training: Training) -> Data | None:
        try:
            return inputs.data(training.recipe)
        except LotteryError as error:
            self._note(f"no weights were evaluated: {error}")
            return None

    def _note(self, text: str) -> None:
        self.notes[text] = None

    def _remember(self, case: Case) -> None:
        with suppress(OSError, ValueError):
            origin = json.loads(case.file("provenance.json"))
            for name in MIXED:
                self.made_with.setdefault(name, set()).add(json.dumps(origin.get(name)))
