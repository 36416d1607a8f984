"""Turn a composed Hydra configuration into a Spec. No other module of lth reads configurations."""

import functools
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from lth.errors import LotteryError
from lth.experiment.builtins import BUILTINS, IDS
from lth.experiment.consistency import check_consistency
from lth.experiment.schedule import batches_per_epoch
from lth.experiment.settings import Spec
from lth.experiment.smoke import for_smoke
from lth.experiment.spelling import did_you_mean, names_in, similar_settings
from lth.experiment.targets import Target, flat, load

CONF = Path(__file__).parents[2] / "conf"
VERSION_BASE = {"version_base": "1.3"} if version("hydra-core").startswith("1.3.") else {}
"""An argument of Hydra's functions: needed before version 1.4, deprecated since."""
TIMED = ("training", "optimizer", "pruning", "rewind", "probe")
"""Groups with durations, which may be given in epochs."""
TARGETS = (
    "model", "dataset.loader", "optimizer", "pruning.criterion", "probe", "tracker",
    "source.dataset.loader", "source.optimizer",
)  # fmt: skip
"""Settings that name code: an id or a dotted path, or either as `_target_` beside its options."""


def from_config(config: DictConfig) -> Spec:
    """Return the Spec of a composed configuration, shrunk if it says `smoke=true`. Raises what
    `whole_from_config` raises."""
    spec = whole_from_config(config)
    return for_smoke(spec) if spec.smoke else spec


def whole_from_config(config: DictConfig) -> Spec:
    """Return the Spec of a composed configuration, at its full size.

    Raises LotteryError naming each invalid setting, what must hold, and the value given; or each
    invalid combination of settings.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise LotteryError(
            f"{', '.join(missing)} must be set, and there is no default: add {missing[0]}=... to "
            "the command line."
        )
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for name, value in flat(plain):
        if isinstance(value, float) and not math.isfinite(value):
            raise LotteryError(f"{name} must be a finite number, got {value}")
    if plain.get("source"):
        plain["source"] = _filled(plain["source"], plain)
    for place in TARGETS:
        _name_target(plain, place.split("."))
    if plain.get("source"):
        _convert_source(plain)
    spec = validated(_in_iterations(plain))
    check_consistency(spec)
    return spec


def _filled(source: Any, own: Any) -> Any:  # noqa: ANN401 - any composed values
    """Return the settings of a source: those that are null or missing are the run's own. Another
    function is called with its own arguments alone."""
    if not isinstance(source, dict) or not isinstance(own, dict):
        return own if source is None else source
    if "_target_" in source:
        kept = {"schedule": own["schedule"]} if "schedule" in own else {}
        return {**kept, **{name: value for name, value in source.items() if value is not None}}
    names = {*source, *own} if "weights" not in source else {*source}
    return {name: _filled(source.get(name), own.get(name)) for name in names}


def composed(*overrides: str) -> Spec:
    """Return the Spec of overrides as typed on the command line, e.g. `preset=lenet`, composed from
    the YAMLs of conf/. Raises Hydra's errors for unknown settings, and those of `from_config`."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return from_config(compose("config", overrides=list(overrides)))


@functools.cache
def option_target(group: str, option: str) -> str | None:
    """Return the dotted path of the code that an option of `model` or `dataset` names in its YAML
    or those it extends, "" if none does; None if conf/ has no such option."""
    file = CONF / group / f"{option}.yaml"
    if not file.is_file():
        return None
    content: Any = OmegaConf.load(file)
    found = OmegaConf.select(content, "_target_" if group == "model" else "loader._target_")
    bases = [name for name in content.get("defaults", []) if name != "_self_"]
    return found or (option_target(group, bases[0]) if bases else "")


def validated(plain: Any) -> Spec:  # noqa: ANN401 - any JSON value
    """Return the Spec of plain values. Raises LotteryError naming every invalid setting."""
    try:
        return TypeAdapter(Spec).validate_json(json.dumps(plain))
    except ValidationError as error:
        names = {name.replace(".options.", ".") for name in names_in(plain)}
        faults = _without_repeats(error.errors(), plain)
        raise LotteryError("\n".join(_complaint(e, names) for e in faults)) from error


def _without_repeats(faults: Sequence[Any], plain: Any) -> list[Any]:  # noqa: ANN401
    """Return faults without that of a split_seed which only repeats the seed's."""
    of_seed = any(fault["loc"] == ("seed",) for fault in faults)
    repeated = of_seed and plain.get("split_seed") == plain.get("seed")
    return [fault for fault in faults if not (repeated and fault["loc"] == ("split_seed",))]


def _name_target(plain: Any, place: list[str]) -> None:  # noqa: ANN401
    """Replace Hydra's form of a target, in place, by its name, options, and code."""
    *groups, last = place
    for group in groups:
        plain = plain.get(group) if isinstance(plain, dict) else None
    value = plain.get(last) if isinstance(plain, dict) else None
    if isinstance(value, str):
        value = {"_target_": value}
    if not isinstance(value, dict) or "_target_" not in value:
        return
    options = {key: option for key, option in value.items() if key != "_target_"}
    name = IDS.get(str(value["_target_"]), str(value["_target_"]))
    own = {"schedule": options.pop("schedule", None)} if last == "optimizer" else {}
    code = None if name in BUILTINS else _fingerprint(name, options)
    plain[last] = {"name": name, "options": options, "code": code, **own}


