"""The layers of the training graph: each one's forward nodes and, from what these leave behind, its backward nodes.

Layout of everything that lies on the mesh: [channels, places], the cells of all cycles one after the other in rows of a
padded grid that is at least one column wider and one row higher than the site. So a neighbour lies at the same distance
from every place, also across the border (into padding, which no mask ever lets through), and what all nodes hear in
one slot is one shifted copy. Places of the padding compute like any other; nobody uses what they come to.

A convolution is a matrix product over these copies, own values in the gaps, a row of the window at a time.
Rounding is passed straight through (Bengio et al. 2013): gradients are those of the same network without rounding, and
0 where an activation is clamped.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gateway.model import TAPS_OF, LayerShape
from gateway.quantise import BIAS_ONE, WEIGHT_ONE
from gateway.site import Site
from protocol.fixed import ACTIVATION_MAX
from protocol.grid import BLOCK_SIDE, CENTRE, SLOTS, TAPS, tap_of


class Nodes:
    """A graph under construction.

    Attributes:
        nodes: so far, in an order in which they can run.
        dtype: of all numbers with a fraction.
    """

    def __init__(self, dtype: np.dtype[Any]):
        self.nodes: list[NodeProto] = []
        self.dtype = dtype
        self._constants: dict[tuple[np.dtype[Any], tuple[int, ...], bytes], str] = {}

    @property
    def initializers(self) -> list[TensorProto]:
        """The constants that nodes were given."""
        return [
            numpy_helper.from_array(np.frombuffer(data, dtype).reshape(shape), name)
            for (dtype, shape, data), name in self._constants.items()
        ]

    def add(self, kind: str, *inputs: str | ArrayLike, name: str = "", **attributes: Any) -> str:
        """One more operator; returns the name of its output. An input that is no name becomes a constant."""
        output = name or f"{kind}{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Equal parts along an axis."""
        outputs = [f"Split{len(self.nodes)}.{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], outputs, axis=axis))
        return outputs

    def joined(self, values: list[str], axis: int) -> str:
        """One after the other along an axis."""
        return self.add("Concat", *values, axis=axis)

    def number(self, value: str) -> str:
        """Booleans as 1 and 0: a product is faster than a choice."""
        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def shaped(self, value: str, *shape: int) -> str:
        """The same numbers in another shape; -1 stands for whatever is left, 0 keeps an axis as it is."""
        return self.add("Reshape", value, np.array(shape))

    def _constant(self, values: ArrayLike) -> str:
        array = np.asarray(values)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        key = array.dtype, array.shape, array.tobytes()
        self._constants.setdefault(key, f"constant{len(self._constants)}")
        return self._constants[key]


class Mesh:
    """The padded grid, and who hears whom on it.

    Attributes:
        height, width: of the padded grid, even and larger than the site's.
        blocks: (block rows, block columns) of the site.
    """

    def __init__(self, site: Site):
        self.height: int = site.rows + BLOCK_SIDE - site.rows % BLOCK_SIDE
        self.width: int = site.cols + BLOCK_SIDE - site.cols % BLOCK_SIDE
        self.blocks = site.block_shape
        self._padding = self.height - site.rows, self.width - site.cols

    def spread(self, g: Nodes, values: str) -> str:
        """[n, batch, rows, cols] -> [n, places], zeros as padding."""
        return g.shaped(g.add("Pad", values, np.array([0, 0, 0, 0, 0, 0, *self._padding])), 0, -1)

    def fetched(self, g: Nodes, values: str, slot: int) -> str:
        """Every place's neighbour's value in a slot, zeros beyond both ends; [n, places]."""
        distance = self._distance(slot)
        return g.add("Pad", values, np.array([0, -distance, 0, distance]))

    def returned(self, g: Nodes, values: str, slot: int) -> str:
        """Every place's value at its neighbour in a slot: the other way round."""
        distance = self._distance(slot)
        return g.add("Pad", values, np.array([0, distance, 0, -distance]))

    def _distance(self, slot: int) -> int:
        """Places from a cell to its neighbour."""
        down, right = divmod(tap_of(slot), 3)
        return (down - 1) * self.width + right - 1


class LayerInputs(NamedTuple):
    """What a node layer takes.

    Attributes:
        value: [in, places].
        weights, bias, step: its inputs of the graph.
        heard: bool [1, places] by slot for a conv3x3, else empty.
    """

    value: str
    weights: str
    bias: str
    step: str
    heard: list[str]


class Convolved(NamedTuple):
    """What a node layer leaves behind for its backward nodes.

    Attributes:
        shape: the layer's.
        inputs: as it took them.
        gains: weights / 2^shift as the nodes hold them, one array [out, in] for each tap.
        moves: bool [out, places], where the activation is not clamped.
    """

    shape: LayerShape
    inputs: LayerInputs
    gains: list[str]
    moves: str


class Gradients(NamedTuple):
    """Of the loss, by a layer's weights, bias and value; value is empty where nobody asked for it."""

    weights: str
    bias: str
    value: str


def convolve(g: Nodes, mesh: Mesh, shape: LayerShape, inputs: LayerInputs, rounds: bool) -> tuple[str, Convolved]:
    """A node layer: exactly what nodes compute (protocol/fixed.py), or, without `rounds`, its smooth relaxation.

    Why single precision is exact: weights and values are whole numbers; the products of a first layer add up to less
    than 2^24 with readings of at most READING_LIMIT, those of others to 144 * 255 * 128 < 2^23; biases stay below 2^24
    as well; and a sum of two such numbers is rounded only beyond 2^24, where the activation is clamped anyway. Dividing
    by a power of two changes no digit.

    Returns:
        Activations [out, places], 0..255, and what `convolve_back` needs.
    """
    weights = g.add("Mul", inputs.weights, float(WEIGHT_ONE))
    bias = g.add("Mul", inputs.bias, g.add("Mul", inputs.step, float(BIAS_ONE)))
    if rounds:
        weights = g.add("Clip", g.add("Round", weights), float(-WEIGHT_ONE), float(WEIGHT_ONE - 1))
        bias = g.add("Add", g.add("Round", bias), g.add("Mul", inputs.step, 0.5))
    by_tap = g.split(g.add("Div", weights, inputs.step), TAPS_OF[shape.kind], 2)
    gains = [g.add("Squeeze", gain, np.array([2])) for gain in by_tap]
    products = [
        g.add("MatMul", g.joined([gains[tap] for tap in row], 1), _taps(g, mesh, inputs, row)) for row in _rows(inputs)
    ]
    # The bias comes last: what is added before it is exact in any order.
    free = g.add("Add", g.add("Sum", *products), g.shaped(g.add("Div", bias, inputs.step), -1, 1))
    if rounds:
        free = g.add("Floor", free)
    activations = g.add("Clip", free, 0.0, float(ACTIVATION_MAX))
    return activations, Convolved(shape, inputs, gains, g.add("Equal", free, activations))


def convolve_back(g: Nodes, mesh: Mesh, layer: Convolved, error: str, needs_value: bool) -> Gradients:
    """From the gradient by the activations [out, places]."""
    error = g.add("Mul", g.number(layer.moves), error)
    by_row = [g.add("Gemm", error, _taps(g, mesh, layer.inputs, row), transB=1) for row in _rows(layer.inputs)]
    by_tap = g.shaped(g.joined(by_row, 1), layer.shape.channels_out, -1, layer.shape.channels_in)
    unit = g.add("Div", float(WEIGHT_ONE), layer.inputs.step)
    weights = g.add("Mul", g.add("Transpose", by_tap, perm=[0, 2, 1]), unit)
    bias = g.add("Mul", g.add("ReduceSum", error, np.array([1]), keepdims=0), float(BIAS_ONE))
    return Gradients(weights, bias, _value_back(g, mesh, layer, error) if needs_value else "")


def _rows(inputs: LayerInputs) -> list[range]:
    """The taps of a unit, a row of its window at a time: as much as stays in the cache."""
    return [range(start, start + 3) for start in range(0, TAPS, 3)] if inputs.heard else [range(1)]


def _taps(g: Nodes, mesh: Mesh, inputs: LayerInputs, row: range) -> str:
    """What the units read with these taps, [taps * in, places], the own value in the gaps."""
    if not inputs.heard:
        return inputs.value
    slots = {tap_of(slot): slot for slot in range(SLOTS)}
    taps = []
    for tap in row:
        seen = mesh.fetched(g, inputs.value, slots[tap]) if tap != CENTRE else ""
        taps.append(g.add("Where", inputs.heard[slots[tap]], seen, inputs.value) if seen else inputs.value)
    return g.joined(taps, 0)


def _value_back(g: Nodes, mesh: Mesh, layer: Convolved, error: str) -> str:
    """The gradient by the value [in, places].

    What a tap passes back goes to the neighbour if it was heard, else to the node itself. Counted the short way: all
    taps pass back to the node itself, then what belongs to neighbours is moved there.
    """
    own = g.add("MatMul", g.add("Transpose", g.add("Sum", *layer.gains), perm=[1, 0]), error)
    if not layer.inputs.heard:
        return own
    value = own
    for slot, heard in enumerate(layer.inputs.heard):
        gain = g.add("Transpose", layer.gains[tap_of(slot)], perm=[1, 0])
        part = g.add("Mul", g.add("MatMul", gain, error), g.number(heard))
        value = g.add("Add", g.add("Sub", value, part), mesh.returned(g, part, slot))
    return value


class Pooled(NamedTuple):
    """What the 2x2 maximum leaves behind: who took part (1 or 0), and who won between rows and between columns."""

    taking_part: str
    upper_wins: str
    left_wins: str


def pool(g: Nodes, mesh: Mesh, activations: str, taking_part: str) -> tuple[str, Pooled]:
    """The maximum of each block: [channels, places] -> [batch, blocks * channels], 0 where nobody took part.

    Of equal values the first wins, column by column, so that one unit of a block learns and not all of them.
    """
    values = g.shaped(g.add("Mul", activations, taking_part), 0, -1, BLOCK_SIDE, mesh.width)
    tops, upper_wins = _larger(g, values)
    maxima, left_wins = _larger(g, g.shaped(tops, 0, -1, BLOCK_SIDE, 1))
    return _as_features(g, mesh, maxima), Pooled(taking_part, upper_wins, left_wins)


def pool_back(g: Nodes, mesh: Mesh, layer: Pooled, error: str, channels: int) -> str:
    """From the gradient by the features [batch, blocks * channels] to that by the activations [channels, places]."""
    rows, cols = mesh.height // BLOCK_SIDE, mesh.width // BLOCK_SIDE
    padding = rows - mesh.blocks[0], cols - mesh.blocks[1]
    by_channel = g.add("Transpose", g.shaped(error, -1, *mesh.blocks, channels), perm=[3, 0, 1, 2])
    padded = g.add("Pad", by_channel, np.array([0, 0, 0, 0, 0, 0, *padding]))
    tops = _larger_back(g, layer.left_wins, g.shaped(padded, channels, -1, 1, 1))
    values = _larger_back(g, layer.upper_wins, g.shaped(tops, channels, -1, 1, mesh.width))
    return g.add("Mul", g.shaped(values, channels, -1), layer.taking_part)


def _as_features(g: Nodes, mesh: Mesh, maxima: str) -> str:
    """[channels, places / 4, 1, 1] -> [batch, blocks * channels], without blocks that are padding."""
    grid = g.shaped(maxima, 0, -1, mesh.height // BLOCK_SIDE, mesh.width // BLOCK_SIDE)
    ends = np.array(mesh.blocks)
    blocks = g.add("Slice", grid, np.array([0, 0]), ends, np.array([2, 3]))
    last = g.add("Transpose", blocks, perm=[1, 2, 3, 0])
    return g.add("Flatten", last, axis=1)


def _larger(g: Nodes, values: str) -> tuple[str, str]:
    """[.., 2, n] -> the larger of two [.., 1, n], and whether it is the first."""
    first, second = g.split(values, 2, 2)
    return g.add("Max", first, second), g.number(g.add("GreaterOrEqual", first, second))


def _larger_back(g: Nodes, first_wins: str, error: str) -> str:
    """The gradient goes to the winner: [.., 1, n] -> [.., 2, n]."""
    first = g.add("Mul", first_wins, error)
    return g.add("Concat", first, g.add("Sub", error, first), axis=2)
