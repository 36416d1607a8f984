"""Digests of the presets, as they are in every store: python -m tests.test_golden writes them."""

import csv
from pathlib import Path

from hydra import compose, initialize_config_dir

from lth.experiment import lottery
from lth.experiment.config import VERSION_BASE, from_config
from lth.experiment.node import FORMAT

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("golden_digests.csv")
COLUMNS = ("format", "preset", "dense", "level3")
CHANGED = """
The digests of presets {presets} have changed, so no stored training of them is found any more.
If the same settings lead to other numbers, or are written otherwise, raise FORMAT in
lth/experiment/node.py. If the settings of these presets were changed on purpose, that is all.
In both cases: python -m tests.test_golden rewrites {table}, and CHANGELOG.md says why.
Otherwise undo the change."""


def digests() -> dict[str, tuple[str, str, str]]:
    """Return preset -> FORMAT, and the digests of the dense network and of the level-3 ticket."""
    found = {}
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        for file in sorted((ROOT / "conf" / "preset").glob("*.yaml")):
            config = compose("config", overrides=[f"preset={file.stem}", "seed=0"])
            levels = dict(lottery.levels(from_config(config)))
            found[file.stem] = str(FORMAT), levels[0].digest, levels[3].digest
    return found


def stored() -> dict[str, tuple[str, ...]]:
    with TABLE.open() as file:
        return {row["preset"]: (row["format"], row["dense"], row["level3"])
                for row in csv.DictReader(file)}  # fmt: skip


def test_the_digests_of_the_presets_are_those_of_the_table() -> None:
    found, expected = digests(), stored()
    names = found.keys() | expected.keys()
    changed = sorted(name for name in names if found.get(name) != expected.get(name))
    assert not changed, CHANGED.format(presets=", ".join(changed), table=TABLE.name)


def test_the_table_is_of_this_format() -> None:
    assert {row[0] for row in stored().values()} == {str(FORMAT)}


def write() -> None:
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([row[0], name, *row[1:]] for name, row in digests().items())


if __name__ == "__main__":
    write()
