"""Show where a step of a convolutional network spends its time, and the least that it could take.

python -m benchmarks.profiles [PRESET ...]    takes three minutes; needs no data

The shares are of torch.profiler, over steps of the dense network on one thread. The floor of a step
is the time of its multiplications and additions at the speed of a large matrix product, which is
measured in turn with the steps.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.convolutions import PRECISIONS, random_data
from benchmarks.timing import Ours, alternating, machine, product_seconds, table
from lth.experiment.config import composed
from lth.experiment.recipe import recipe
from lth.experiment.settings import Precision

PRESETS = ("conv2", "conv4", "conv6", "resnet18", "vgg19")
ROUNDS = 3
SHARES = {
    "optimiser": ("Optimizer.step", "_fused_", "aten::lerp", "aten::addc", "aten::_foreach"),
    "convolutions": ("convolution", "thnn"),
    "linear": ("aten::addmm", "aten::mm", "mkldnn_linear", "aten::linear"),
    "batch norm": ("batch_norm",),
    "ReLU, pooling": ("relu", "threshold", "pool"),
    "copies, casts": ("aten::copy_", "aten::_to_copy", "aten::contiguous", "aten::clone"),
}
"""Column -> parts of the names of its operations; the first column that matches counts."""
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's messages about itself


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console(width=140)
    console.print(machine())
    header = ("", "GFLOP", "floor, ms", "step, ms", "inputs, ms", *SHARES, "other")
    for preset in sys.argv[1:] or PRESETS:
        console.print(table(f"{preset}: shares of a step", header, rows(preset)))


def rows(preset: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each precision."""
    spec = composed(f"preset={preset}")
    given, data = recipe(spec), random_data(spec)
    for precision in PRECISIONS:
        budget = replace(given.training, precision=precision)
        case = Ours(replace(given, training=budget), data, 1.0)
        work = operations(partial(case.seconds_per_step, 1))
        times = alternating(
            {
                "floor": partial(products, precision, work),
                "step": partial(case.seconds_per_step, 1),
                "inputs": case.seconds_of_inputs,
            },
            ROUNDS,
        )
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            case.seconds_per_step(ROUNDS)
        shares = shares_of(profiled)
        yield (
            precision, f"{work / 1e9:.1f}", *(f"{1e3 * of.median:.3g}" for of in times.values()),
            *(f"{shares[column]:.1%}" for column in (*SHARES, "other")),
        )  # fmt: skip


def products(precision: Precision, operations: int) -> float:
    """Return the time of some operations of a large matrix product."""
    return operations * product_seconds(precision)


def operations(step: Callable[[], object]) -> int:
    """Return the number of multiplications and additions of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def shares_of(profiled: profile) -> Counter[str]:
    """Return the share of each column in the time of all operations."""
    times = Counter[str]()
    for event in profiled.key_averages():
        columns = (c for c, parts in SHARES.items() if any(part in event.key for part in parts))
        times[next(columns, "other")] += event.self_cpu_time_total
    return Counter({column: of / times.total() for column, of in times.items()})


if __name__ == "__main__":
    main()
