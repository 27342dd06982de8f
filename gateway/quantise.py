"""Filters as numbers to train, and back: shares of a range in single precision <-> int8 weights, int32 biases, a shift.

    weight   int8 / 128                -1 <= weight <= 127/128
    bias     int32 / 2^(8 + shift)     a bias of 1 is an activation of 256
    shift    stays as it is while its layer is trained

Shares that came from a layer give the very same integers back. What is trained is limited further than what nodes
accept (protocol/fixed.py): within these limits single precision computes exactly what nodes compute, and why that is so
stands at `convolve` in gateway/training_layers.py.

A layer with sign has no steps, so its filters need no common range. They count in their own:
    weight   any number             the largest of a filter becomes +-126 / 126, the others follow
    bias     degrees                a difference filter of weights -1 and 1 with a bias of -3 begins at 3 degrees
A weight under 0.3 of the largest counts as 0, for a member that hardly matters would be bound by its window's limits
like any other (sim/zones.py). What rounding leaves of a filter's sum is put on its largest weight, for the sum stays 0.
Weights that are whole 126ths with a sum of 0, as they come from a layer, stay as they are.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.model import SIGN, LayerShape, ModelError, NodeLayer
from protocol.filter_set import WINDOW_TAPS
from protocol.fixed import ACTIVATION_MAX, WEIGHT_ZERO
from protocol.grid import TAPS

# A weight of 1 would be the int8 128, a bias of 1 the whole range of an activation: so one rate suits both.
WEIGHT_ONE = WEIGHT_ZERO
BIAS_ONE = ACTIVATION_MAX + 1
# An activation's whole range at this shift reaches 2^24; beyond, single precision would round where it matters.
SHIFT_LIMIT = 16
# Half a step is added to it, and the sum must be a whole number of single precision.
BIAS_LIMIT = (1 << 24) - (1 << SHIFT_LIMIT)
# Nine products of such readings and any weights stay within 2^24: 145 degrees around the reference. A reading outside
# is trained with as if it lay at the limit; what nodes make of it is judged on the twin.
READING_LIMIT = (1 << 24) // (TAPS * WEIGHT_ONE)
# With a sign: the largest weight of a filter, one less than it could be, for it takes up what rounding leaves.
PEAK = 126
# The share of a filter's largest weight below which another counts as 0; above a third all others could.
PRUNED = 0.3
# A filter whose weights are all smaller is none.
PEAK_LEAST = 1e-6
DEGREE_CCEL = 100
# A filter that never says anything: its bias alone is left. While others are trained it is so many degrees away.
NEVER = -1
NEVER_DEGREES = -1000
# So near to a whole number, a weight of 126ths is one.
WHOLE_WITHIN = 1e-3


class Shares(NamedTuple):
    """A node layer's numbers while they are trained.

    Attributes:
        weights: float32 [filters, in, 9 or 1].
        bias: float32 [filters].
        shift: 1..SHIFT_LIMIT; 0 with a sign.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    shift: int


def shares_of(layer: NodeLayer) -> Shares:
    """A layer's numbers to train; a weight of 64 at any shift -> 0.5.

    Raises:
        ModelError: its shift or a bias is beyond what single precision can train exactly.
    """
    if layer.shift > SHIFT_LIMIT:
        raise ModelError(f"shift: {layer.shift} is beyond {SHIFT_LIMIT}; train from filters with a smaller one")
    if np.any(np.abs(layer.bias.astype(np.int64)) > BIAS_LIMIT):
        raise ModelError(f"bias: {layer.bias.tolist()} goes beyond +-{BIAS_LIMIT}; train from smaller ones")
    if layer.activation == SIGN:
        never = ~layer.weights.any(axis=(1, 2)) & (layer.bias < 0)
        bias = np.where(never, NEVER_DEGREES, layer.bias.astype(np.float32) / np.float32(PEAK * DEGREE_CCEL))
        return Shares(layer.weights.astype(np.float32) / np.float32(PEAK), bias.astype(np.float32), layer.shift)
    weights = layer.weights.astype(np.float32) / np.float32(WEIGHT_ONE)
    return Shares(weights, layer.bias.astype(np.float32) / np.float32(BIAS_ONE << layer.shift), layer.shift)


def layer_of(shape: LayerShape, shares: Shares) -> NodeLayer:
    """The nearest layer that nodes can hold; halves go to the even number, as in the training graph."""
    if shape.activation == SIGN:
        return _sign_layer(shape, shares)
    weights = np.rint(shares.weights * np.float32(WEIGHT_ONE)).clip(-WEIGHT_ONE, WEIGHT_ONE - 1)
    bias = np.rint(shares.bias * np.float32(BIAS_ONE << shares.shift)).clip(-BIAS_LIMIT, BIAS_LIMIT)
    return NodeLayer.of(shape, shares.shift, bias.astype(np.int32), weights.astype(np.int8))


def _sign_layer(shape: LayerShape, shares: Shares) -> NodeLayer:
    """Filters on the window, each in a scale of its own; one that can never reach 0 is dropped."""
    window = shares.weights[:, 0, WINDOW_TAPS]
    window = window - window.mean(axis=1, keepdims=True, dtype=np.float32)
    scale, whole = _whole(window)
    bias = np.rint(shares.bias * np.float32(DEGREE_CCEL) * scale[:, 0])
    dropped = (bias <= -BIAS_LIMIT) | ~whole.any(axis=1) & (bias < 0)
    weights = np.zeros((shape.filters, 1, TAPS), np.int8)
    weights[:, 0, WINDOW_TAPS] = np.where(dropped[:, np.newaxis], 0, whole)
    bias = np.where(dropped, NEVER, bias.clip(-BIAS_LIMIT, BIAS_LIMIT))
    return NodeLayer.of(shape, 0, bias.astype(np.int32), weights)


def _whole(window: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scale [filters, 1], whole weights [filters, 4]) that add up to 0, from weights without a mean."""
    already = np.rint(window * np.float32(PEAK))
    off = np.abs(window * np.float32(PEAK) - already).max(axis=1, keepdims=True)
    stays = (off < WHOLE_WITHIN) & (np.abs(already).max(axis=1, keepdims=True) < WEIGHT_ZERO)
    for _ in range(2):  # two of the four are left at least
        kept = np.abs(window) >= np.float32(PRUNED) * np.abs(window).max(axis=1, keepdims=True)
        window = window * kept
        window = window - kept * (window.sum(axis=1, keepdims=True) / kept.sum(axis=1, keepdims=True, dtype=np.float32))
    scale = np.float32(PEAK) / np.maximum(np.abs(window).max(axis=1, keepdims=True), np.float32(PEAK_LEAST))
    whole = np.rint(window * scale)
    largest = np.abs(whole).argmax(axis=1)[:, np.newaxis] == np.arange(len(WINDOW_TAPS))
    whole = np.where(largest, whole - whole.sum(axis=1, keepdims=True), whole)
    return np.where(stays, np.float32(PEAK), scale), np.where(stays, already, whole)
