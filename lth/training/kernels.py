"""Steps of a sparse fully connected network, compiled by numba. Float32, one thread.

Neurons are numbered layer by layer, without the inputs. The examples of a batch are processed
LANES at a time: inputs, outputs and gradients are arrays (rows, LANES), with one row for each input
or neuron, so that a weight multiplies a whole row (`lth.training.simd`).
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lth.training.simd import LANES as LANES
from lth.training.simd import add_product, load, splat, store, total

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int32]
Indices = NDArray[np.int64]

ZERO = np.float32(0)
compiled = njit(cache=True, error_model="numpy")


class Network(NamedTuple):
    """The survivors of a network. Neuron j has the weights `values[k]` for k in [starts[j],
    starts[j + 1]). Weight k reads row `columns[k]` of the inputs if j < `first` (the first layer),
    else of the outputs. Neurons j < `hidden` have a ReLU; the others are the logits. `used`: the
    inputs that any weight reads."""

    starts: Integers
    columns: Integers
    used: Integers
    first: int
    hidden: int
    values: Floats
    biases: Floats


class Work(NamedTuple):
    """Arrays that are written: `stored` (LANES, inputs) for examples as bytes, `labels` (LANES,),
    `inputs` (inputs, LANES), `outputs` and `gradients` (neurons, LANES), and the gradients of
    `values` and `biases`."""

    stored: NDArray[np.uint8]
    labels: Indices
    inputs: Floats
    outputs: Floats
    gradients: Floats
    of_values: Floats
    of_biases: Floats


def workspace(inputs: int, of_values: Floats, of_biases: Floats) -> Work:
    """Return the arrays for a network with this number of inputs, empty but for the gradients."""
    sizes = (inputs, len(of_biases), len(of_biases))
    rows, outputs, gradients = (np.zeros((size, LANES), np.float32) for size in sizes)
    stored, labels = np.zeros((LANES, inputs), np.uint8), np.zeros(LANES, np.int64)
    return Work(stored, labels, rows, outputs, gradients, of_values, of_biases)


class Stored(NamedTuple):
    """Examples as bytes: `rows` (examples, pixels), `labels` (examples,), and the value of each
    byte in `table` (channels, 256)."""

    rows: NDArray[np.uint8]
    labels: Indices
    table: Floats


class Update(NamedTuple):
    """A step of Adam, AdamW or SGD: of `weights`, given their `gradients`. `average` and `square`
    are the moments of Adam; `average` is the momentum of SGD. `options`: see `adam` and `sgd`."""

    is_adam: bool
    weights: Floats
    gradients: Floats
    average: Floats
    square: Floats
    options: tuple[float, float, float, float, bool]


@compiled
def gather(network: Network, work: Work, data: Stored, chosen: Indices) -> None:
    """Fill the first lanes of the used inputs, and the labels, with the examples `chosen`. Each is
    first copied as a whole: the memory of a large dataset is slow to read across rows."""
    per_channel = data.rows.shape[1] // len(data.table)
    for b in range(len(chosen)):
        work.labels[b] = data.labels[chosen[b]]
        copy, example = work.stored[b], data.rows[chosen[b]]
        for pixel in range(len(example)):
            copy[pixel] = example[pixel]
    for pixel in network.used:
        of_channel, row = data.table[pixel // per_channel], work.inputs[pixel]
        for b in range(len(chosen)):
            row[b] = of_channel[work.stored[b, pixel]]


@compiled
def forward(network: Network, work: Work) -> None:
    """Fill `outputs` from `inputs`."""
    for j in range(len(network.biases)):
        source = work.inputs if j < network.first else work.outputs
        sums = splat(network.biases[j])
        for k in range(network.starts[j], network.starts[j + 1]):
            sums = add_product(sums, splat(network.values[k]), load(source, network.columns[k]))
        store(work.outputs, j, sums)
        if j < network.hidden:
            row = work.outputs[j]
            for b in range(LANES):
                row[b] = ZERO if row[b] < ZERO else row[b]


@compiled
def backward(network: Network, work: Work) -> None:
    """Add the gradients of weights and biases to `of_values` and `of_biases`, given those of the
    logits in the last rows of `gradients`; the other rows are overwritten."""
    work.gradients[: network.hidden] = ZERO
    for j in range(len(network.biases) - 1, -1, -1):
        if j < network.hidden:
            row, active = work.gradients[j], work.outputs[j]
            for b in range(LANES):
                row[b] = ZERO if active[b] <= ZERO else row[b]
        own = load(work.gradients, j)
        work.of_biases[j] += total(own)
        source = work.inputs if j < network.first else work.outputs
        for k in range(network.starts[j], network.starts[j + 1]):
            product = add_product(splat(ZERO), own, load(source, network.columns[k]))
            work.of_values[k] += total(product)
        if j >= network.first:
            for k in range(network.starts[j], network.starts[j + 1]):
                below = load(work.gradients, network.columns[k])
                below = add_product(below, splat(network.values[k]), own)
                store(work.gradients, network.columns[k], below)


@compiled
def cross_entropy(logits: Floats, labels: Indices, count: int, gradients: Floats) -> float:
    """Return the sum of the cross-entropies of some examples of a batch of `count`, divided by
    `count`, in nats. Fill `gradients` (classes, LANES); lanes without an example get 0."""
    loss = 0.0
    gradients[:, len(labels) :] = ZERO
    for b in range(len(labels)):
        top, whole = largest(logits, b)[0], ZERO
        for j in range(len(logits)):
            gradients[j, b] = math.exp(logits[j, b] - top)
            whole += gradients[j, b]
        loss += math.log(whole) + top - logits[labels[b], b]
        gradients[labels[b], b] -= whole  # exactly 0 if all others are: Adam enlarges any residue
        for j in range(len(logits)):
            gradients[j, b] /= whole * count
    return loss / count


@compiled
def loss_and_correct(logits: Floats, labels: Indices) -> tuple[float, int]:
    """Return the sum of the cross-entropies in nats, and the number of correct predictions."""
    loss, right = 0.0, 0
    for b in range(len(labels)):
        top, best = largest(logits, b)
        whole = ZERO
        for j in range(len(logits)):
            whole += math.exp(logits[j, b] - top)
        loss += math.log(whole) + top - logits[labels[b], b]
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


@compiled
def add_gradients(network: Network, work: Work, lanes: int, count: int) -> float:
    """Add the gradients of the examples in the first lanes of the inputs, which belong to a batch
    of `count`; return their part of its loss."""
    forward(network, work)
    logits, gradients = work.outputs[network.hidden :], work.gradients[network.hidden :]
    loss = cross_entropy(logits, work.labels[:lanes], count, gradients)
    backward(network, work)
    return loss


@compiled
def loss_and_correct_of(network: Network, work: Work, lanes: int) -> tuple[float, int]:
    """Return `loss_and_correct` of the examples in the first lanes of the inputs."""
    forward(network, work)
    return loss_and_correct(work.outputs[network.hidden :], work.labels[:lanes])


@compiled
def evaluate(network: Network, work: Work, data: Stored) -> tuple[float, int]:
    """Return `loss_and_correct` of all examples."""
    loss, right, every = 0.0, 0, np.arange(len(data.labels))
    for first in range(0, len(every), LANES):
        chosen = every[first : first + LANES]
        gather(network, work, data, chosen)
        of_block = loss_and_correct_of(network, work, len(chosen))
        loss, right = loss + of_block[0], right + of_block[1]
    return loss, right


@compiled
def adam(update: Update, rate: float, step: int) -> None:
    """Step number `step`, from 1, of Adam or AdamW, as in torch. Options: decay rates of the two
    moments, epsilon, weight decay, and whether that is decoupled."""
    first, second, epsilon, decay, decoupled = update.options
    size = np.float32(rate / (1 - first**step))
    scale = np.float32(math.sqrt(1 - second**step))
    kept, new = np.float32(second), np.float32(1 - second)
    share, small = np.float32(1 - first), np.float32(epsilon)
    penalty = ZERO if decoupled else np.float32(decay)
    factor = np.float32(1 - rate * decay) if decoupled else np.float32(1)
    for i in range(len(update.weights)):
        gradient = update.gradients[i] + penalty * update.weights[i]
        update.average[i] += share * (gradient - update.average[i])
        update.square[i] = kept * update.square[i] + new * gradient * gradient
        root = np.sqrt(update.square[i]) / scale + small
        update.weights[i] = factor * update.weights[i] - size * update.average[i] / root


@compiled
def sgd(update: Update, rate: float) -> None:
    """A step of SGD, as in torch. Options: momentum, dampening, weight decay, not used, and whether
    momentum is Nesterov's."""
    momentum, dampening, decay, _, nesterov = update.options
    kept, new = np.float32(momentum), np.float32(1 - dampening)
    penalty, size = np.float32(decay), np.float32(rate)
    for i in range(len(update.weights)):
        gradient = update.gradients[i] + penalty * update.weights[i]
        if momentum:
            update.average[i] = kept * update.average[i] + new * gradient
            gradient = gradient + kept * update.average[i] if nesterov else update.average[i]
        update.weights[i] -= size * gradient


