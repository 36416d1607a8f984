"""Named sources of randomness: every draw of an experiment says what it is for."""

import hashlib
import json

import torch


def stream_seed(seed: int, *name: str | int) -> int:
    """The number in [0, 2^63) that seeds one named draw.

    Derived by hashing, never by adding numbers, so that no two names collide and no draw depends
    on what was drawn before it. `seed`: any integer >= 0; 0 is a seed like any other.
    """
    name_hash = hashlib.sha256(json.dumps([seed, *name]).encode()).digest()
    return int.from_bytes(name_hash[:8], "big") >> 1


def generator(seed: int, *name: str | int) -> torch.Generator:
    """A CPU generator for one named draw, e.g. `generator(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))


def global_generator(device: torch.device) -> torch.Generator:
    """What modules on `device` draw from by default. Seeding it costs 1 us; `torch.manual_seed`,
    which sees to every device there could be, costs 80."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