def _fingerprint(name: str, options: dict[str, Any]) -> str | None:
    """Return the fingerprint of a user's function, which is part of digests: the `_version_` beside
    its `_target_`, or a hash of its source. None if there is no such module."""
    if "_version_" in options:
        return f"version:{options.pop('_version_')}"
    return _source_hash(name)


def is_edited(target: Target) -> bool:
    """Return whether the source of user code is no longer the one whose hash a target has. False if
    its user declared a version instead."""
    recorded = target.code or ""
    return recorded.startswith("sha256:") and _source_hash(target.name) != recorded


@functools.cache
def _source_hash(name: str) -> str | None:
    """Return a hash of the module in which a dotted path finds an object and, if it only re-exports
    the object, of the one that defines it; None if there is no such module. Cached, because a
    process imports a module only once."""
    module = name.rpartition(".")[0]
    sources = [_source(found) for found in dict.fromkeys((module, _definer(name, module)))]
    if not any(sources):
        return None
    return f"sha256:{hashlib.sha256(b''.join(sources)).hexdigest()[:16]}"


def _definer(name: str, module: str) -> str:
    """Return the module that defines an object; `module` if it cannot be imported, which is
    reported when the run is checked."""
    try:
        return str(getattr(load(name), "__module__", module))
    except LotteryError:
        return module


def _source(module: str) -> bytes:
    """Return the source of a module; nothing if it cannot be found or read."""
    try:
        found = importlib.util.find_spec(module)
        return Path(str(found.origin)).read_bytes() if found else b""
    except (ImportError, ValueError, OSError):
        return b""


def _convert_source(plain: Any) -> None:  # noqa: ANN401 - whatever was composed
    """Convert the durations of the source, in place, and those of masks that settle or move: they
    do so in its trainings."""
    source, pruning = plain["source"], plain.get("pruning")
    plain["source"] = _in_iterations(source)
    if isinstance(source, dict) and isinstance(pruning, dict):
        found = {name: pruning[name] for name in ("settled", "update") if pruning.get(name)}
        pruning.update(_in_iterations({**source, "pruning": found})["pruning"])


def _in_iterations(plain: Any) -> Any:  # noqa: ANN401 - whatever was composed
    """Convert durations in TIMED, such as `50ep` and `30000it`, to iterations; an epoch has as many
    iterations as there are batches. Other text is left for the schema to refuse."""
    try:
        dataset, training = plain["dataset"], plain["training"]
        kept = dataset["examples"] - dataset["validation"] - dataset["test"]
        used = dataset.get("train") or kept
        size, last = training["batch_size"], training["last_batch"]
        lengths = {"it": 1, "ep": batches_per_epoch(used, size, last)}
    except (TypeError, KeyError, ZeroDivisionError):
        return plain
    if kept < 1:
        raise LotteryError(
            f"dataset.validation + dataset.test must be < dataset.examples={dataset['examples']}, "
            f"got {dataset['validation']} + {dataset['test']}: nothing would be left to train on"
        )
    if used > kept:
        raise LotteryError(
            f"dataset.train must be at most the number of training examples, {kept} "
            f"(dataset.examples less validation and test), got {used}. Set it lower, or to null."
        )
    if 0 < used < size:
        raise LotteryError(
            f"training.batch_size must be at most the number of training examples, {used} "
            f"(dataset.examples less validation and test, or dataset.train), got {size}. Set "
            "fewer aside, or use smaller batches."
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


def _complaint(fault: Any, names: Set[str]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return what must hold and what was given, e.g. `pruning.rate must be in (0, 100), got 0`.
    `names`: the settings as a command names them."""
    where = ".".join(str(part) for part in fault["loc"])
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        meant = did_you_mean(similar_settings(where, names - {where}))
        return f"no setting {where}{meant or '; conf/ has the settings of each group'}"
    if kind == "value_error" and where == "optimizer":
        return f"{where}.{context['error']}"
    must = MUST.get(kind, fault["msg"]).format(**context)
    given = "" if isinstance(fault["input"], Mapping) else f", got {_shown(fault['input'])}"
    return f"{where} {must}{given}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


MUST = {
    "value_error": "{error}", "greater_than": "must be > {gt}", "less_than": "must be < {lt}",
    "greater_than_equal": "must be >= {ge}", "less_than_equal": "must be <= {le}",
    "literal_error": "must be {expected}", "int_type": "must be an integer",
    "int_from_float": "must be an integer", "int_parsing": "must be an integer",
    "float_type": "must be a number", "bool_type": "must be true or false",
    "string_type": "must be text", "string_too_short": "must not be empty",
    "missing": "must be set",
    "too_short": "must have at least {min_length} entries", "tuple_type": "must be a list",
    "dataclass_type": "must name code: a built-in, or a dotted path in _target_",
}  # fmt: skip
"""Type of one of pydantic's errors -> what must hold."""
