"""The saved state of a training in progress, as bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from lth.experiment.results import Evaluation

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Everything from which a training continues to the same end.

    Args:
        iteration: the next step.
        seconds: duration of the training so far.
        layout: number of weights in each tensor of the optimiser; a network with another layout
            cannot continue from here.
        early: state of the network at the early stop so far.
        optimizer: `state` of the optimiser's `state_dict()`.
    """

    iteration: int
    seconds: float
    curve: list[Evaluation]
    loss_sum: Tensor
    layout: list[int]
    model: Tensors
    early: Tensors
    optimizer: Mapping[int, Mapping[str, Any]]

    def to_bytes(self) -> bytes:
        groups: dict[str, Mapping[str, Any]] = {
            "model": self.model,
            "early": self.early,
            "own": {
                "iteration": torch.tensor(self.iteration),
                "seconds": torch.tensor(self.seconds, dtype=torch.float64),
                "curve": torch.tensor(self.curve, dtype=torch.float64),
                "loss_sum": self.loss_sum,
                "layout": torch.tensor(self.layout),
            },
        } | {f"optimizer {index}": state for index, state in self.optimizer.items()}
        return save({
            f"{group}/{name}": value
            for group, part in groups.items()
            for name, value in part.items()
            if isinstance(value, Tensor)
        })  # fmt: skip

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        groups: dict[str, Tensors] = {"model": {}, "early": {}}
        for key, value in load(content).items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = value
        own = groups.pop("own")
        return cls(
            iteration=int(own["iteration"]),
            seconds=float(own["seconds"]),
            curve=[Evaluation(int(i), *rest) for i, *rest in own["curve"].tolist()],
            loss_sum=own["loss_sum"],
            layout=own["layout"].tolist(),
            model=groups.pop("model"),
            early=groups.pop("early"),
            optimizer={int(name.split()[1]): state for name, state in groups.items()},
        )


def position(saved: Checkpoint | None) -> tuple[int, list[int]] | None:
    """Return the iteration and the layout of a checkpoint, None for None; networks for which they
    are equal can continue together."""
    return (saved.iteration, saved.layout) if saved else None
