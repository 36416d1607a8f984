"""The saved state of a training in progress, as bytes.

Tensors are saved as safetensors; everything else, and the places of the tensors, as JSON in the
metadata of the same file. A value that neither can hold exactly is refused.
"""

import json
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from lth.experiment.results import Evaluation

Tensors = dict[str, Tensor]


class Unrepresentable(Exception):
    """The state of an optimiser holds a value that a checkpoint cannot hold exactly."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything from which a training continues to the same end.

    Args:
        iteration: the next step.
        layout: number of weights that each tensor of the optimiser holds. A network with another
            layout cannot continue from here.
        loss_sum: sum of the losses since the last evaluation, float64 ().
        model: state of the network.
        early: state of the network at the early stop so far.
        optimizer: the optimiser's `state_dict()`.
        parts: origin of the iterations so far, as in provenance.json.
    """

    iteration: int
    seconds: float
    curve: list[Evaluation]
    loss_sum: Tensor
    layout: list[int]
    model: Tensors
    early: Tensors
    optimizer: Mapping[str, Any]
    parts: list[dict[str, Any]]

    def to_bytes(self) -> bytes:
        """Raises Unrepresentable."""
        tensors: Tensors = {}
        form = _to_json(vars(self), tensors)
        return save(tensors, {"checkpoint": json.dumps(form)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        length = int.from_bytes(content[:8], "little")  # safetensors: length, JSON header, tensors
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        values = _from_json(json.loads(header["checkpoint"]), load(content))
        return cls(**{**values, "curve": [Evaluation(*point) for point in values["curve"]]})


def with_part(parts: Sequence[dict[str, Any]], part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return `parts` and the `part` that follows them. Each has the iterations `from` and `to`, and
    their origin; successive parts of one origin are one part."""
    if part["from"] == part["to"]:
        return [*parts]
    *before, last = parts or [part]
    if {**last, **_span(part)} == part:
        return [*before, {**part, "from": last["from"]}]
    return [*parts, part]


def _span(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"from": part["from"], "to": part["to"]}


def _to_json(value: Any, tensors: Tensors) -> Any:  # noqa: ANN401 - see the module
    """Return a JSON value; tensors go into `tensors`, and their places hold their names."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"channels last" if _has_channels_last(value) else "tensor": name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (dict, defaultdict, OrderedDict):
        return {"items": [[_to_json(k, tensors), _to_json(v, tensors)] for k, v in value.items()]}
    if type(value) in (list, tuple, Evaluation):
        kind = "list" if type(value) is list else "tuple"
        return {kind: [_to_json(item, tensors) for item in value]}
    raise Unrepresentable(f"a value of type {type(value).__name__}")


def _has_channels_last(value: Tensor) -> bool:
    """Return whether a tensor is in the layout of `lth.models.channels_last`, and in no other."""
    last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return last and not value.is_contiguous()


def _from_json(form: Any, tensors: Tensors) -> Any:  # noqa: ANN401
    if not isinstance(form, dict):
        return form
    ((kind, content),) = form.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "channels last":  # fused optimisers need the layout of the weights
        return tensors[content].contiguous(memory_format=torch.channels_last)
    if kind == "items":
        return {_from_json(k, tensors): _from_json(v, tensors) for k, v in content}
    items = [_from_json(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def position(saved: Checkpoint | None) -> tuple[int, list[int]] | None:
    """Return the iteration and the layout of a checkpoint. Networks that agree in both can continue
    in one pack."""
    return (saved.iteration, saved.layout) if saved else None
