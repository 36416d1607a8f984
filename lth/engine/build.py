"""Build the model, weights, mask and data that a training starts from, out of stored results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from lth import models
from lth.engine.loaded import check_loaded
from lth.errors import LotteryError
from lth.experiment.node import Mask as MaskNode
from lth.experiment.node import Weights
from lth.experiment.nodes import (
    Constant,
    Dense,
    Ended,
    Final,
    Fresh,
    Pruned,
    Settled,
    Shuffled,
    Signed,
    Snapshot,
    Training,
)
from lth.experiment.recipe import Network, Recipe, Rule
from lth.experiment.targets import canonical
from lth.pruning import ScoringInputs
from lth.store.store import Store
from lth.training import data, masks, selection, units
from lth.training.data import Data
from lth.training.masks import Mask
from lth.training.seeds import generator, global_generator, stream_seed

Layers = dict[str, tuple[models.LayerType, torch.Size]]
"""Name of each prunable tensor -> type of its layer, and its shape."""


def build_model(fresh: Fresh) -> nn.Module:
    """Return the network on the CPU with these initial weights."""
    network = fresh.network
    build = partial(network.model, network.shape, network.classes)
    return models.fresh(build, generator(fresh.seed, fresh.stream))


class NoData(LotteryError):
    """The examples of a recipe cannot be loaded."""


@dataclass
class Builder:
    """Builds weights, masks and data of nodes; caches masks and data. Reading from the store may
    raise Damaged."""

    store: Store
    data_root: Path
    device: torch.device
    _data: dict[str, Data] = field(default_factory=dict)
    _masks: dict[tuple[MaskNode, str], Mask] = field(default_factory=dict)
    _layers: dict[str, Layers] = field(default_factory=dict)

    def model(self, training: Training) -> nn.Module:
        """Return the network of a training, on the device."""
        model = build_model(Fresh(training.recipe.network, training.seed))
        return models.channels_last(model.to(self.device))

    def data(self, recipe: Recipe) -> Data:
        """Return the dataset of a recipe, on the device; it is loaded once. Raises NoData if it
        cannot be loaded."""
        dataset = recipe.dataset
        key = f"{canonical(dataset)} {recipe.split_seed}"
        if key not in self._data:
            try:
                loaded = dataset.loader(self.data_root)
            except LotteryError as error:
                raise NoData(str(error)) from error
            check_loaded(loaded, dataset)
            self._data[key] = data.prepare(
                loaded,
                test=dataset.test,
                validation=dataset.validation,
                train=dataset.train,
                subset=dataset.subset,
                split=dataset.split,
                split_seed=recipe.split_seed,
                preprocessing=dataset.preprocessing,
                device=self.device,
            )
        return self._data[key]

    def weights(self, node: Weights, network: Network) -> dict[str, Tensor]:
        """Return all parameters and buffers by name, on the CPU."""
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
            case Settled(masks=masks):
                return self.weights(masks[self._first_settled(node, network)].weights, network)
            case Constant(of=of):
                state = self.weights(of, network)
                return state | {name: _constant(state[name]) for name in self.layers(network)}
        raise TypeError(
            f"expected a Fresh, Final, Snapshot, Signed, Settled or Constant node, got {node}"
        )

    def mask(self, node: MaskNode, network: Network) -> Mask:
        """Return name of each prunable tensor -> bool tensor, on the CPU."""
        key = (node, str(canonical(network)))  # the dense mask is one node for all networks
        if key not in self._masks:
            self._masks[key] = self._build_mask(node, network)
        return self._masks[key]

    def _first_settled(self, node: Settled, network: Network) -> int:
        """Return the number of the first mask that is near each one before it in its window."""
        drawn = list[Mask]()
        for number, mask in enumerate(node.masks):
            drawn = [*drawn, self._build_mask(mask, network)][-node.window :]
            apart = [masks.distance(earlier, drawn[-1]) for earlier in drawn[:-1]]
            if len(drawn) == node.window and max(apart) < node.distance:
                return number
        return len(node.masks) - 1

    def stored_mask(self, training: Training) -> Mask:
        """Return the mask of a stored training, from its own file: no weights are needed. If the
        mask has moved, it is the last one."""
        layers = self.layers(training.recipe.network)
        stored = load(self.store.read(training, "mask.safetensors"))
        return masks.unpack(stored, {name: shape for name, (_, shape) in layers.items()})

    def distance(self, one: MaskNode, other: MaskNode, network: Network) -> float:
        """Return the fraction of entries in which two masks differ."""
        return masks.distance(self.mask(one, network), self.mask(other, network))

    def layers(self, network: Network) -> Layers:
        """Return the type and the shape of each prunable tensor."""
        key = str(canonical(network))
        if key not in self._layers:
            model = build_model(Fresh(network, seed=0))
            types = models.prunable(model).items()
            self._layers[key] = {n: (kind, model.get_parameter(n).shape) for n, kind in types}
        return self._layers[key]

    def rates(self, rule: Rule, network: Network) -> dict[str, float]:
        """Return the rate of each prunable tensor, in percent."""
        return {name: rule.rates[kind] for name, (kind, _) in self.layers(network).items()}

    def survivors(self, rule: Rule, mask: Mask, network: Network) -> dict[selection.Pool, int]:
        """Return how many weights a rule leaves of a mask, in each pool of tensors."""
        layers = self.layers(network)
        pools = selection.pools(self.rates(rule, network), rule.scope)
        shapes = {name: shape for name, (_, shape) in layers.items()}
        before = selection.counts(mask, pools)
        return selection.left(before, pools, rule.times, rule.scope, shapes)

    def counts(self, training: Training) -> dict[selection.Pool, int]:
        """Return the survivors at the end of a training whose mask moves to a target; nothing for
        others."""
        network = training.recipe.network
        if training.target is None:
            return {}
        return self.survivors(training.target, self.mask(training.mask, network), network)

    def _build_mask(self, node: MaskNode, network: Network) -> Mask:
        match node:
            case Dense():
                shapes = {name: shape for name, (_, shape) in self.layers(network).items()}
                return {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()}
            case Pruned(weights=Final(of=training)) if node.has_own_mask():
                return self._prune(node, self.stored_mask(training))
            case Pruned(previous=previous):
                return self._prune(node, self.mask(previous, network))
            case Ended(of=training):
                return self.stored_mask(training)
            case Shuffled(mask=mask):
                return masks.shuffled(self.mask(mask, network), generator(node.seed, node.stream))
        raise TypeError(f"expected a Dense, Pruned, Ended or Shuffled node, got {node}")

    def _prune(self, node: Pruned, mask: Mask) -> Mask:
        """Prune `mask` by the node's rule, in rounds, on a geometric path of survivor counts."""
        network, rule = node.recipe.network, node.rule
        after = self.survivors(rule, mask, network)
        before = selection.counts(mask, after)
        state = self.weights(node.weights, network)
        initial = self.weights(node.initial, network)
        random = generator(node.seed, "prune", node.level)

        def model() -> nn.Module:
            built = build_model(Fresh(network, node.seed))
            models.load(built, masks.apply(state, mask))
            return built.to(self.device)

        for number in range(1, rule.rounds + 1):
            seed = stream_seed(node.seed, "prune", node.level, "dropout", number)
            global_generator(self.device).manual_seed(seed)
            inputs = ScoringInputs(
                weights={name: state[name] for name in mask},
                initial={name: initial[name] for name in mask},
                mask=mask,
                generator=random,
                model=model,
                examples=lambda: self.data(node.recipe).train,
            )
            scores = rule.criterion(inputs)
            _check_scores(scores, mask, rule.criterion.name)
            if rule.granularity != "weight":
                return units.prune(scores, mask, self.rates(rule, network), rule.times)
            fraction = number / rule.rounds
            kept = {p: selection.between(before[p], after[p], fraction) for p in after}
            mask = selection.keep(scores, mask, kept)
        return mask


def _check_scores(scores: object, mask: Mask, criterion: str) -> None:
    """Raise LotteryError unless a criterion has returned a number for each survivor of a mask."""
    given = scores if isinstance(scores, Mapping) else {}
    for name, kept in mask.items():
        found = given.get(name)
        if not isinstance(found, Tensor) or found.shape != kept.shape:
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise LotteryError(
                f"pruning.criterion={criterion} must return a tensor of shape {list(kept.shape)} "
                f"for {name}, got {got}. Return a dict with scores for each of inputs.weights."
            )
        if wrong := int(found[kept].isnan().sum()):
            raise LotteryError(
                f"pruning.criterion={criterion} must return a number for each weight, got nan for "
                f"{wrong:,} of the {int(kept.sum()):,} survivors of {name}."
            )


def _constant(weights: Tensor) -> Tensor:
    """Return a tensor filled with the root mean square of `weights`: their deviation around 0."""
    return torch.full_like(weights, float(weights.double().square().mean().sqrt()))
