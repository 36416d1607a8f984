"""Stable ids of the models, criteria, loaders, optimisers, probes and trackers that lth offers.

Digests contain an id and the options that differ from `neutral`, never a dotted path: a built-in
can move, or gain an option, without changing the digest of any stored training. The table is here
and not beside the functions because describing an experiment must not import torch;
`tests/test_builtins.py` compares it with the signatures of these functions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Builtin(NamedTuple):
    """A dotted path, and the options that are left out of digests at these values."""

    path: str
    neutral: Mapping[str, Any] = {}


def _criteria(*names: str) -> dict[str, Builtin]:
    return {name: Builtin(f"lth.pruning.{name}") for name in names}


def _optimizer(name: str, **neutral: object) -> Builtin:
    return Builtin(f"torch.optim.{name}", {**COMMON, **neutral})


COMMON: dict[str, object] = {
    "weight_decay": 0, "maximize": False, "foreach": None, "capturable": False,
    "differentiable": False, "fused": None,
}  # fmt: skip
"""Neutral values that most optimisers of torch share."""
MOMENTS = {"betas": [0.9, 0.999], "eps": 1e-8}

OF_PAPER = {"dropout": 0, "init_scale": 1, "truncated": False}

MODELS = {
    "lenet": Builtin("lth.models.LeNet", OF_PAPER),
    "conv": Builtin("lth.models.Conv", OF_PAPER),
    "lenet5": Builtin("lth.models.LeNet5", {"dropout": 0}),
    "vgg": Builtin("lth.models.VGG"),
    "resnet": Builtin("lth.models.ResNet"),
}
CRITERIA = _criteria(
    "magnitude", "random", "small_final", "large_init", "small_init", "large_init_large_final",
    "magnitude_increase", "movement", "large_final_same_sign", "snip", "grasp", "synflow",
)  # fmt: skip
LOADERS = {
    name: Builtin(f"lth.datasets.{name}", {"labels": None} if name == "mnist" else {})
    for name in ("digits", "mnist", "cifar", "image_folder", "noise")
}
OPTIMIZERS = {
    "adadelta": _optimizer("Adadelta", rho=0.9, eps=1e-6),
    "adagrad": _optimizer("Adagrad", lr_decay=0, initial_accumulator_value=0, eps=1e-10),
    "adam": _optimizer("Adam", **MOMENTS, amsgrad=False, decoupled_weight_decay=False),
    "adamw": _optimizer("AdamW", **MOMENTS, amsgrad=False, weight_decay=0.01),
    "adamax": _optimizer("Adamax", **MOMENTS),
    "asgd": _optimizer("ASGD", lambd=1e-4, alpha=0.75, t0=1_000_000),
    "nadam": _optimizer("NAdam", **MOMENTS, momentum_decay=0.004, decoupled_weight_decay=False),
    "radam": _optimizer("RAdam", **MOMENTS, decoupled_weight_decay=False),
    "rmsprop": _optimizer("RMSprop", alpha=0.99, eps=1e-8, momentum=0, centered=False),
    "rprop": _optimizer("Rprop", etas=[0.5, 1.2], step_sizes=[1e-6, 50]),
    "sgd": _optimizer("SGD", momentum=0, dampening=0, nesterov=False),
}
PROBES = {
    "connectivity": Builtin("lth.probes.Connectivity"),
    "level_connectivity": Builtin("lth.probes.LevelConnectivity"),
    "mask_distance": Builtin("lth.probes.MaskDistance"),
    "gradient_flow": Builtin("lth.probes.GradientFlow"),
    "flops": Builtin("lth.probes.Flops"),
}
TRACKERS = {
    "tensorboard": Builtin("lth.trackers.TensorBoard"),
    "mlflow": Builtin("lth.trackers.MLflow"),
    "wandb": Builtin("lth.trackers.WandB"),
}
BUILTINS = {**MODELS, **CRITERIA, **LOADERS, **OPTIMIZERS, **PROBES, **TRACKERS}
"""Id -> built-in. Ids are unique over all families."""
IDS = {builtin.path: name for name, builtin in BUILTINS.items()}
"""Dotted path -> id: `lth.models.LeNet` and `lenet` name the same model."""
ELEMENTWISE = frozenset(OPTIMIZERS)
"""Optimisers whose step treats each weight by itself, so that any layout of the weights will do."""
