"""Precision of matrix products and convolutions. Weights, gradients, the state of the optimiser,
statistics of normalisation, and losses are float32 in all cases."""

import torch

from lth.experiment.settings import Precision


def set_precision(precision: Precision) -> None:
    """Set how float32 products are computed in this process, and let cuDNN choose only among
    convolutions that give the same bytes every time."""
    torch.backends.cudnn.deterministic = True
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return a context in which products have bfloat16 factors and results if `precision` says so.

    It converts each weight once. Leave it before the weights change: it would use the old ones.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
