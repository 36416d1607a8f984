"""Targets: callables named in a configuration, with their options; the canonical form of values.

Digests are hashes of canonical forms. Values that mean the same have the same form: whole floats
become integers, options at their neutral value are left out, and objects are replaced by their
content.
"""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lth.errors import LotteryError
from lth.experiment.builtins import BUILTINS

SCALARS = (str, int, float, bool, type(None))
"""Types of JSON values that hold no others."""
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@runtime_checkable
class Identified(Protocol):
    """A value that takes part in digests."""

    def content(self) -> dict[str, Any]:
        """Return everything that decides results, by keys that do not change with field names."""


@runtime_checkable
class Digested(Protocol):
    """A value that stands in digests by its own digest."""

    digest: str


def canonical(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the canonical form of `value` (see above)."""
    if type(value) in SCALARS:
        return whole(value)
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, Raw):
        return value.value
    if isinstance(value, Digested):  # the protocols come last: to ask for one takes 40 us
        return value.digest
    if isinstance(value, Identified):
        return canonical(value.content())
    return whole(value)


def whole(value: Any) -> Any:  # noqa: ANN401 - any scalar
    """Return a whole float as an integer: 10.0 and 10 are the same rate."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_neutral(content: Mapping[str, Any], neutral: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` without the entries at their neutral value, so that an option added later
    does not change the digests of runs that do not use it. `False` and 0 are different values."""
    return {key: value for key, value in content.items() if not _is_neutral(key, value, neutral)}


def _is_neutral(key: str, value: object, neutral: Mapping[str, Any]) -> bool:
    return key in neutral and repr(canonical(value)) == repr(canonical(neutral[key]))


@dataclasses.dataclass(frozen=True)
class Raw:
    """A JSON value that the canonical form does not change: 1 and 1.0 stay different."""

    value: Any


@dataclass(frozen=True, config=STRICT)
class Target:
    """A callable and its keyword arguments."""

    name: str
    """The id of a built-in (`lth.experiment.builtins`), or the dotted path of user code."""
    options: dict[str, Any]
    code: str | None
    """Fingerprint of user code: a hash of its module's source, or a version that its user
    declared. None for built-ins."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it returns
        return load(self.name)(*args, **self.options, **kwargs)

    def content(self) -> dict[str, Any]:
        if self.name in BUILTINS:
            neutral = BUILTINS[self.name].neutral
            return {"name": self.name, "options": without_neutral(self.options, neutral)}
        return {"name": self.name, "options": Raw(self.options), "code": self.code}


def load(name: str) -> Any:  # noqa: ANN401 - whatever it names
    """Return the object with this id or dotted path. Raises LotteryError if there is none."""
    path = BUILTINS[name].path if name in BUILTINS else name
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        raise LotteryError(
            f"{name} must be the id of a built-in or the dotted path of a class or function that "
            f"can be imported, e.g. lth.models.LeNet ({error}). Check its spelling, and that its "
            "folder is on PYTHONPATH."
        ) from error


class Settings:
    """Base of groups of settings. `NEUTRAL`: values at which a setting is left out of digests."""

    NEUTRAL: ClassVar[Mapping[str, Any]] = {}

    def content(self) -> dict[str, Any]:
        return without_neutral(self.deciding(), self.NEUTRAL)

    def deciding(self) -> dict[str, Any]:
        """Return every setting that decides results, by a key that never changes."""
        raise NotImplementedError


def flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of everything in nested mappings."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", item
