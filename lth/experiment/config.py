"""The door: from a composed configuration to a Spec. Only this file and those that start Hydra know
it; below there is no configuration, only values."""

import json
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from lth.errors import LotteryError
from lth.experiment.settings import Spec, flat

TIMED = ("training", "optimizer", "rewind", "probe")
"""The groups with durations, which may be given in epochs."""


def from_config(config: DictConfig) -> Spec:
    """The Spec of a composed configuration.

    Raises LotteryError naming each key at fault, the value given and what is allowed.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise LotteryError(f"{', '.join(missing)}: not set, and there is no default. "
                           f"Say {missing[0]}=... on the command line.")  # fmt: skip
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for name, value in flat(plain):
        if isinstance(value, float) and not math.isfinite(value):
            raise LotteryError(f"{name}={value}: a finite number is wanted.")
    try:
        return TypeAdapter(Spec).validate_json(json.dumps(_in_iterations(plain)))
    except ValidationError as error:
        raise LotteryError("\n".join(_complaint(fault) for fault in error.errors())) from error


def _in_iterations(plain: Any) -> Any:  # noqa: ANN401 - whatever was composed
    """Durations such as 50ep and 30000it of TIMED as iterations; an epoch is as many whole
    batches as there are. What is no number is left for the schema to refuse.
    """
    try:
        dataset, training = plain["dataset"], plain["training"]
        kept = dataset["examples"] - dataset["validation"] - dataset["test"]
        lengths = {"it": 1, "ep": kept // training["batch_size"]}
    except (TypeError, KeyError, ZeroDivisionError):
        return plain
    if lengths["ep"] < 1 and training["batch_size"] > 0:
        raise LotteryError(
            f"training.batch_size={training['batch_size']}: {kept} examples are left to train on "
            "(dataset.examples less validation and test), not one whole batch. Set less aside, or "
            "use smaller batches."
        )
    timed = {group: plain[group] for group in TIMED if group in plain}
    return {**plain, **_converted(timed, lengths)}


def _converted(value: Any, lengths: Mapping[str, int]) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _converted(item, lengths) for key, item in value.items()}
    if isinstance(value, list):
        return [_converted(item, lengths) for item in value]
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)(it|ep)", value)):
        return round(Fraction(found[1]) * lengths[found[2]])
    return value


def _complaint(fault: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    where = ".".join(str(part) for part in fault["loc"])
    given = "" if isinstance(fault["input"], Mapping) else f"={fault['input']}"
    return f"{where}{given}: {fault['msg']}. See conf/ for what each group takes."
