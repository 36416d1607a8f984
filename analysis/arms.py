"""Names of the arms that figures and claims select, made by the function that names every arm."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from lth.experiment.names import arm_name
from lth.experiment.settings import Pruning, Rewind, Spec
from lth.experiment.targets import Target

PRUNING: dict[str, Any] = {
    "criterion": Target("magnitude", {}, None), "at": "end", "mode": "iterative",
    "scope": "layerwise", "rounds": 1, "levels": 1, "rate": 20.0, "rates": None,
    "final_density": None, "conv_rate": None, "linear_rate": None, "output_rate": None,
    "shortcut_rate": None, "settled": None, "update": None, "granularity": "weight",
}  # fmt: skip
REWIND: dict[str, Any] = {
    "kind": "init", "iteration": 0, "survivors": "rewind", "pruned": "zero", "shuffle": False,
    "draw": 0, "budget": "level",
}  # fmt: skip


def _arm(**changes: object) -> str:
    """Return the name of the arm that departs from the winning ticket by these settings."""
    pruning, rewind = (
        group | {name: value for name, value in changes.items() if name in group}
        for group in (PRUNING, REWIND)
    )
    # arm_name reads nothing else of a Spec
    spec = SimpleNamespace(pruning=Pruning(**pruning), rewind=Rewind(**rewind), source=None)
    return arm_name(cast(Spec, spec))


TICKET = _arm()
REINIT = _arm(survivors="reinit")
RANDOM_CRITERION = Target("random", {}, None)
RANDOM = _arm(criterion=RANDOM_CRITERION, at="init")
ONE_SHOT = _arm(mode="one_shot")
ONE_SHOT_REINIT = _arm(mode="one_shot", survivors="reinit")
RANDOM_REINIT = _arm(criterion=RANDOM_CRITERION, at="init", survivors="reinit")
CONTINUED = _arm(kind="continue")

ARMS = (TICKET, REINIT, RANDOM, ONE_SHOT, ONE_SHOT_REINIT)
"""The arms that the paper draws, in the order in which they are shown; all others follow."""


def in_order(arms: Iterable[str]) -> list[str]:
    """Return arms in the order in which they are shown."""
    return sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))
