"""What a training starts from, built out of stored results: its model, weights, mask and data."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from lth import data, graph, masks, models, pruning, spec
from lth.data import Data, Examples
from lth.errors import LotteryError
from lth.graph import Dense, Final, Fresh, Pruned, Snapshot
from lth.masks import Mask
from lth.store import Store
from lth.streams import generator


def build_model(fresh: Fresh) -> nn.Module:
    """The network on the CPU with these initial weights."""
    network = fresh.network
    build = partial(network.model, network.shape, network.classes)
    return models.fresh(build, generator(fresh.seed, fresh.stream))


@dataclass
class Inputs:
    """Materialises weights, masks and data; what it reads of the store may raise Damaged."""

    store: Store
    data_root: Path
    device: torch.device
    _data: dict[str, Data] = field(default_factory=dict)
    _masks: dict[graph.Mask, Mask] = field(default_factory=dict)

    def data(self, recipe: spec.Recipe) -> Data:
        """The dataset of a recipe, on the device, loaded once."""
        dataset = recipe.dataset
        key = f"{graph.canonical(dataset, 'dataset')} {recipe.split_seed}"
        if key not in self._data:
            source = dataset.loader(self.data_root)
            check_source(source.train, dataset)
            self._data[key] = data.prepare(
                source,
                test=dataset.test,
                validation=dataset.validation,
                split=dataset.split,
                split_seed=recipe.split_seed,
                preprocessing=dataset.preprocessing,
                device=self.device,
            )
        return self._data[key]

    def weights(self, node: graph.Weights) -> dict[str, Tensor]:
        """All parameters and buffers, on the CPU."""
        match node:
            case Fresh():
                return models.state(build_model(node))
            case Final(of=training):
                return load(self.store.read(training, "final.safetensors"))
            case Snapshot():
                return load(self.store.read(node, "state.safetensors"))
        raise TypeError(f"{node}: no such weights")

    def mask(self, node: graph.Mask, network: spec.Network) -> Mask:
        """Name of each prunable tensor -> bool tensor, on the CPU."""
        if node not in self._masks:
            self._masks[node] = self._make_mask(node, network)
        return self._masks[node]

    def _make_mask(self, node: graph.Mask, network: spec.Network) -> Mask:
        model = build_model(Fresh(network, seed=0))
        types = models.prunable(model)
        shapes = {name: model.get_parameter(name).shape for name in types}
        match node:
            case Dense():
                return {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()}
            case Pruned(weights=Final(of=training), previous=previous) if training.mask == previous:
                stored = load(self.store.read(training, "mask.safetensors"))
                return self._prune(node, masks.unpack(stored, shapes), types)
            case Pruned(previous=previous):
                return self._prune(node, self.mask(previous, network), types)
        raise TypeError(f"{node}: no such mask")

    def _prune(self, node: Pruned, previous: Mask, types: dict[str, models.LayerType]) -> Mask:
        weights, initial = self.weights(node.weights), self.weights(node.initial)
        evidence = pruning.Evidence(
            weights={name: weights[name] for name in types},
            initial={name: initial[name] for name in types},
            generator=generator(node.seed, "prune", node.level),
        )
        rates = {name: node.rule.rates[kind] for name, kind in types.items()}
        return pruning.select(spec.load(node.rule.criterion)(evidence), previous, rates)


def check_source(train: Examples, dataset: spec.Dataset) -> None:
    """Raise LotteryError unless the loaded examples are what the configuration says they are."""
    shape, classes = tuple(train.inputs.shape[1:]), int(train.labels.max()) + 1
    if shape != dataset.shape or classes > dataset.classes:
        raise LotteryError(
            f"dataset.shape={list(dataset.shape)} dataset.classes={dataset.classes}: "
            f"{dataset.loader.path} gives inputs of shape {list(shape)} in {classes} classes. "
            "Set dataset.shape and dataset.classes to that."
        )
