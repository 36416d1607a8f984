"""A ticket as one file, and in anybody's torch code.

ticket = load_ticket("ticket.safetensors")
model = ticket.model()        # plain torch: the starting weights, pruned ones 0
ticket.put_into(other)        # or into a network of your own with the same tensors
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lth.engine.build import Inputs
from lth.errors import LotteryError
from lth.experiment.nodes import Final, Training, canonical
from lth.experiment.settings import Target
from lth.store.files import write_atomically, writing
from lth.training import masks
from lth.training.masks import Mask

PARTS = ("start", "mask", "final")


@dataclass(frozen=True)
class Ticket:
    """Weights at the start and at the end, by name; `mask`: True = kept; `about`: where it comes
    from, with its network."""

    start: dict[str, Tensor]
    mask: Mask
    final: dict[str, Tensor]
    about: dict[str, Any]

    def model(self) -> nn.Module:
        """Its network as a plain module, ready to be trained."""
        own = self.about["network"]
        built: nn.Module = Target(**own["model"])(tuple(own["shape"]), own["classes"])
        return self.put_into(built)

    def put_into(self, model: nn.Module) -> nn.Module:
        """Load the starting weights into `model`, pruned ones as 0, which no optimiser of torch's
        will move: hooks zero their gradients (a deep copy has none: call this again for one). Those
        of a ticket with frozen weights keep their values, as far as weight decay lets them. Raises
        RuntimeError where tensors do not fit."""
        frozen = self.about["pruned"] == "frozen"
        model.load_state_dict(self.start if frozen else masks.apply(self.start, self.mask))
        for name, kept in self.mask.items():
            parameter = model.get_parameter(name)
            parameter.register_hook(lambda gradient, kept=kept: gradient * kept.to(gradient.device))
        return model


def save_ticket(file: Path, level: int, training: Training, inputs: Inputs) -> None:
    """Write that of a stored training, which is a `level` of its run. Raises Damaged, and
    LotteryError where its weights are gone from the store or the file cannot be written."""
    network = training.recipe.network
    if not inputs.store.has_weights(training):
        raise LotteryError(f"{inputs.store.root}: it does not have the weights of {training}. Run "
                           "its run once more with the store that it was made in.")  # fmt: skip
    parts: dict[str, dict[str, Tensor]] = {
        "start": inputs.weights(training.weights, network),
        "mask": inputs.mask_of(training),
        "final": inputs.weights(Final(training), network),
    }
    about = {
        "network": canonical(network), "recipe": canonical(training.recipe),
        "seed": training.seed, "level": level, "training": training.digest,
        "start": training.start, "pruned": training.pruned,
    }  # fmt: skip
    tensors = {f"{part}/{name}": t for part, own in parts.items() for name, t in own.items()}
    with writing(str(file)):
        write_atomically(file, save(tensors, {"lth": json.dumps(about)}))


def load_ticket(file: str | Path) -> Ticket:
    """What `save_ticket` has written. Raises LotteryError for any other file."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    try:
        with safe_open(str(file), "pt") as stored:
            metadata = stored.metadata() or {}
            about = json.loads(metadata["lth"])
            for key in stored.keys():  # noqa: SIM118 - it is no mapping
                part, _, name = key.partition("/")
                parts[part][name] = stored.get_tensor(key)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        mend = "Make one: python -m analysis export RUN"
        raise LotteryError(f"{file}: no ticket of lth ({error}). {mend}") from error
    return Ticket(**parts, about=about)
