"""python -m benchmarks.step: a training iteration of dense LeNet-300-100 on MNIST, one thread.

Ours against the loop that most published code runs: torchvision's MNIST with ToTensor and
Normalize, a shuffling DataLoader, batches of 60, masks on the weights, Adam. Rounds alternate, so
that both see the same machine; medians and ranges are printed. Needs MNIST (LTH_DATA or data/).
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from lth import datasets, models, spec
from lth.config import from_config
from lth.graph import Dense, Fresh
from lth.inputs import Inputs, build_model
from lth.store import Store
from lth.training import Progress, train

ROOT = Path(__file__).parents[1]
ROUNDS, WARM_UP, STEPS = 7, 50, 500


def usual_loop(fresh: Fresh, root: Path) -> Callable[[], float]:
    """Seconds per iteration of the usual loop."""
    normalize = transforms.Normalize((0.1307,), (0.3081,))
    dataset = MNIST(str(root), transform=transforms.Compose([transforms.ToTensor(), normalize]))
    loader = DataLoader(dataset, batch_size=60, shuffle=True)

    def measure() -> float:
        model = build_model(fresh)
        masks = {
            name: torch.ones_like(model.get_parameter(name)) for name in models.prunable(model)
        }
        optimizer = torch.optim.Adam(model.parameters(), lr=1.2e-3)
        started = 0.0
        for step, (inputs, labels) in enumerate(loader):
            if step == WARM_UP:
                started = time.perf_counter()
            if step == WARM_UP + STEPS:
                break
            loss = cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, mask in masks.items():
                    model.get_parameter(name).mul_(mask)
        return (time.perf_counter() - started) / STEPS

    return measure


def our_loop(recipe: spec.Recipe, inputs: Inputs, fresh: Fresh) -> Callable[[], float]:
    """Seconds per iteration of `lth.training`, between evaluations."""
    weights, mask = inputs.weights(fresh, recipe.network), inputs.mask(Dense(), recipe.network)
    examples = inputs.data(recipe)

    def measure() -> float:
        times = {}

        def tick(progress: Progress) -> None:
            if progress.iteration in (WARM_UP, WARM_UP + STEPS):
                times[progress.iteration] = time.perf_counter()

        train(build_model(fresh), weights, mask, examples, recipe, seed=0, tick=tick)
        return (times[WARM_UP + STEPS] - times[WARM_UP]) / STEPS

    return measure


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    iterations = WARM_UP + STEPS + 1
    overrides = [f"training.iterations={iterations}", f"training.evaluate_every={iterations}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        wanted = from_config(compose("config", overrides=["experiment=lenet", *overrides]))
    recipe = spec.recipe(wanted)
    fresh = Fresh(recipe.network, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(wanted.dataset.root), Path(folder))
        inputs = Inputs(Store(Path(folder)), Path(folder), torch.device("cpu"))
        loops = {
            "the usual loop": usual_loop(fresh, Path(folder)),
            "lth.training": our_loop(recipe, inputs, fresh),
        }
        times: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(ROUNDS):
            for name, measure in loops.items():
                times[name].append(1e3 * measure())
    report(times)


def unpack(root: Path, folder: Path) -> None:
    """MNIST as torchvision wants it, wherever and however packed it lies."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    source = datasets.mnist(root, "MNIST")
    assert source.test is not None
    parts = (source.train, source.test)
    tensors = (t for inputs, labels in parts for t in (inputs.squeeze(1), labels))
    for tensor, name in zip(tensors, datasets.IDX_FILES, strict=True):
        values = tensor.byte().numpy()
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        (raw / name).write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


def report(times: dict[str, list[float]]) -> None:
    usual, ours = (statistics.median(values) for values in times.values())
    print(
        f"torch {torch.__version__}, 1 of {os.cpu_count()} cores, {ROUNDS} rounds of {STEPS} steps"
    )
    for name, values in times.items():
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"{name:16} {median:6.2f} ms an iteration (median; {low:.2f} to {high:.2f})")
    print(f"ratio of medians {usual / ours:6.2f}")


if __name__ == "__main__":
    main()
