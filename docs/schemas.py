"""Write docs/schemas/, JSON schemas of the YAML files in conf/, for editors.

python docs/schemas.py (tests/test_schemas.py checks that they are up to date, and that all of conf/
follows them)

Types and ranges are those of `lth.experiment.settings`, descriptions the comments in conf/.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs.options import SETTINGS, comments  # noqa: E402
from lth.experiment.settings import Spec  # noqa: E402

FOLDER = ROOT / "docs/schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

REFERENCE: Schema = {"type": "string", "pattern": r"^(\$\{.*|\?\?\?$)"}
"""A reference to another setting, or a value that must be given."""
DURATION: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?(it|ep)$"}
"""Iterations or epochs."""
DURATIONS = ("iterations", "evaluate_every", "milestones", "warmup", "every", "iteration")
"""Last part of the names of settings that are durations."""
NULL: Schema = {"type": "null"}
DEFAULTS: Schema = {"type": "array", "description": "Files that this one builds on (Hydra)."}
HYDRA: Schema = {"type": "object", "description": "Settings of Hydra."}
TARGET: Schema = {
    "_target_": {"type": "string", "description": "An id of lth, or the dotted path of your code."},
    "_version_": {"description": "Stands for your code in digests, in place of its hash."},
}


class Loosener(NamedTuple):
    """Turns the schema of a whole Spec into that of a YAML file, which need not set everything and
    may refer to other settings. `definitions`: schemas that others refer to; `explained`: dotted
    names of settings and what their comments say."""

    definitions: Mapping[str, Schema]
    explained: Mapping[str, str]

    def loose(self, node: Schema, name: str, *, null: bool = False) -> Schema:
        """Return the schema of the setting `name`. `null`: everything in it may be null."""
        found = self._loose(node, name, null=null)
        comment = self.explained.get(name)
        return {"description": comment, **found} if comment else found

    def _loose(self, node: Schema, name: str, *, null: bool) -> Schema:
        if "$ref" in node:
            kind = node["$ref"].rpartition("/")[2]
            if kind == "Target":
                return {"anyOf": [{"type": "string"}, NULL, self.target(name)]}
            if kind == "Optimizer":
                return self._optimizer(name, null=null)
            within = self.definitions[kind]
            return self._loose(within, name, null=null or kind == "Source")
        if "properties" in node:
            own = {
                key: self.loose(of, f"{name}.{key}".strip("."), null=null)
                for key, of in node["properties"].items()
            }
            return {"type": "object", "properties": own, "additionalProperties": False}
        if "anyOf" in node:
            parts = [self._loose(of, name, null=False) for of in node["anyOf"]]
            return {"anyOf": [part for of in parts for part in of.get("anyOf", [of])]}
        kept = {key: of for key, of in node.items() if key not in ("title", "default")}
        if "items" in kept:
            kept["items"] = self._loose(kept["items"], name, null=False)
        is_duration = kept.get("type") == "integer" and name.rpartition(".")[2] in DURATIONS
        duration = [DURATION] * is_duration
        return {"anyOf": [kept, REFERENCE, *duration, *[NULL] * null]}

    def target(self, name: str) -> Schema:
        """Return the schema of code and its options, which the code defines."""
        options = {
            setting.removeprefix(f"{name}."): {"description": comment}
            for setting, comment in self.explained.items()
            if setting.startswith(f"{name}.")
        }
        direct = {option: of for option, of in options.items() if "." not in option}
        return {"type": "object", "properties": direct | TARGET}

    def _optimizer(self, name: str, *, null: bool) -> Schema:
        found = self.target(name)
        for option, bound in (("lr", {"exclusiveMinimum": 0}), ("weight_decay", {"minimum": 0})):
            number = {"type": "number", **bound}
            found["properties"].setdefault(option, {})
            found["properties"][option] |= {"anyOf": [number, REFERENCE, *[NULL] * null]}
        schedule = {"$ref": "#/$defs/Schedule"}
        found["properties"]["schedule"] = self.loose(schedule, f"{name}.schedule", null=null)
        return found


def schemas() -> dict[str, Schema]:
    """Return the schema of each group, and as `config` that of files that may set anything."""
    spec = TypeAdapter(Spec).json_schema()
    loosener = Loosener(spec["$defs"], comments())
    whole = loosener.loose(spec, "")
    whole["properties"] |= {"defaults": DEFAULTS, "hydra": HYDRA}
    found = {"config": whole}
    for group in SETTINGS:
        own = whole["properties"][group]
        within = next((of for of in own.get("anyOf", [own]) if "properties" in of), own)
        # the option that chooses nothing sets the whole group to null
        more = {"defaults": DEFAULTS, group: NULL}
        found[group] = {**within, "properties": within["properties"] | more}
    return {name: {"$schema": DIALECT, **of} for name, of in found.items()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    main()
