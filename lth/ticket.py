"""A ticket as one file, for use in any torch code.

ticket = load_ticket("ticket.safetensors")
model = ticket.model()        # a plain torch module: starting weights, pruned weights 0
ticket.put_into(other)        # or load it into a network with the same tensors
ticket.smaller()              # the trained network without units that have no weights left
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lth import models
from lth.engine.build import Builder
from lth.errors import LotteryError
from lth.experiment.nodes import Final, Training
from lth.experiment.targets import Target, canonical
from lth.store.files import write_atomically, writing
from lth.training import masks, units
from lth.training.masks import Mask
from lth.training.pruned import Hold

PARTS = ("start", "mask", "final")


@dataclass(frozen=True)
class Ticket:
    """A winning ticket, or the network of another arm.

    Args:
        start: parameters and buffers at the start of its training, by name.
        mask: bool tensors of the prunable parameters, True = kept.
        final: parameters and buffers at the end of its training.
        about: network, recipe, seed, level, digest and first iteration of its training, and the
            value of pruned weights.
    """

    start: dict[str, Tensor]
    mask: Mask
    final: dict[str, Tensor]
    about: dict[str, Any]

    def model(self) -> nn.Module:
        """Return its network as a plain module, ready to be trained."""
        return self.put_into(self._built())

    def _built(self) -> nn.Module:
        own = self.about["network"]
        target = Target(own["model"]["name"], own["model"]["options"], own["model"].get("code"))
        built: nn.Module = target(tuple(own["shape"]), own["classes"])
        return built

    def smaller(self) -> nn.Module:
        """Return the trained network without the neurons and filters that have no weights left into
        the next layer: a dense module with the same outputs, ready for evaluation.

        Raises:
            LotteryError: the network is not a chain of layers (`torch.nn.Sequential`), has a module
                with weights that is not a layer or a batch norm, or its pruned weights are frozen.
        """
        model = self._built()
        if self.about["pruned"] == "frozen":
            raise LotteryError("a ticket with frozen weights cannot be made smaller: they act too")
        if not units.is_chain(model):
            raise LotteryError(
                f"{self.about['network']['model']['name']} must be a chain of layers "
                "(torch.nn.Sequential) to be made smaller: a unit of another network, such as a "
                "ResNet, has weights into several layers. Use Ticket.model()."
            )
        models.load(model, self.final)
        return units.smaller(cast(nn.Sequential, model), self.mask).eval()

    def put_into(self, model: nn.Module) -> nn.Module:
        """Load the starting weights into `model`, with pruned weights 0, and return it.

        No step of any `torch.optim.Optimizer` moves the pruned weights, whatever it does with
        gradients: their gradients are masked, and they are reset after every step, to 0 or, if the
        ticket has frozen weights, to their starting values. This holds for these parameters, not
        for copies of them: call this again for a deep copy. Another ticket that is put into the
        same network replaces this one.

        Raises:
            RuntimeError: the tensors of `model` have other names or shapes.
        """
        frozen = self.about["pruned"] == "frozen"
        models.load(model, self.start if frozen else masks.apply(self.start, self.mask))
        for name, kept in self.mask.items():
            Hold(model.get_parameter(name), kept)
        return model


def ticket_of(level: int, training: Training, build: Builder) -> Ticket:
    """Return the ticket of a stored training, at a `level` of its run.

    Raises:
        Damaged: a file of the store was changed.
        LotteryError: it is not stored, or its weights were dropped.
    """
    network = training.recipe.network
    if not build.store.exists(training):
        raise LotteryError(
            f"{build.store.root} does not have {training}, level {level}. Run the command of its "
            "run (again), which trains it."
        )
    about = {
        "network": canonical(network), "recipe": canonical(training.recipe),
        "seed": training.seed, "level": level, "training": training.digest,
        "start": training.start, "pruned": training.pruned,
    }  # fmt: skip
    return Ticket(
        start=build.weights(training.weights, network),
        mask=build.stored_mask(training),
        final=build.weights(Final(training), network),
        about=about,
    )


def save_ticket(file: Path, ticket: Ticket) -> None:
    """Write a ticket to a file. Raises LotteryError if the file cannot be written."""
    tensors = {f"{part}/{n}": t for part in PARTS for n, t in getattr(ticket, part).items()}
    with writing(str(file)):
        write_atomically(file, save(tensors, {"lth": json.dumps(ticket.about)}))


def save_smaller(file: Path, ticket: Ticket) -> None:
    """Write `ticket.smaller()` to a file. `torch.export.load(file).module()` returns it without
    lth, for any number of inputs. Raises LotteryError if it cannot be written."""
    inputs = torch.zeros(2, *ticket.about["network"]["shape"])
    batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(ticket.smaller(), (inputs,), dynamic_shapes=batch)
    content = io.BytesIO()
    torch.export.save(program, content)
    with writing(str(file)):
        write_atomically(file, content.getvalue())


def load_ticket(file: str | Path) -> Ticket:
    """Return the ticket in a file that `save_ticket` has written. Raises LotteryError for any
    other file."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    try:
        with safe_open(str(file), "pt") as stored:
            metadata = stored.metadata() or {}
            about = json.loads(metadata["lth"])
            for key in stored.keys():  # noqa: SIM118 - it is no mapping
                part, _, name = key.partition("/")
                parts[part][name] = stored.get_tensor(key)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise LotteryError(
            f"{file} is not a ticket of lth ({error}). Make one: python -m analysis export RUN"
        ) from error
    return Ticket(**parts, about=about)
