"""Check what a loader returns, whoever wrote it, before anything is computed from it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lth.errors import LotteryError
from lth.experiment.settings import Dataset
from lth.training.data import Examples, LoadedData

CHANNELS = (1, 3)
"""Numbers of channels that pictures have. Other axes are longer."""
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_loaded(loaded: LoadedData, dataset: Dataset) -> None:
    """Raise LotteryError unless the loaded examples have the form that loaders must return, and
    match the configuration."""
    loader = dataset.loader.name
    if not isinstance(loaded, LoadedData):
        raise LotteryError(
            f"{loader} must return an lth.training.data.LoadedData, got {type(loaded).__name__}. "
            "Return LoadedData(Examples(inputs, labels), test, maximum); test may be None."
        )
    maximum = loaded.maximum
    if not isinstance(maximum, int) or maximum < 1:
        raise LotteryError(
            f"{loader}: maximum must be an integer >= 1, got {maximum}. Return the highest "
            "possible input value."
        )
    for name, part in (("training", loaded.train), ("test", loaded.test)):
        for fault in _faults(part, maximum) if part else ():
            raise LotteryError(f"{loader}, {name} part: {fault}")
    _check_sizes(loaded, dataset)


def _faults(part: Examples, maximum: int) -> Iterator[str]:
    """Yield what is wrong, and what to do. Each check relies on those before it."""
    inputs, labels = part
    if not _is_tensor(inputs, 4, INTEGERS):
        yield (
            "inputs must be integers in a tensor of shape (n, channels, height, width), got "
            f"{_described(inputs)}. {_remedy_of_inputs(inputs)}"
        )
    if not _is_tensor(labels, 1, (torch.int64,)):
        yield (
            f"labels must be int64 in a tensor of shape (n,), got {_described(labels)}. "
            f"{_remedy_of_labels(labels)}"
        )
    if len(inputs) != len(labels):
        yield (
            f"there must be one label per input, got {len(inputs):,} inputs and {len(labels):,} "
            "labels. Correct the loader or its files."
        )
    if not len(labels):
        yield "there must be at least one example, got none. Correct the loader or its files."
    low, high = (int(value) for value in inputs.aminmax())
    if low < 0 or high > maximum:
        yield (
            f"inputs must be in [0, {maximum}], got values from {low} to {high}. Return the "
            "highest possible value as maximum, and no negative ones."
        )
    if labels.min() < 0:
        yield f"labels must be >= 0, got {int(labels.min())}. Number the classes from 0."


def _remedy_of_inputs(inputs: object) -> str:
    if not isinstance(inputs, Tensor):
        return "Convert an array with torch.from_numpy(inputs)."
    if inputs.dtype not in INTEGERS:
        return "Return stored values, such as bytes: dataset.preprocessing scales them."
    if inputs.dim() == 3:
        return "Add the axis of channels with inputs.unsqueeze(1)."
    return "Give each example the axes channels, height and width."


def _remedy_of_labels(labels: object) -> str:
    if not isinstance(labels, Tensor):
        return "Convert an array with torch.from_numpy(labels).long()."
    if labels.dim() > 1:
        return "Convert one-hot labels with labels.argmax(1), or a column with labels.squeeze(1)."
    return "Convert integers with labels.long()."


def _is_tensor(value: object, dimensions: int, types: tuple[torch.dtype, ...]) -> bool:
    return isinstance(value, Tensor) and value.dim() == dimensions and value.dtype in types


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"
    return type(value).__name__


def _check_sizes(loaded: LoadedData, dataset: Dataset) -> None:
    train, test = loaded.train, loaded.test or loaded.train
    shapes = {tuple(part.inputs.shape[1:]) for part in (train, test)}
    found = " and ".join(str(list(shape)) for shape in sorted(shapes))
    classes = 1 + max(int(part.labels.max()) for part in (train, test))
    count = len(train.labels)
    if shapes != {dataset.shape} or count != dataset.examples or classes > dataset.classes:
        raise LotteryError(
            f"dataset.shape={list(dataset.shape)} dataset.classes={dataset.classes} "
            f"dataset.examples={dataset.examples} must match what {dataset.loader.name} returns: "
            f"{count} training examples in {classes} classes, of shape {found}. Set them to that; "
            f"training and test inputs must have one shape.{_hints(train)}"
        )


def _hints(part: Examples) -> str:
    """Return what may be wrong with examples that do not match the configuration."""
    channels, *_, last = part.inputs.shape[1:]
    hints = []
    if part.labels.min() == 1:
        hints.append(" Labels begin at 1: if they should at 0, return labels - 1.")
    if last in CHANNELS and channels not in CHANNELS:
        hints.append(" If channels are the last axis, return inputs.permute(0, 3, 1, 2).")
    return "".join(hints)
