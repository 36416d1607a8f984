"""The claims of the paper (`paper.csv`): each a rule, the preset that it is about, and a value."""

import csv
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

PAPER = Path(__file__).with_name("paper.csv")


class Condition(NamedTuple):
    """A condition on one setting: `name=value|value` or `name!=value|value`, values as in JSON; a
    setting that a run does not have is null."""

    setting: str
    values: tuple[Any, ...]
    negated: bool

    def holds(self, identity: Mapping[str, Any]) -> bool:
        return (identity.get(self.setting) in self.values) != self.negated


def conditions(text: str) -> Iterator[Condition]:
    """Parse conditions separated by spaces; all must hold."""
    for word in text.split():
        name, _, values = word.partition("=")
        negated = name.endswith("!")
        yield Condition(name.rstrip("!"), tuple(map(_value, values.split("|"))), negated)


def _value(word: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(word)
    except ValueError:
        return word


class Claim(NamedTuple):
    """A row of paper.csv. `preset`: the presets that it is about, `*` standing for any characters;
    `where`: conditions on settings, for variants that are no preset; `rule`: a name in RULES, or
    `name:argument`; `level` or `density` (percent): where it holds, if at one place; `depth`:
    the density that runs must reach; `bound`: = about, >= at least, <= at most, > more than
    `value`; `trials`: the number of trials of which the value is the mean, 0 for one that does not
    depend on chance; `digits`: decimals of the value as the paper prints it."""

    id: str
    preset: str
    where: str
    rule: str
    arm: str
    level: int | None
    density: float | None
    depth: float | None
    bound: str
    value: float
    unit: str
    says: str
    source: str
    trials: int
    digits: int

    @property
    def name(self) -> str:
        return self.rule.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.rule.partition(":")[2]

    @property
    def variant(self) -> set[str]:
        """Names of the settings that `where` is about: the claim allows them to differ."""
        return {condition.setting for condition in conditions(self.where)}

    def matches(self, preset: str) -> bool:
        return fnmatchcase(preset, self.preset)

    def is_about(self, preset: str, identity: Mapping[str, Any]) -> bool:
        """Return whether the claim is about runs with this preset and these settings."""
        holds = (condition.holds(identity) for condition in conditions(self.where))
        return self.matches(preset) and all(holds)


def paper_claims() -> list[Claim]:
    """Read paper.csv."""
    with PAPER.open(encoding="utf-8", newline="") as file:
        return [_claim(row) for row in csv.DictReader(file)]


def _claim(row: dict[str, str]) -> Claim:
    names = ("level", "density", "depth", "value")
    own = {name: float(row[name]) if row[name] else None for name in names}
    digits = len(row["value"].partition(".")[2])
    level = None if own["level"] is None else int(own["level"])
    trials = int(row["trials"] or 0)
    known = {**row, **own, "level": level, "trials": trials}
    return Claim(**known, digits=digits)  # type: ignore[arg-type]
