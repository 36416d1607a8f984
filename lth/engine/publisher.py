"""Store trainings and measurements with their provenance, and snapshots."""

import json
import logging

from safetensors.torch import save
from torch import Tensor

from lth.engine.build import Builder
from lth.experiment.nodes import Measurement, Snapshot, Training
from lth.experiment.results import curve_to_csv, to_csv
from lth.store.provenance import provenance
from lth.training import masks
from lth.training.loop import Progress
from lth.training.masks import Mask
from lth.training.moving import Moving
from lth.training.scored import Scored

log = logging.getLogger(__name__)


def publish_training(build: Builder, training: Training, progress: Progress) -> None:
    """Store a training that has ended. Its network is left at the early stop."""
    network, data = progress.network, build.data(training.recipe)
    final, at_end = network.state(), network.evaluate(data.train)[1]
    mask = _last_mask(build, training, progress)
    network.load(progress.early)
    at_stop = network.evaluate(data.train)[1]
    accuracies = {"early_stop_train_accuracy": at_stop, "final_train_accuracy": at_end}
    final = final if training.pruned == "frozen" else masks.apply(final, mask)
    weights = {name: (int(kept.sum()), kept.numel()) for name, kept in mask.items()}
    origin = {
        **progress.origin,
        "seconds": progress.seconds,
        "input_mean": data.mean,
        "input_std": data.std,
        "parts": progress.parts(),
    }
    artefacts = {
        "curve.csv": curve_to_csv(progress.curve),
        "mask.safetensors": save(masks.pack(mask)),
        "final.safetensors": save(final),
        "summary.json": _as_json({**accuracies, "weights": weights}),
        "provenance.json": _as_json(origin),
    }
    build.store.publish(training, artefacts)
    collapsed = [name for name, (kept, _) in weights.items() if not kept]
    if collapsed:
        log.warning("%s has no weight left in %s", training, ", ".join(collapsed))


def _last_mask(build: Builder, training: Training, progress: Progress) -> Mask:
    """Return the mask at the end of a training."""
    if isinstance(progress.network, Moving | Scored):
        return progress.network.mask
    return build.mask(training.mask, training.recipe.network)


def publish_snapshot(build: Builder, snapshot: Snapshot, state: dict[str, Tensor]) -> None:
    """Store the state of a training in progress."""
    build.store.publish(snapshot, {"state.safetensors": save(state)})


def publish_measurement(build: Builder, node: Measurement) -> None:
    """Compute the rows of a measurement, and store them."""
    rows = to_csv(node.compute(build), node.columns)
    origin = provenance() | {"device": str(build.device)}
    build.store.publish(node, {"rows.csv": rows, "provenance.json": _as_json(origin)})


def _as_json(content: object) -> bytes:
    return json.dumps(content, indent=1).encode()
