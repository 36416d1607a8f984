"""Steps of a sparse fully connected network, compiled by numba. Float32, one thread.

Neurons are numbered layer by layer, without the inputs. The weights of neuron j are `values[k]` for
k in [starts[j], starts[j + 1]). Weight k reads row `columns[k]` of `inputs` if j < `first` (the
first layer), else of `outputs`, the values of all neurons. Neurons j < `hidden` have a ReLU; the
others are the logits. A row holds one value for each example of the batch, so that each weight
multiplies a whole row, which the compiler vectorises.

Sums may be reordered; nan stays nan.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

ZERO = np.float32(0)
compiled = njit(cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


@compiled
def gather(
    stored: NDArray[np.uint8], indices: NDArray[np.int64], table: Floats, inputs: Floats
) -> None:
    """Fill the first columns of `inputs` (pixels, width) with the rows `indices` of `stored`
    (examples, pixels), each byte replaced by its value in `table` (channels, 256)."""
    per_channel = stored.shape[1] // len(table)
    for pixel in range(stored.shape[1]):
        of_channel, row = table[pixel // per_channel], inputs[pixel]
        for b in range(len(indices)):
            row[b] = of_channel[stored[indices[b], pixel]]


@compiled
def forward(
    inputs: Floats,
    starts: Integers,
    columns: Integers,
    values: Floats,
    biases: Floats,
    first: int,
    hidden: int,
    outputs: Floats,
) -> None:
    """Fill `outputs` (neurons, width) from `inputs` (inputs, width), four weights at a time: the
    row of a neuron is then read and written once for four weights."""
    batch = inputs.shape[1]
    for j in range(outputs.shape[0]):
        source = inputs if j < first else outputs
        row = outputs[j]
        for b in range(batch):
            row[b] = biases[j]
        k, end = starts[j], starts[j + 1]
        while k + 4 <= end:
            w0, w1, w2, w3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            x0, x1 = source[columns[k]], source[columns[k + 1]]
            x2, x3 = source[columns[k + 2]], source[columns[k + 3]]
            for b in range(batch):
                row[b] += (w0 * x0[b] + w1 * x1[b]) + (w2 * x2[b] + w3 * x3[b])
            k += 4
        for rest in range(k, end):
            w0, x0 = values[rest], source[columns[rest]]
            for b in range(batch):
                row[b] += w0 * x0[b]
        if j < hidden:
            for b in range(batch):
                row[b] = ZERO if row[b] < ZERO else row[b]


@compiled
def backward(
    inputs: Floats,
    outputs: Floats,
    starts: Integers,
    columns: Integers,
    values: Floats,
    first: int,
    hidden: int,
    gradients: Floats,
    of_values: Floats,
    of_biases: Floats,
) -> None:
    """Fill `of_values` and `of_biases`, the gradients of `values` and `biases`.

    `gradients` (neurons, width): the rows from `hidden` on hold the gradients of the logits; the
    other rows are overwritten."""
    batch = inputs.shape[1]
    gradients[:hidden] = ZERO
    for j in range(outputs.shape[0] - 1, -1, -1):
        own = gradients[j]
        if j < hidden:
            active = outputs[j]
            for b in range(batch):
                own[b] = ZERO if active[b] <= ZERO else own[b]
        total = ZERO
        for b in range(batch):
            total += own[b]
        of_biases[j] = total
        source = inputs if j < first else outputs
        for k in range(starts[j], starts[j + 1]):
            row = source[columns[k]]
            total = ZERO
            for b in range(batch):
                total += own[b] * row[b]
            of_values[k] = total
        if j >= first:
            for k in range(starts[j], starts[j + 1]):
                w, below = values[k], gradients[columns[k]]
                for b in range(batch):
                    below[b] += w * own[b]


@compiled
def cross_entropy(logits: Floats, labels: NDArray[np.int64], gradients: Floats) -> float:
    """Return the mean cross-entropy in nats, and fill `gradients` (classes, width)."""
    count, classes = len(labels), len(logits)
    loss = 0.0
    for b in range(count):
        top, total = largest(logits, b)[0], ZERO
        for j in range(classes):
            gradients[j, b] = math.exp(logits[j, b] - top)
            total += gradients[j, b]
        loss += math.log(total) + top - logits[labels[b], b]
        for j in range(classes):
            gradients[j, b] /= total * count
        gradients[labels[b], b] -= np.float32(1) / count
    return loss / count


@compiled
def scores(logits: Floats, labels: NDArray[np.int64]) -> tuple[float, int]:
    """Return the sum of the cross-entropies in nats, and the number of correct predictions."""
    loss, right = 0.0, 0
    for b in range(len(labels)):
        top, best = largest(logits, b)
        total = ZERO
        for j in range(len(logits)):
            total += math.exp(logits[j, b] - top)
        loss += math.log(total) + top - logits[labels[b], b]
        right += best == labels[b]
    return loss, right


@compiled
def largest(logits: Floats, b: int) -> tuple[np.float32, int]:
    """Return the largest logit of column `b`, and the first class that has it."""
    best = 0
    for j in range(1, len(logits)):
        if logits[j, b] > logits[best, b]:
            best = j
    return logits[best, b], best
