"""What a training starts from, built out of stored results: its model, weights, mask and data."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from lth import models, pruning
from lth.errors import LotteryError
from lth.experiment import nodes, settings
from lth.experiment.nodes import Constant, Dense, Final, Fresh, Pruned, Shuffled, Signed, Snapshot
from lth.store.store import Store
from lth.training import data, masks, selection
from lth.training.data import Data, Source
from lth.training.masks import Mask
from lth.training.seeds import generator, global_generator, stream_seed


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
    _masks: dict[tuple[nodes.Mask, str], Mask] = field(default_factory=dict)
    _layers: dict[str, dict[str, tuple[models.LayerType, torch.Size]]] = field(default_factory=dict)

    def data(self, recipe: settings.Recipe) -> Data:
        """The dataset of a recipe, on the device, loaded once."""
        dataset = recipe.dataset
        key = f"{nodes.canonical(dataset, 'dataset')} {recipe.split_seed}"
        if key not in self._data:
            source = dataset.loader(self.data_root)
            check_source(source, dataset)
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

    def weights(self, node: nodes.Weights, network: settings.Network) -> dict[str, Tensor]:
        """All parameters and buffers, on the CPU."""
        match node:
            case Fresh():
                return models.state(build_model(node))
            case Final(of=training):
                return load(self.store.read(training, "final.safetensors"))
            case Snapshot():
                return load(self.store.read(node, "state.safetensors"))
            case Signed(sizes=sizes, signs=signs):
                state, other = self.weights(sizes, network), self.weights(signs, network)
                names = self.layers(network)
                return state | {name: state[name].abs() * other[name].sign() for name in names}
            case Constant(of=of):
                state = self.weights(of, network)
                return state | {name: _even(state[name]) for name in self.layers(network)}
        raise TypeError(f"{node}: no such weights")

    def mask(self, node: nodes.Mask, network: settings.Network) -> Mask:
        """Name of each prunable tensor -> bool tensor, on the CPU."""
        key = (node, str(nodes.canonical(network)))  # the dense mask is one node for all networks
        if key not in self._masks:
            self._masks[key] = self._make_mask(node, network)
        return self._masks[key]

    def mask_of(self, training: nodes.Training) -> Mask:
        """That of a stored training, from its own file: no weights are needed."""
        layers = self.layers(training.recipe.network)
        stored = load(self.store.read(training, "mask.safetensors"))
        return masks.unpack(stored, {name: shape for name, (_, shape) in layers.items()})

    def layers(self, network: settings.Network) -> dict[str, tuple[models.LayerType, torch.Size]]:
        """The type and the shape of each prunable tensor."""
        key = str(nodes.canonical(network))
        if key not in self._layers:
            model = build_model(Fresh(network, seed=0))
            types = models.prunable(model).items()
            self._layers[key] = {n: (kind, model.get_parameter(n).shape) for n, kind in types}
        return self._layers[key]

    def _make_mask(self, node: nodes.Mask, network: settings.Network) -> Mask:
        shapes = {name: shape for name, (_, shape) in self.layers(network).items()}
        match node:
            case Dense():
                return {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()}
            case Pruned(weights=Final(of=training), previous=previous) if training.mask == previous:
                return self._prune(node, self.mask_of(training))
            case Pruned(previous=previous):
                return self._prune(node, self.mask(previous, network))
            case Shuffled(mask=mask):
                return masks.shuffled(self.mask(mask, network), generator(node.seed, node.stream))
        raise TypeError(f"{node}: no such mask")

    def _prune(self, node: Pruned, mask: Mask) -> Mask:
        network, rule = node.recipe.network, node.rule
        rates = {name: rule.rates[kind] for name, (kind, _) in self.layers(network).items()}
        pools = selection.pools(rates, rule.scope)
        before = selection.counts(mask, pools)
        after = {pool: selection.survivors(before[pool], pools[pool], rule.times) for pool in pools}
        state = self.weights(node.weights, network)
        initial = self.weights(node.initial, network)
        random = generator(node.seed, "prune", node.level)

        def model() -> nn.Module:
            built = build_model(Fresh(network, node.seed))
            built.load_state_dict(masks.apply(state, mask))
            return built.to(self.device)

        for number in range(1, rule.rounds + 1):
            seed = stream_seed(node.seed, "prune", node.level, "dropout", number)
            global_generator(self.device).manual_seed(seed)
            scoring = pruning.ScoringInputs(
                weights={name: state[name] for name in mask},
                initial={name: initial[name] for name in mask},
                mask=mask,
                generator=random,
                model=model,
                examples=lambda: self.data(node.recipe).train,
            )
            done = number / rule.rounds
            kept = {pool: selection.between(before[pool], after[pool], done) for pool in pools}
            mask = selection.keep(rule.criterion(scoring), mask, kept)
        return mask


def _even(weights: Tensor) -> Tensor:
    """Filled with its root mean square: the standard deviation of an initialiser around 0."""
    return torch.full_like(weights, float(weights.double().square().mean().sqrt()))


def check_source(source: Source, dataset: settings.Dataset) -> None:
    """Raise LotteryError unless the loaded examples are what the configuration says they are."""
    train, test = source.train, source.test or source.train
    shapes = {tuple(part.inputs.shape[1:]) for part in (train, test)}
    found = " and ".join(str(list(shape)) for shape in sorted(shapes))
    classes = 1 + max(int(part.labels.max()) for part in (train, test))
    count = len(train.labels)
    if shapes != {dataset.shape} or count != dataset.examples or classes > dataset.classes:
        raise LotteryError(
            f"dataset.shape={list(dataset.shape)} dataset.classes={dataset.classes} "
            f"dataset.examples={dataset.examples}: {dataset.loader.path} gives {count} training "
            f"examples in {classes} classes, of shape {found}. Set them to that; "
            "training and test inputs have to be of one shape."
        )
