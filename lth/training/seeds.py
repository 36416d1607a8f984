"""Named sources of randomness: every random draw of an experiment has a seed and a name."""

import hashlib
import json

import torch


def stream_seed(seed: int, *name: str | int) -> int:
    """Return the number in [0, 2^63) that seeds one named draw. `seed`: any integer >= 0.

    It is a hash of seed and name: two names do not collide, as sums of numbers could, and no draw
    depends on an earlier one.
    """
    name_hash = hashlib.sha256(json.dumps([seed, *name]).encode()).digest()
    return int.from_bytes(name_hash[:8], "big") >> 1


def generator(seed: int, *name: str | int) -> torch.Generator:
    """Return a CPU generator for one named draw, e.g. `generator(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))


def global_generator(device: torch.device) -> torch.Generator:
    """Return the generator that modules on `device` draw from by default. Seeding it takes 1 us;
    `torch.manual_seed`, which seeds the generators of all devices, takes 80."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