@compiled
def steps(
    network: Network,
    work: Work,
    data: Stored,
    batches: Indices,
    update: Update,
    rates: Doubles,
    step: int,
    loss: float,
) -> float:
    """Take a step for each row of `batches` (steps, batch size) at the learning rates `rates`
    (steps,); `step` is the number of steps before. Return `loss` with the losses added, in order.
    """
    size = batches.shape[1]
    for i in range(len(batches)):
        work.of_values[:], work.of_biases[:], of_step = ZERO, ZERO, 0.0
        for first in range(0, size, LANES):
            chosen = batches[i, first : first + LANES]
            gather(network, work, data, chosen)
            of_step += add_gradients(network, work, len(chosen), size)
        if update.is_adam:
            adam(update, rates[i], step + i + 1)
        else:
            sgd(update, rates[i])
        loss += of_step
    return loss


@compiled
def linear(
    starts: Integers, rows: Integers, values: Floats, inputs: Floats, outputs: Floats
) -> None:
    """Add the products of a sparse linear layer to `outputs` (tiles, outputs, LANES), given
    `inputs` (tiles, inputs, LANES). Input i has the weights `values[k]` for k in [starts[i],
    starts[i + 1]); weight k belongs to the output `rows[k]`.

    Input by input, because a head has many inputs and few outputs: the outputs stay in the cache.
    """
    count = len(starts) - 1
    for tile in range(len(inputs)):
        first = tile * outputs.shape[1]
        for i in range(count):
            if starts[i] < starts[i + 1]:
                own = load(inputs, tile * count + i)
                for k in range(starts[i], starts[i + 1]):
                    sums = load(outputs, first + rows[k])
                    store(outputs, first + rows[k], add_product(sums, splat(values[k]), own))


@compiled
def linear_backward(
    starts: Integers,
    rows: Integers,
    values: Floats,
    inputs: Floats,
    gradients: Floats,
    of_values: Floats,
    of_inputs: Floats,
) -> None:
    """Add to `of_values` the gradients of a sparse linear layer's weights, and fill `of_inputs`
    (tiles, inputs, LANES), given those of its outputs: (tiles, outputs, LANES)."""
    count = len(starts) - 1
    for tile in range(len(inputs)):
        first = tile * gradients.shape[1]
        for i in range(count):
            own, below = load(inputs, tile * count + i), splat(ZERO)
            for k in range(starts[i], starts[i + 1]):
                above = load(gradients, first + rows[k])
                of_values[k] += total(add_product(splat(ZERO), own, above))
                below = add_product(below, splat(values[k]), above)
            store(of_inputs, tile * count + i, below)
