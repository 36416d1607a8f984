"""Iterations of an epoch, and the learning rate over the iterations of a training. No torch."""

import dataclasses
from math import cos, pi

from lth.experiment.settings import LastBatch, Optimizer, Schedule


def batches_per_epoch(examples: int, batch_size: int, last_batch: LastBatch) -> int:
    """Return how many iterations an epoch has. `last_batch`: whether the examples that are left
    after the whole batches are dropped, or kept as a smaller batch."""
    return -(-examples // batch_size) if last_batch == "keep" else examples // batch_size


def factor(schedule: Schedule, iteration: int, total: int) -> float:
    """Return the factor of the learning rate at step `iteration` of `total`, in [0, 1].

    Warmup is linear from 0 at step 0 to 1 at step `warmup`, and does not delay the rest.
    """
    warm = min(1.0, iteration / schedule.warmup) if schedule.warmup else 1.0
    match schedule.kind:
        case "constant":
            return warm
        case "multistep":
            return float(warm * schedule.gamma ** sum(iteration >= m for m in schedule.milestones))
        case "cosine":
            return warm * (1 + cos(pi * iteration / total)) / 2


def constant_at_end(optimizer: Optimizer, total: int) -> Optimizer:
    """Return the optimiser with the learning rate of its last step throughout, for fine-tuning."""
    last = optimizer.options["lr"] * factor(optimizer.schedule, total - 1, total)
    constant = dataclasses.replace(optimizer.schedule, kind="constant", milestones=(), warmup=0)
    return dataclasses.replace(
        optimizer, options={**optimizer.options, "lr": last}, schedule=constant
    )
