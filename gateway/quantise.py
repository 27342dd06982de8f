"""Filters as numbers to train, and back: shares of a range in single precision <-> int8 weights, int32 biases, a shift.

    weight   int8 / 128                -1 <= weight <= 127/128
    bias     int32 / 2^(8 + shift)     a bias of 1 is an activation of 256
    shift    stays as it is while its layer is trained

Shares that came from a layer give the very same integers back. What is trained is limited further than what nodes
accept (protocol/fixed.py): within these limits single precision computes exactly what nodes compute, and why that is so
stands at `convolve` in gateway/training_layers.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.model import LayerShape, ModelError, NodeLayer
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


class Shares(NamedTuple):
    """A node layer's numbers while they are trained.

    Attributes:
        weights: float32 [out, in, 9 or 1].
        bias: float32 [out].
        shift: 1..SHIFT_LIMIT.
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
    weights = layer.weights.astype(np.float32) / np.float32(WEIGHT_ONE)
    return Shares(weights, layer.bias.astype(np.float32) / np.float32(BIAS_ONE << layer.shift), layer.shift)


def layer_of(shape: LayerShape, shares: Shares) -> NodeLayer:
    """The nearest layer that nodes can hold; halves go to the even number, as in the training graph."""
    weights = np.rint(shares.weights * np.float32(WEIGHT_ONE)).clip(-WEIGHT_ONE, WEIGHT_ONE - 1)
    bias = np.rint(shares.bias * np.float32(BIAS_ONE << shares.shift)).clip(-BIAS_LIMIT, BIAS_LIMIT)
    return NodeLayer.of(shape, shares.shift, bias.astype(np.int32), weights.astype(np.int8))
