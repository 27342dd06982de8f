"""The dense layers as training sees them: inputs standardised, so that one rate suits all of them.

The standardisation is no part of a model: it is taken out of the head's first layer before training and folded into it
afterwards, (x - centre) / scale @ w + b = x @ (w / scale) + (b - centre / scale @ w).
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.head import known_features
from gateway.model import CLASSES, Head, ModelSpec
from protocol.fixed import ACTIVATION_MAX

Floats = NDArray[np.float32]
Layers = list[tuple[Floats, Floats]]


class Standard(NamedTuple):
    """Of the dense layers' inputs, float32 [n] each; equal within a channel."""

    centre: Floats
    scale: Floats


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


def standard_of(spec: ModelSpec, inputs: Floats) -> Standard:
    """From what the samples gave, [samples, n].

    Per channel and not per block: a block that hardly ever noticed anything would be blown up until one odd cycle there
    outweighs all others. Beside an appended maximum a whole channel weighs as one input, or its many blocks would learn
    the room they were fitted in by heart before the maximum has its say.
    """
    groups = _groups(spec, inputs.shape[1])
    centre, scale = np.empty(len(groups), np.float32), np.empty(len(groups), np.float32)
    for group in np.unique(groups):
        members = groups == group
        values = inputs[:, members]
        weight = np.sqrt(members.sum()) if spec.appends_maximum else 1
        # A channel that never changes is not blown up. Rounding may give it a deviation, so that does not tell it.
        centre[members], scale[members] = values.mean(), weight * values.std() if np.ptp(values) else 1
    return Standard(centre, scale)


def first_layers(spec: ModelSpec, inputs_len: int, rng: np.random.Generator) -> Layers:
    """Dense layers to start from: He initialisation, except that a first layer starts alike for every block."""
    layers = []
    for inputs, outputs in itertools.pairwise((inputs_len, *spec.hidden, CLASSES)):
        weights = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
        layers.append((weights, np.zeros(outputs, np.float32)))
    layers[0] = layers[0][0][_groups(spec, inputs_len)], layers[0][1]
    return layers


def folded(layers: Layers, standard: Standard, revision: int) -> Head:
    """The head that takes inputs as they come, from layers that take standardised ones."""
    weights, bias = layers[0]
    shift: Floats = np.asarray((standard.centre / standard.scale) @ weights, np.float32)
    return Head(revision, ((weights / standard.scale[:, np.newaxis], bias - shift), *layers[1:]))


def unfolded(head: Head, standard: Standard) -> Layers:
    """The other way round."""
    weights, bias = head.layers[0]
    return [(weights * standard.scale[:, np.newaxis], bias + standard.centre @ weights), *head.layers[1:]]


def _groups(spec: ModelSpec, inputs_len: int) -> NDArray[np.intp]:
    """Per input its group: the channel, the same in every block; an appended maximum is a group of its own."""
    groups = np.arange(inputs_len) % spec.channels
    if spec.appends_maximum:
        groups[-1] = spec.channels
    return groups
