"""Fitting a head to labelled cycles, with the filters left as they are: plain numpy, seconds on one core.

Softmax cross-entropy, mini-batches, Adam (Kingma and Ba 2015) with decoupled weight decay (AdamW, Loshchilov and
Hutter 2019) and a step that falls to zero over a half cosine. Features are standardised per channel, and the
standardisation is folded into the first layer afterwards, so that the head takes raw features.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import twin
from gateway.head import known_features
from gateway.model import CLASSES, Filters, Head, ModelSpec, feature_len
from gateway.site import Site
from protocol.fixed import ACTIVATION_MAX

EPOCHS = 20
BATCH = 100
RATE = 2e-3
# A single layer is convex: large steps do no harm, and 480 small ones would not reach the steep edge that it needs.
RATE_SINGLE = 0.2
WEIGHT_DECAY = 1e-2
FIRST_REVISION = 1

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

Floats = NDArray[np.float32]
# Called with (epochs done, epochs in all).
Progress = Callable[[int, int], None]


class Samples(NamedTuple):
    """Labelled cycles of one site.

    Attributes:
        readings_ccel: int16 [n, rows, cols]; anything where no reading is.
        present: bool [n, rows, cols], which nodes had a reading.
        abnormal: bool [n].
    """

    readings_ccel: NDArray[np.int16]
    present: NDArray[np.bool_]
    abnormal: NDArray[np.bool_]


class _Adam(NamedTuple):
    """State of the optimiser: steps taken, then per parameter array the running means of gradient and its square."""

    step: int
    means: list[Floats]
    squares: list[Floats]


def fit_head(
    spec: ModelSpec, site: Site, filters: Filters, samples: Samples, seed: int, progress: Progress | None = None
) -> Head:
    """Fit the dense layers from scratch.

    Args:
        spec: the network.
        site: where its nodes stand.
        filters: what the nodes compute with.
        samples: labelled cycles.
        seed: of first weights and order of samples; equal seeds give equal heads on one machine.
        progress: told after each epoch.

    Returns:
        A head of revision 1, float32.

    Raises:
        ValueError: no samples, or features and spec do not fit.
    """
    if not len(samples.abnormal):
        raise ValueError("samples: there are 0; give labelled cycles, some of each class")
    features = twin.features(filters, samples.readings_ccel, samples.present, site)
    inputs = head_inputs(spec, features.reshape(len(features), feature_len(site, spec)))
    groups = _groups(spec, inputs.shape[1])
    centre, scale = _standardisation(spec, inputs, groups)
    inputs = (inputs - centre) / scale
    rng = np.random.default_rng(seed)
    parameters = _first_parameters((inputs.shape[1], *spec.hidden, CLASSES), groups, rng)
    state = _start(parameters)
    for epoch in range(EPOCHS):
        order = rng.permutation(len(inputs))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        for batch in batches:
            gradients = _gradients(parameters, inputs[batch], samples.abnormal[batch])
            rate = _rate(spec, state.step / (EPOCHS * len(batches)))
            parameters, state = _update(parameters, gradients, state, rate)
        if progress:
            progress(epoch + 1, EPOCHS)
    return _folded(parameters, centre, scale)


def head_inputs(spec: ModelSpec, features: NDArray[np.integer]) -> Floats:
    """What the first dense layer sees, as the head's graph computes it.

    Args:
        spec: says whether the maximum is appended.
        features: [batch, n], 0..255, -1 where missing.

    Returns:
        float32 [batch, n or n + 1], 0..1.
    """
    inputs = known_features(features) / np.float32(ACTIVATION_MAX)
    return np.hstack([inputs, inputs.max(axis=1, keepdims=True)]) if spec.appends_maximum else inputs


def _groups(spec: ModelSpec, inputs_len: int) -> NDArray[np.intp]:
    """Per input its group: the channel, the same in every block; an appended maximum is a group of its own."""
    groups = np.arange(inputs_len) % spec.channels
    if spec.appends_maximum:
        groups[-1] = spec.channels
    return groups


def _standardisation(spec: ModelSpec, inputs: Floats, groups: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Centre and scale per input, equal within a group.

    Per channel and not per block: a block that hardly ever noticed anything would be blown up until one odd cycle there
    outweighs all others. Beside an appended maximum a whole channel weighs as one input, or its many blocks would learn
    the room they were fitted in by heart before the maximum has its say.
    """
    centre, scale = np.empty(len(groups), np.float32), np.empty(len(groups), np.float32)
    for group in np.unique(groups):
        members = groups == group
        centre[members] = inputs[:, members].mean()
        weight = np.sqrt(members.sum()) if spec.appends_maximum else 1
        scale[members] = weight * inputs[:, members].std() or 1  # a channel that never changes stays as it is
    return centre, scale


