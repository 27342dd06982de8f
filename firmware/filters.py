"""The node's active filter set and the buffers that its units need, sized once when the set is loaded."""

from array import array

from firmware.unit import convolve
from protocol.compat import cold
from protocol.filter_set import CONV1X1, CONV3X3_SIGN, channels_of


class Filters:
    """The layers of the active set, run one after the other.

    Attributes:
        version: u32.
        reference_ccel: int16, what the first layer subtracts from a reading.
        inputs: per layer its stored inputs, uint16 [taps].
        values: per layer the node's own activations, uint8 [channels out].
        exchanges: per exchange the index of its layer.
        layers: (kind, weights, bias, shape) each, as protocol/filter_set.py has them.
    """

    @cold
    def __init__(self, filter_set):
        """Size the buffers for a protocol.filter_set.FilterSet."""
        self.version = filter_set.version
        self.reference_ccel = filter_set.reference_ccel
        # As plain tuples: the set's own types shall leave the heap with the code that read it.
        self.layers = [tuple(layer) for layer in filter_set.layers]
        layers = filter_set.layers
        self.exchanges = [k for k in range(len(layers)) if layers[k].kind != CONV1X1]
        self.inputs = [array("H", bytes(2 * layer.shape[0])) for layer in layers]
        self.values = [bytearray(channels_of(layer)) for layer in layers]

    @cold
    def has_sign(self) -> bool:
        """Whether this is the one layer that mode event knows."""
        return self.layers[0][0] == CONV3X3_SIGN


@cold
def compute_unit(filters: Filters, layer: int) -> int:
    """Compute the unit of a conv3x3 layer whose inputs are filled in, and of the conv1x1 layers behind it.

    Returns the layer that needs the next exchange, or the number of layers: nothing is left to compute.
    """
    convolve_layer(filters, layer)
    layer += 1
    while layer < len(filters.values) and filters.layers[layer][0] == CONV1X1:
        inputs, own = filters.inputs[layer], filters.values[layer - 1]
        for channel in range(len(own)):
            inputs[channel] = own[channel]
        convolve_layer(filters, layer)
        layer += 1
    return layer


def convolve_layer(filters: Filters, layer: int) -> None:
    """Compute one layer's unit from its inputs."""
    _, weights, bias, shape = filters.layers[layer]
    convolve(filters.values[layer], filters.inputs[layer], weights, bias, shape)
