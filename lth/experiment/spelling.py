"""Suggest the names that a misspelt name may stand for. No torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

CLOSE = 0.7
"""Least similarity of two words, in [0, 1]."""
MOST = 3
"""The most suggestions at once."""


def names_in(settings: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the dotted names of everything in nested mappings, and of these mappings."""
    for key, value in settings.items():
        yield f"{path}{key}"
        if isinstance(value, Mapping):
            yield from names_in(value, f"{path}{key}.")


def similar_settings(name: str, names: Iterable[str]) -> list[str]:
    """Return the most similar setting of the same group; else those of other groups with the same
    last part."""
    group, last = _parts(name)
    beside = {_parts(other)[1]: other for other in sorted(names) if _parts(other)[0] == group}
    same = [other for other in sorted(names) if _parts(other)[1] == last]
    close = [beside[found] for found in get_close_matches(last, beside, 1, CLOSE)]
    return close or same[:MOST]


def _parts(name: str) -> tuple[str, str]:
    """Return the group of a setting and the rest; Hydra names groups of groups with slashes."""
    group, _, last = name.replace("/", ".").rpartition(".")
    return group, last


def similar_options(option: str, options: Iterable[str]) -> list[str]:
    """Return the options of a group whose names contain `option`, or are similar to it."""
    options = list(options)
    containing = [other for other in options if option in other]
    return [*dict.fromkeys([*containing, *get_close_matches(option, options)])][:MOST]


def did_you_mean(names: Sequence[str]) -> str:
    """Return the end of a sentence that asks whether one of `names` was meant; empty without."""
    *others, last = names or [""]
    words = f"{', '.join(others)} or {last}" if others else last
    return f"; did you mean {words}?" if words else ""