def _first_parameters(widths: tuple[int, ...], groups: NDArray[np.intp], rng: np.random.Generator) -> list[Floats]:
    """Weights, bias, weights, bias ...: He initialisation, except that a first layer starts alike for every block."""
    parameters = []
    for inputs, outputs in itertools.pairwise(widths):
        weights = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
        parameters += [weights, np.zeros(outputs, np.float32)]
    parameters[0] = parameters[0][groups]
    return parameters


def _gradients(parameters: list[Floats], inputs: Floats, abnormal: NDArray[np.bool_]) -> list[Floats]:
    """Of the mean cross-entropy by every parameter array."""
    values = [inputs]
    for weights, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        values.append(np.maximum(values[-1] @ weights + bias, 0))
    logits = values[-1] @ parameters[-2] + parameters[-1]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True)
    error[np.arange(len(error)), abnormal.astype(np.intp)] -= 1
    error /= len(error)
    gradients: list[Floats] = []
    for value, weights in zip(reversed(values), parameters[-2::-2], strict=True):
        gradients = [value.T @ error, error.sum(axis=0), *gradients]
        error = (error @ weights.T) * (value > 0)
    return gradients


def _start(parameters: list[Floats]) -> _Adam:
    """The optimiser's state before its first step."""
    zeros = [np.zeros_like(values) for values in parameters]
    return _Adam(0, zeros, zeros)  # shared, because updates never write into them


def _rate(spec: ModelSpec, done: float) -> float:
    """The step size when this share of all steps is done: half a cosine down to 0."""
    return (RATE if spec.hidden else RATE_SINGLE) * (1 + math.cos(math.pi * done)) / 2


def _update(parameters: list[Floats], gradients: list[Floats], state: _Adam, rate: float) -> tuple[list[Floats], _Adam]:
    """One step; the decay pulls weights towards 0 and leaves biases alone."""
    step = state.step + 1
    means = [_BETA1 * mean + (1 - _BETA1) * g for mean, g in zip(state.means, gradients, strict=True)]
    squares = [_BETA2 * square + (1 - _BETA2) * g * g for square, g in zip(state.squares, gradients, strict=True)]
    updated = []
    for values, mean, square in zip(parameters, means, squares, strict=True):
        direction = mean / (1 - _BETA1**step) / (np.sqrt(square / (1 - _BETA2**step)) + _EPSILON)
        decay = WEIGHT_DECAY if values.ndim == 2 else 0
        updated.append((values - rate * (direction + decay * values)).astype(np.float32))
    return updated, _Adam(step, means, squares)


def _folded(parameters: list[Floats], centre: Floats, scale: Floats) -> Head:
    """The head that takes raw features: (x - centre) / scale @ w + b = x @ (w / scale) + (b - centre / scale @ w)."""
    weights, bias = parameters[:2]
    first = [weights / scale[:, np.newaxis], bias - (centre / scale) @ weights]
    layers = [np.asarray(values, np.float32) for values in (*first, *parameters[2:])]
    return Head(FIRST_REVISION, tuple(zip(layers[::2], layers[1::2], strict=True)))
