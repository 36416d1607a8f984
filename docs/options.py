"""Write docs/options.md, the page of every option and setting, from the comments in conf/.

python docs/options.py (tests/test_docs.py checks that the page is up to date)
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "options.md"
SETTINGS = ("model", "dataset", "pruning", "optimizer", "rewind", "source", "probe", "tracker")
PRESETS = ("preset", "experiment")
"""Groups whose options set other groups: their settings are listed there."""
INTRODUCTION = """# Every option

Made by `python docs/options.py` from the comments in `conf/`. An option is chosen by
`group=option`, a setting by `group.setting=value`; both can be swept with `-m` and commas. Sections
and figures are those of the paper (Frankle & Carbin, ICLR 2019) unless another one is named. An
option that builds on another lists only the settings that differ. A preset sets several groups at
once.

**In a shell**, `eval "$(python run.py -sc install=bash)"` lets the tab key complete options and
settings of `python run.py`; `install=zsh` and `install=fish` do so in other shells. Completion is
Hydra's own, and takes a second, in which it composes the configuration.

**In an editor**, JSON schemas in `docs/schemas/` complete and check the YAML files in `conf/`:
names, types, ranges, and what each setting means. `python docs/schemas.py` writes them from the
settings. Each group has a schema; `config.json` is that of presets and experiments. For the YAML
extension of VS Code, `.vscode/settings.json` says which schema is for which files:

```json
{
  "yaml.schemas": {
    "docs/schemas/config.json": ["conf/preset/*.yaml", "conf/experiment/*.yaml"],
    "docs/schemas/pruning.json": "conf/pruning/*.yaml",
    "docs/schemas/optimizer.json": "conf/optimizer/*.yaml"
  }
}
```
"""
Row = Sequence[str]


def page(conf: Path = CONF) -> str:
    """Return the page. The last cell of a row is empty where neither the option's own file nor
    another one of its group or `config.yaml` explains the setting."""
    general = list(_settings(conf / "config.yaml"))
    parts = [INTRODUCTION, "## General\n", _table("setting | default | meaning", general)]
    for group in (*SETTINGS, *PRESETS):
        files = sorted((conf / group).glob("*.yaml"), key=_natural)
        options = [(f"`{file.stem}`", _base(file), _description(file)) for file in files]
        parts += [f"## {group}\n", _table("option | builds on | what it does, source", options)]
        if group in SETTINGS:
            parts.append(_settings_of_group(group, files, general))
    return "\n".join(parts)


def comments(conf: Path = CONF) -> dict[str, str]:
    """Return what the comments in conf/ say of each setting, by its dotted name."""
    files = [("", conf / "config.yaml")]
    files += [(group, file) for group in SETTINGS for file in sorted((conf / group).glob("*.yaml"))]
    found: dict[str, str] = {}
    for group, file in files:
        for name, _, comment in _settings(file, group):
            if comment:
                found.setdefault(name.strip("`"), comment)
    return found


def _settings_of_group(group: str, files: Sequence[Path], general: Sequence[Row]) -> str:
    """The table of a group's settings. A comment is written once for the settings of one name."""
    rows = [(f"`{file.stem}`", *row) for file in files for row in _settings(file, group)]
    explained = [(name, comment) for name, _, comment in general]
    explained += [(name, comment) for _, name, _, comment in rows]
    known = {name: comment for name, comment in reversed(explained) if comment}
    full = [(*row[:3], row[3] or known.get(row[1], "")) for row in rows]
    return _table("option | setting | default | meaning", full)


def _natural(file: Path) -> list[str]:
    """A key that sorts figure2 before figure10."""
    return [part.zfill(3) for part in re.split(r"(\d+)", file.stem)]


def _table(header: str, rows: Iterable[Row]) -> str:
    rule = "|".join("---" for _ in header.split("|"))
    lines = [f"| {header} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def _base(file: Path) -> str:
    """The options of its own group that a file builds on."""
    names = re.findall(r"^  - (?!_self_)(\w+)$", file.read_text(), re.MULTILINE)
    return ", ".join(f"`{name}`" for name in names)


def _description(file: Path) -> str:
    """The comment at the head of a file, without the command of an experiment."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = " ".join(line for line in lines if not line.startswith(("@package", "python run.py")))
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _settings(file: Path, group: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted name, default, comment) of every leaf of a YAML file except Hydra's own.

    `_target_` needs no comment of its own."""
    text = file.read_text()
    path = base = [group] if group and "@package _global_" not in text else []
    for line in text.splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +([^#]*?))?(?: *# (.*))?", line)
        if not found:
            continue
        spaces, key, value, comment = found.groups()
        path = [*path[: len(base) + len(spaces) // 2], key]
        if value and path[0] != "hydra":
            comment = comment or ("the class or function to call" if key == "_target_" else "")
            yield f"`{'.'.join(path)}`", f"`{value}`", _escaped(comment)


if __name__ == "__main__":
    PAGE.write_text(page())
