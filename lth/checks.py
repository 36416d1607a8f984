"""What can be refused before anything is trained."""

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from lth import models, pruning
from lth.errors import LotteryError
from lth.graph import Fresh
from lth.inputs import build_model
from lth.spec import Spec, load, recipe, rule


def check(spec: Spec) -> None:
    """Raise LotteryError where the model, the criterion or the optimiser cannot be had, or where a
    level would prune nothing, or everything that is left."""
    how = rule(spec.pruning)
    load(how.criterion)
    model = _call("model", build_model, Fresh(recipe(spec).network, spec.seed))
    _call(
        "optimizer", inspect.signature(load(spec.optimizer.path)).bind, (), **spec.optimizer.options
    )
    types = models.prunable(model)
    sizes = {name: model.get_parameter(name).numel() for name in types}
    rates = {name: how.rates[kind] for name, kind in types.items()}
    rungs = pruning.ladder(sizes, rates, spec.pruning.levels)
    for level, (before, after) in enumerate(pairwise(sum(r.values()) for r in rungs), start=1):
        if after in (before, 0):
            taken = "the last" if after == 0 else "none"
            raise LotteryError(
                f"pruning.levels={spec.pruning.levels}: with pruning.rate={spec.pruning.rate:g}, "
                f"level {level} would take {taken} of the {before:,} weights left. "
                f"Set pruning.levels={level - 1} or lower, or another rate."
            )


def _call(group: str, build: Callable[..., Any], *args: object, **kwargs: object) -> Any:  # noqa: ANN401
    try:
        return build(*args, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LotteryError(f"{group}: it cannot be built ({error}). See conf/{group}/ for what the "
                           "networks and optimisers here take.") from error  # fmt: skip
