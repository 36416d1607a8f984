"""How easy examples are, without training a network."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

PENALTY = 0.01
"""Ridge penalty, relative to the sum of a squared input over all examples (mean over inputs)."""


def errors(inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the error of each example, (n,): the norm of the difference between its one-hot label
    and the prediction of a ridge regression on the values of its inputs. The lowest are easiest.

    Paul et al. 2022 take this norm (EL2N) from networks after a few epochs of training, averaged
    over ten of them; a regression needs none, and gives the same subset to every seed of a split.
    """
    values = inputs.flatten(1).double()
    constant = torch.full((len(values), 1), float(values.abs().max()), dtype=torch.float64)
    values = torch.cat([values, constant], 1)
    targets = one_hot(labels).double()
    products = values.T @ values
    penalty = PENALTY * products.diagonal().mean() * torch.eye(len(products), dtype=torch.float64)
    weights = torch.linalg.solve(products + penalty, values.T @ targets)
    found: Tensor = (values @ weights - targets).norm(dim=1)
    return found
