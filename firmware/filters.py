"""The node's active filter set and the buffers that its units need, sized once when the set is loaded."""

from array import array

from firmware.unit import convolve
from protocol.filter_set import CONV1X1, CONV3X3


class Filters:
    """The layers of the active set, run one after the other.

    Attributes:
        set: the FilterSet.
        inputs: per layer its stored inputs, uint16 [taps].
        values: per layer the node's own activations, uint8 [channels out].
        exchanges: per exchange the index of its layer.
    """

    def __init__(self, filter_set):
        """Size the buffers for a protocol.filter_set.FilterSet."""
        self.set = filter_set
        layers = filter_set.layers
        self.exchanges = [k for k in range(len(layers)) if layers[k].kind == CONV3X3]
        self.inputs = [array("H", bytes(2 * layer.shape[0])) for layer in layers]
        self.values = [bytearray(layer.shape[1]) for layer in layers]

    def compute(self, layer: int) -> int:
        """Compute the unit of a conv3x3 layer whose inputs are filled in, and of the conv1x1 layers behind it.

        Returns the layer that needs the next exchange, or the number of layers: nothing is left to compute.
        """
        self._convolve(layer)
        layer += 1
        while layer < len(self.values) and self.set.layers[layer].kind == CONV1X1:
            inputs, own = self.inputs[layer], self.values[layer - 1]
            for channel in range(len(own)):
                inputs[channel] = own[channel]
            self._convolve(layer)
            layer += 1
        return layer

    def _convolve(self, layer: int) -> None:
        spec = self.set.layers[layer]
        convolve(self.values[layer], self.inputs[layer], spec.weights, spec.bias, spec.shape)

