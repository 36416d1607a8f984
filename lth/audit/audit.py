"""Audit runs and the trainings behind them by the rules of `run_rules` and `training_rules`."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from lth.audit.run_rules import RUN_RULES, Run, fastest_device, open_run
from lth.audit.step_rules import STEP_RULES
from lth.audit.training_rules import TRAINING_RULES, Case
from lth.engine.build import Builder
from lth.engine.scheduler import missing
from lth.errors import LotteryError
from lth.experiment.config import is_edited
from lth.experiment.node import Stored
from lth.experiment.nodes import Pruned, Training
from lth.runs import status
from lth.store import cleanup
from lth.store.store import Damaged
from lth.training.data import Data

S = TypeVar("S")
MIXED = ("commit", "dirty", "python", "versions", "device", "threads", "backend")
"""Provenance that trainings of one experiment should share, though settings do not state it."""


class Violation(NamedTuple):
    """A rule that does not hold in the folder `where`, and what was found."""

    where: Path
    rule: str
    what: str


def _reported(run: Run) -> set[str]:
    """Return the digests of levels.csv; none if it cannot be read, which rules of runs find."""
    try:
        return {row["training"] for row in run.levels}
    except (LotteryError, OSError, KeyError, ValueError):
        return set()


def violations(
    rules: Iterable[Callable[[S], Iterator[str]]], subject: S, where: Path
) -> Iterator[Violation]:
    """Yield what each rule finds. A rule that raises counts as violated."""
    for rule in rules:
        name = rule.__name__.replace("_", " ")
        try:
            yield from (Violation(where, name, what) for what in rule(subject))
        except Exception as error:  # whatever it is, the audit continues
            yield Violation(where, name, f"the rule cannot be checked: {error}")


@dataclass
class Audit:
    """Audits runs, and each training behind them once. `quick`: evaluate no weights."""

    quick: bool = False
    runs: int = 0
    notes: dict[str, None] = field(default_factory=dict)
    """Checks that could not be made, as an ordered set of messages."""
    made_with: dict[str, set[str]] = field(default_factory=dict)
    """Kind of provenance -> its values over all trainings."""
    _seen: set[Stored] = field(default_factory=set)
    _repeated: set[Training] = field(default_factory=set)
    _builders: dict[tuple[Path, str, torch.device], Builder] = field(default_factory=dict)

    @property
    def trainings(self) -> int:
        return sum(isinstance(node, Training) for node in self._seen)

    def mixtures(self) -> Iterator[str]:
        """Yield differences in provenance between trainings. They are not violations."""
        for name, values in self.made_with.items():
            if len(values) > 1:
                yield f"trainings differ in {name}: {', '.join(sorted(values))}"

    def of_run(self, path: Path) -> Iterator[Violation]:
        """Yield every violation in a run's folder and in the trainings behind it."""
        self.runs += 1
        try:
            if "spec" not in status.read_whole(path):
                self._note(f"{path}: the run was refused before it started")
                return
            run = open_run(path)
        except LotteryError as error:
            yield Violation(path, "runs can be read", str(error))
            return
        yield from violations(RUN_RULES, run, path)
        if not cleanup.is_store(run.store.root):
            self._note(f"{run.store.root}: there is no store, so no training was checked")
            return
        reported = _reported(run)
        for node in missing([node for _, node in run.nodes], lambda _: False):
            if node not in self._seen and (run.store.exists(node) or node.digest in reported):
                self._seen.add(node)
                yield from self._of_node(node, run)
        yield from self._of_last_level(run)

    def _of_node(self, node: Stored, run: Run) -> Iterator[Violation]:
        where = run.store.path(node)
        if not run.store.exists(node):
            yield Violation(where, "trainings are stored", "it is not in the store")
        elif isinstance(node, Training):
            yield from self._of_training(node, run, where)
        else:
            faults = cleanup.faults_of(cleanup.entry(where))
            yield from (Violation(where, "files are whole", fault) for fault in faults)

    def _of_training(self, training: Training, run: Run, where: Path) -> Iterator[Violation]:
        build = self._builder(run, fastest_device())
        data = None if self.quick else self._data(build, training)
        case = Case(training, run.store, build, data)
        yield from self._checked(TRAINING_RULES, case, where)
        self._remember(case)

    def _of_last_level(self, run: Run) -> Iterator[Violation]:
        """Check the steps of the run's last stored level: its sparsest, where fast paths are used.
        They are repeated on the kind of device that made them: dropout draws others elsewhere."""
        stored = [training for training in run.trainings.values() if run.store.exists(training)]
        if self.quick or not stored or stored[-1] in self._repeated:
            return
        self._repeated.add(last := stored[-1])
        device = _device_of(last, run)
        if device == "cuda" and not torch.cuda.is_available():
            self._note("no steps of trainings on cuda were repeated: torch finds no such device")
        elif device is not None:
            build = self._builder(run, torch.device(device))
            case = Case(last, run.store, build, self._data(build, last))
            yield from self._checked(STEP_RULES, case, run.store.path(last))

    def _checked(
        self, rules: Iterable[Callable[[Case], Iterator[str]]], case: Case, where: Path
    ) -> Iterator[Violation]:
        """Yield what each rule finds in a training. If it finds anything, note the user code that
        was edited since: the audit runs it as it is now."""
        found = list(violations(rules, case, where))
        for name in _edited(case.training) if found else ():
            self._note(
                f"{name} was edited after trainings that use it, which alone may be why what is "
                "computed with it now differs from what they recorded"
            )
        yield from found

    def _builder(self, run: Run, device: torch.device) -> Builder:
        root = run.spec.dataset.root
        key = run.store.root, root, device
        if key not in self._builders:
            self._builders[key] = Builder(run.store, Path(root), device)
        return self._builders[key]

    def _data(self, build: Builder, training: Training) -> Data | None:
        try:
            return build.data(training.recipe)
        except LotteryError as error:
            self._note(f"no weights were evaluated: {error}")
            return None

    def _note(self, text: str) -> None:
        self.notes[text] = None

    def _remember(self, case: Case) -> None:
        with suppress(OSError, ValueError):
            origin = json.loads(case.file("provenance.json"))
            for part in (origin, *origin.get("parts", ())):
                for name in MIXED:
                    self.made_with.setdefault(name, set()).add(json.dumps(part.get(name)))


def _edited(training: Training) -> list[str]:
    """Return the names of the user code of a training that was edited since."""
    recipe, mask = training.recipe, training.mask
    targets = [recipe.model, recipe.dataset.loader, recipe.optimizer]
    targets += [mask.rule.criterion] if isinstance(mask, Pruned) else []
    return [target.name for target in targets if is_edited(target)]


def _device_of(training: Training, run: Run) -> str | None:
    """Return `cpu` or `cuda`; None if the record is damaged, which another rule reports."""
    try:
        name: str = json.loads(run.store.read(training, "provenance.json"))["device"]
        return torch.device(name).type
    except (Damaged, ValueError, KeyError, RuntimeError):
        return None
