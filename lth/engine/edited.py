"""Find out whether a training is made only because user code was edited."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from lth.experiment.nodes import Training, describe
from lth.store.files import read
from lth.store.store import Store

MOST = 2000
"""Number of stored nodes that are compared: a large store on a file server is slow to read."""


def edited(training: Training, store: Store) -> list[str]:
    """Return the names of the user code whose fingerprint is all that distinguishes a training from
    a stored one. Empty if there is none among the first MOST nodes of the store."""
    own = _expanded(training.digest, describe(training))
    codes = dict(_codes(own))
    for stored in _stored_with(codes, store) if codes else ():
        theirs = dict(_codes(stored))
        changed = [name for name, code in codes.items() if theirs.get(name) != code]
        if changed and _without_code(stored) == _without_code(own):
            return changed
    return []


def _stored_with(names: Iterable[str], store: Store) -> Iterator[Any]:
    """Yield the descriptions of stored nodes that name the same user code."""
    for folder in islice(store.folders(), MOST):
        content = read(folder / "node.json") or b""
        if all(name.encode() in content for name in names):
            described = json.loads(content)
            yield _expanded(described["digest"], described["nodes"])


def _expanded(value: Any, nodes: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    """Replace digests of described nodes by their canonical forms."""
    if isinstance(value, dict):
        return {key: _expanded(item, nodes) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, nodes) for item in value]
    known = isinstance(value, str) and value in nodes
    return _expanded(nodes[value], nodes) if known else value


def _codes(form: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Yield (name, fingerprint) of each target that is user code."""
    if isinstance(form, dict):
        if _is_own(form):
            yield form["name"], form["code"]
        for item in form.values():
            yield from _codes(item)


def _without_code(form: Any) -> Any:  # noqa: ANN401
    if not isinstance(form, dict):
        return form
    own = _is_own(form)
    return {k: _without_code(item) for k, item in form.items() if not (own and k == "code")}


def _is_own(form: dict[str, Any]) -> bool:
    """Return whether a canonical form is that of a target that is user code
    (`lth.experiment.targets.Target.content`)."""
    return {"name", "options", "code"} <= form.keys()
