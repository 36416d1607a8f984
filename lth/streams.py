"""Named sources of randomness: every draw of an experiment says what it is for."""

import hashlib
import json

import torch


def generator(seed: int, *name: str | int) -> torch.Generator:
    """A CPU generator for one named draw, e.g. `generator(seed, "order", epoch)`.

    Derived by hashing, never by adding numbers, so that no two names collide and no draw depends
    on what was drawn before it. `seed`: any integer >= 0; 0 is a seed like any other.
    """
    name_hash = hashlib.sha256(json.dumps([seed, *name]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(name_hash[:8], "big") >> 1)
