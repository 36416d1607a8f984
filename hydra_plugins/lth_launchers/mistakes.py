"""Explain in the project's terms why Hydra refuses a command, and what was probably meant.

Hydra's own advice is to add a misspelt setting with `+`, which the schema then refuses.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

Groups = dict[str, list[str]]
"""Group of configurations -> its options."""
TYPED = "Type settings as KEY=VALUE, without spaces: seed=1"


def explained(error: Exception, words: Sequence[str]) -> str:
    """Return the message for an exception of Hydra; its own if the mistake is none of those below.

    `words`: the command line, or the overrides of one run.
    """
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, words)
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _no_option(str(error.missing_cfg_file), error.options or ())
    overrides = [override for word in words for override in _parsed(word)]
    several = [override for override in overrides if override.is_sweep_override()]
    if several and not {"-m", "--multirun"} & {*words}:
        return "\n".join(map(_needs_a_sweep, several))
    cause = f"\n{error.__cause__}" if error.__cause__ else ""
    single = [override for override in overrides if override not in several]
    try:
        return "\n".join(_unknown(single, several)) or f"{error}{cause}"
    except HydraException:  # another fault, which remains without the misspelt settings
        return f"{error}{cause}"


def several_experiments(words: Sequence[str]) -> str | None:
    """Return why a command is refused that sweeps over experiments: their own sweeps would be lost,
    as would the settings of all but the first. None for other commands."""
    overrides = [override for word in words for override in _parsed(word)]
    for override in overrides:
        if override.key_or_group == "experiment" and override.is_sweep_override():
            return (
                f"{override.input_line} names several experiments, and each is a sweep of its own. "
                f"Start them one after the other: python run.py experiment={_first(override)}"
            )
    return None


def _first(override: Override) -> object:
    return next(iter(override.sweep_iterator()))


def meant_instead(word: str, others: Sequence[str]) -> str | None:
    """Return what to type instead of a sweep over the values of one list, such as
    `pruning.rates=10,50`; None if the setting takes no list. `others`: the overrides beside it."""
    key, _, values = word.partition("=")
    if not accepted(*others, f"{key}=[{values}]"):
        return None
    message = (
        f"{word} is a sweep with one value for each run, and each must be a list. For one run with "
        f"all of these, write '{key}=[{values}]'."
    )
    each, first = key.removesuffix("s"), values.partition(",")[0]
    if each == key or not accepted(*others, f"{each}={first}"):
        return message
    plural = key.rpartition(".")[2]
    return f"{message} For a sweep over these {plural}, write {each}={values}."


def accepted(*words: str) -> bool:
    """Return whether a run with these overrides has valid settings."""
    from lth.errors import LotteryError
    from lth.experiment.config import composed

    try:
        with _apart():
            composed(*words)
    except (LotteryError, HydraException):
        return False
    return True


def _parsed(word: str) -> list[Override]:
    """Return the override in a word; nothing for flags and words that are none."""
    try:
        return OverridesParser.create().parse_overrides([word])
    except HydraException:
        return []


def _unreadable(word: str, words: Sequence[str]) -> str:
    """Return the message for a word that Hydra cannot parse."""
    if word.endswith(","):
        spaced = _spaced(word, words)
        if len(spaced) > 1:
            return f"{' '.join(spaced)} has a space after a comma. Write {''.join(spaced)}"
        return f"{word} ends with a comma. Write {word.rstrip(',')}"
    if "=" not in word:
        return f"{word} is not a setting with a value. {TYPED}"
    return (
        f"{word} cannot be read. Close every bracket and quote, and put a value with brackets, "
        "commas, spaces or quotes into single quotes: 'pruning.rates=[10,50,90]'"
    )


def _spaced(word: str, words: Sequence[str]) -> list[str]:
    """Return `word` and the words after it that its commas join to it."""
    spaced = [word]
    for after in [*words][[*words].index(word) + 1 :]:
        if not spaced[-1].endswith(",") or "=" in after:
            break
        spaced.append(after)
    return spaced


def _needs_a_sweep(override: Override) -> str:
    word = str(override.input_line)
    key, _, values = word.partition("=")
    message = (
        f"{word} has several values, which needs a sweep: add -m, as in python run.py -m {word}"
    )
    if accepted(f"{key}=[{values}]"):
        message += f". For one run with a list of values, write '{key}=[{values}]'."
    return message


def _no_option(file: str, options: Sequence[str]) -> str:
    """Return the message for an option, `group/option`, that its group does not have."""
    from lth.experiment.spelling import did_you_mean, similar_options

    group, _, option = file.rpartition("/")
    with _hydra() as loader:
        elsewhere = [f"{g}={option}" for g, theirs in _groups(loader).items() if option in theirs]
    close = did_you_mean([*similar_options(option, options), *elsewhere]) or "."
    return f"no option {option} of {group}{close} Its options: {', '.join(options)}"


def _unknown(overrides: Sequence[Override], swept: Sequence[Override]) -> list[str]:
    """Return a message for each override of a setting that is not there, or of a group by null.
    `swept`: the overrides with several values, which Hydra leaves out at first."""
    with _hydra() as loader:
        groups = _groups(loader)
        chosen = [o for o in overrides if o.key_or_group in groups]
        if unset := [o.key_or_group for o in chosen if _is_null(o)]:
            return [_no_option(f"{group}/null", groups[group]) for group in unset]
        words = [str(o.input_line) for o in chosen]
        values, names = _composed(words)
        of_options = {
            option: _composed([*words, option])[1]
            for o in swept
            if o.key_or_group in groups
            for option in [f"{o.key_or_group}={value}" for value in o.sweep_iterator()]
        }
    nodes = {group.replace("/", ".") for group in groups} - {*groups}
    there = {*groups, *names} - nodes
    changed = {o.key_or_group: o for o in overrides if o.type is OverrideType.CHANGE}
    unknown = {name: o for name, o in changed.items() if name not in there}
    own = {_above(o.key_or_group) for o in overrides if o.key_or_group.endswith("._target_")}
    return [
        _in_swept_options(o, name, of_options)
        if any(name in theirs for theirs in of_options.values())
        else _no_setting(o, there, groups, values, own)
        for name, o in unknown.items()
    ]


def _composed(words: Sequence[str]) -> tuple[Any, Set[str]]:
    """Return the settings of a command, nested, and their dotted names."""
    from lth.experiment.spelling import names_in

    config = compose("config", overrides=[*words], return_hydra_config=True)
    values: Any = OmegaConf.to_container(config)
    return values, {name for name in names_in(values) if not name.startswith("hydra.runtime.")}


def _in_swept_options(override: Override, name: str, names: Mapping[str, Set[str]]) -> str:
    """Return the message for a setting that only options have over which the command sweeps.
    `names`: option -> the settings with it."""
    key, _, value = str(override.input_line).partition("=")
    having = [option for option, theirs in names.items() if name in theirs]
    group = having[0].partition("=")[0]
    lacking = [o for o in names if o not in having and o.partition("=")[0] == group]
    if lacking:
        return (
            f"{key} is a setting of {' and '.join(having)}, but not of {' or '.join(lacking)}. "
            "Start a sweep of its own for each"
        )
    return (
        f"{key} is a setting of {' and '.join(having)}, and Hydra reads a sweep first without the "
        f"options that it sweeps over. Write '{key}=choice({value})'"
    )


def _is_null(override: Override) -> bool:
    return override.type is OverrideType.CHANGE and override.value() is None


def _no_setting(
    override: Override, names: Set[str], groups: Groups, values: Any, own: Set[str],  # noqa: ANN401
) -> str:  # fmt: skip
    """Return the message for a setting that is not there. `values`: the settings, nested. `own`:
    groups whose code is named in the command."""
    from lth.experiment.spelling import did_you_mean, similar_settings

    name, option = override.key_or_group, override.value()
    close = similar_settings(name, names)
    close = close or [f"{group}={option}" for group, own in groups.items() if option in own]
    if not close and (_above(name) in own or _is_own(_above(name), values)):
        return (
            f"no setting {name}. For an argument of that name of your own code, write "
            f"+{override.input_line}"
        )
    if not close:
        return f"no setting {name}; {_beside(name, values)}"
    options = groups.get(close[0])
    listed = f" Its options: {', '.join(options)}" if options else ""
    return f"no setting {name}{did_you_mean(close)}{listed}"


def _above(name: str) -> str:
    return name.rpartition(".")[0]


def _is_own(group: str, values: Any) -> bool:  # noqa: ANN401 - nested settings
    """Return whether a group's option names the user's own code, or leaves it to be named."""
    from lth.experiment.builtins import BUILTINS, IDS

    target = OmegaConf.select(OmegaConf.create(values), f"{group}._target_")
    ours = target is None or target in {*BUILTINS, *IDS} or group.startswith("hydra")
    return not ours


def _beside(name: str, values: Any) -> str:  # noqa: ANN401 - nested settings
    """Return the settings of the same group, and the file that has them."""
    group = name.partition(".")[0]
    if not isinstance(values.get(group), dict):
        return f"there are {', '.join(sorted({*values} - {'hydra'}))} (conf/config.yaml)"
    choice = values["hydra"]["runtime"]["choices"].get(group)
    file = f"conf/{group}/{choice}.yaml" if choice else "conf/config.yaml"
    return f"{group} has {', '.join(sorted(values[group]))} ({file})"


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    """Let Hydra compose from conf/."""
    from lth.experiment.config import CONF, VERSION_BASE

    with _apart(), initialize_config_dir(str(CONF), **VERSION_BASE):
        yield GlobalHydra.instance().config_loader()


@contextmanager
def _apart() -> Iterator[None]:
    """Let Hydra be initialised a second time, which it refuses inside a sweep."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        if running is not None:
            GlobalHydra.instance().initialize(running)


def _groups(loader: ConfigLoader) -> Groups:
    """Return the options of each group of conf/, and of Hydra's."""
    own = [group for group in loader.list_groups("") if group != "hydra"]
    hydras = [f"hydra/{group}" for group in loader.list_groups("hydra")]
    return {g: loader.get_group_options(g, ObjectType.CONFIG) for g in [*own, *hydras]}
