"""Writes docs/options.md: every option and setting, from the comments in conf/.

python docs/options.py (a test sees to it that the page is up to date)
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "options.md"
SETTINGS = ("model", "dataset", "pruning", "optimizer", "rewind", "probe", "tracker")
PRESETS = ("preset", "experiment")
INTRODUCTION = """# Every option

Made by `python docs/options.py` from the comments in `conf/`. An option is chosen by
`group=option`, a setting by `group.setting=value`; both can be swept with `-m` and commas. Sections
and figures are those of the paper (Frankle & Carbin, ICLR 2019) unless another one is named. An
option that builds on another lists what differs from it. Presets set several groups at once.
"""
Row = Sequence[str]


def page() -> str:
    general = list(_settings(ROOT / "conf/config.yaml"))
    parts = [INTRODUCTION, "## General\n", _table("setting | default | what it is", general)]
    for group in (*SETTINGS, *PRESETS):
        files = sorted((ROOT / "conf" / group).glob("*.yaml"), key=_natural)
        options = [(f"`{file.stem}`", _base(file), _description(file)) for file in files]
        header = "option | builds on | what it does, where it comes from"
        parts += [f"## {group}\n", _table(header, options)]
        if group in SETTINGS:
            rows = [(f"`{file.stem}`", *row) for file in files for row in _settings(file, group)]
            known = {name: about for name, _, about in reversed(general) if about}
            known |= {
                n: about for _, n, _, about in reversed(rows) if about and "_target_" not in n
            }
            told = [(*row[:3], row[3] or known.get(row[1], "what is called")) for row in rows]
            parts.append(_table("option | setting | default | what it is", told))
    return "\n".join(parts)


def _natural(file: Path) -> list[str]:
    """figure2 before figure10."""
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
    said = " ".join(line for line in lines if not line.startswith(("@package", "python run.py")))
    return _escaped(said)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _settings(file: Path, group: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, comment) of every leaf of a YAML file, less Hydra's own."""
    text = file.read_text()
    path = base = [group] if group and "@package _global_" not in text else []
    for line in text.splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +([^#]*?))?(?: *# (.*))?", line)
        if not found:
            continue
        spaces, key, value, comment = found.groups()
        path = [*path[: len(base) + len(spaces) // 2], key]
        if value and path[0] != "hydra":
            yield f"`{'.'.join(path)}`", f"`{value}`", _escaped(comment or "")


if __name__ == "__main__":
    PAGE.write_text(page())
