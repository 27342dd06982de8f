"""The model: filters on the nodes, dense layers (the head) at the gateway, and the named shapes of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.site import Site
from protocol import filter_set
from protocol.fixed import BIAS_ZERO, READING_MAX, READING_MIN, SHIFT_MAX, SHIFT_MIN
from protocol.frame import CHANNELS_MAX
from protocol.grid import BLOCK_SIDE, TAPS

CONV3X3 = filter_set.KIND_NAMES[filter_set.CONV3X3]
CONV1X1 = filter_set.KIND_NAMES[filter_set.CONV1X1]
TAPS_OF = {CONV3X3: TAPS, CONV1X1: 1}
# Normal and abnormal, in this order.
CLASSES = 2

# What a layer makes of its sums (protocol/fixed.py).
CLAMP = "clamp"
SIGN = "sign"

_KIND_CODES = {
    (CONV3X3, CLAMP): filter_set.CONV3X3,
    (CONV1X1, CLAMP): filter_set.CONV1X1,
    (CONV3X3, SIGN): filter_set.CONV3X3_SIGN,
}
_VERSION_MAX = 0xFFFFFFFF


class ModelError(ValueError):
    """No such model; one line names the field, its value and what would be right."""


class LayerShape(NamedTuple):
    """A node layer without its numbers: ("conv3x3", 1, 5)."""

    kind: str
    channels_in: int
    filters: int
    activation: str = CLAMP

    @property
    def channels_out(self) -> int:
        """One per filter; a sign is one of all filters."""
        return 1 if self.activation == SIGN else self.filters


@dataclass(frozen=True)
class ModelSpec:
    """A named network.

    Attributes:
        name: as commands call it.
        layers: the node layers.
        hidden: units of each hidden dense layer at the gateway.
        appends_maximum: whether the head also gets the maximum of all features.
    """

    name: str
    layers: tuple[LayerShape, ...]
    hidden: tuple[int, ...]
    appends_maximum: bool

    @property
    def channels(self) -> int:
        """Features per block."""
        return self.layers[-1].channels_out

    @property
    def exchanges(self) -> int:
        """How many node layers read a halo."""
        return sum(layer.kind == CONV3X3 for layer in self.layers)

    @property
    def has_sign(self) -> bool:
        """Whether the nodes decide by themselves, and the head only says so."""
        return self.layers[-1].activation == SIGN


SPECS = {
    spec.name: spec
    for spec in (
        # The seed document's network (R0-3, R0-14).
        ModelSpec("seed", (LayerShape(CONV3X3, 1, 5), LayerShape(CONV3X3, 5, 5)), (200,), appends_maximum=False),
        # One exchange among the nodes, one number up from each block.
        ModelSpec(
            "lean",
            (LayerShape(CONV3X3, 1, 5), LayerShape(CONV1X1, 5, 5), LayerShape(CONV1X1, 5, 1)),
            (),
            appends_maximum=True,
        ),
        # One exchange, one bit up from each block: whether any 2x2 window in it is abnormal (sim/zones.py).
        ModelSpec("zone", (LayerShape(CONV3X3, 1, 5, SIGN),), (), appends_maximum=True),
    )
}


# For messages.
SPEC_CHOICE = ", ".join([*SPECS][:-1]) + " or " + [*SPECS][-1]


def spec_named(name: str) -> ModelSpec:
    """The spec of a name.

    Raises:
        ModelError: there is none.
    """
    if name not in SPECS:
        raise ModelError(f"spec: {name[:40]!r} is none; write {SPEC_CHOICE}")
    return SPECS[name]


def feature_len(site: Site, spec: ModelSpec) -> int:
    """Features of one cycle: blocks of the bounding grid x channels; the lounge has 585 for seed, 117 for lean."""
    block_rows, block_cols = site.block_shape
    return block_rows * block_cols * spec.channels


def head_widths(site: Site, spec: ModelSpec) -> tuple[int, ...]:
    """What `Head.widths` are at a site: (585, 200, 2)."""
    return (feature_len(site, spec) + spec.appends_maximum, *spec.hidden, CLASSES)


@dataclass(frozen=True, eq=False)
class NodeLayer:
    """One node layer in the numbers that nodes compute with (protocol/fixed.py).

    Attributes:
        kind: "conv3x3" or "conv1x1".
        channels_in, filters: 1..16.
        shift: 1..24; 0 with a sign.
        bias: int32 [filters], |bias| < 2^29.
        weights: int8 [filters, in, 9 or 1], taps NW N NE W C E SW S SE.
        activation: "clamp", or "sign" in a conv3x3 that is the only layer.
    """

    kind: str
    channels_in: int
    filters: int
    shift: int
    bias: NDArray[np.int32]
    weights: NDArray[np.int8]
    activation: str = CLAMP

    def __post_init__(self) -> None:
        """Refuse what a node would refuse, or could not hold."""
        if self.kind not in TAPS_OF:
            raise ModelError(f"kind: {str(self.kind)[:40]!r} is none; write {' or '.join(TAPS_OF)}")
        if (self.kind, self.activation) not in _KIND_CODES:
            found = str(self.activation)[:40]
            raise ModelError(f"activation: {found!r} is none of a {self.kind}; write {CLAMP}, or {SIGN} in a {CONV3X3}")
        _check_range("in", self.channels_in, 1, CHANNELS_MAX)
        _check_range("out", self.filters, 1, CHANNELS_MAX)
        _check_range("shift", self.shift, *((0, 0) if self.activation == SIGN else (SHIFT_MIN, SHIFT_MAX)))
        _check_array("bias", self.bias, np.int32, (self.filters,))
        _check_array("weights", self.weights, np.int8, (self.filters, self.channels_in, TAPS_OF[self.kind]))
        if np.any(np.abs(self.bias.astype(np.int64)) >= BIAS_ZERO):
            raise ModelError(f"bias: {self.bias.tolist()} could overflow; keep |bias| below 2^29")

    @classmethod
    def of(cls, shape: LayerShape, shift: int, bias: NDArray[np.int32], weights: NDArray[np.int8]) -> "NodeLayer":
        """A layer of this shape."""
        return cls(*shape[:3], shift, bias, weights, shape.activation)

    @property
    def shape(self) -> LayerShape:
        """The layer without its numbers."""
        return LayerShape(self.kind, self.channels_in, self.filters, self.activation)

    @property
    def channels_out(self) -> int:
        """Channels that the layer gives."""
        return self.shape.channels_out


@dataclass(frozen=True, eq=False)
class Filters:
    """All node layers: a filter set before it is packed and signed.

    Attributes:
        version: u32; a site's versions only rise.
        reference_ccel: int16, subtracted from readings by the first layer.
        layers: 1..8 node layers, the first a conv3x3, at most four conv3x3; one with a sign stands alone.
    """

    version: int
    reference_ccel: int
    layers: tuple[NodeLayer, ...]

    def __post_init__(self) -> None:
        """Refuse what a node would refuse; the wire format's own check decides about the chain of layers."""
        _check_range("version", self.version, 0, _VERSION_MAX)
        _check_range("reference_ccel", self.reference_ccel, READING_MIN, READING_MAX)
        try:
            filter_set.unpack(self.pack("site"))
        except ValueError as error:
            raise ModelError(f"layers: {error}") from None

    def pack(self, site_name: str, tests: Sequence[tuple[int, bytes]] = ()) -> bytes:
        """The filter set in bytes, unsigned (protocol/filter_set.py); `tests` are its self-tests."""
        layers = [
            (
                *(_KIND_CODES[layer.kind, layer.activation], layer.channels_in, layer.filters, layer.shift),
                *(layer.bias.tolist(), layer.weights.ravel().tolist()),
            )
            for layer in self.layers
        ]
        return filter_set.pack(self.version, site_name, self.reference_ccel, layers, tests)

    @property
    def exchanges(self) -> int:
        """How many layers read a halo."""
        return sum(layer.kind == CONV3X3 for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """Plain numbers and lists, the inverse of `from_json`."""
        layers = [
            {
                "kind": layer.kind,
                "in": layer.channels_in,
                "out": layer.filters,
                "shift": layer.shift,
                "bias": layer.bias.tolist(),
                "weights": layer.weights.tolist(),
            }
            | ({} if layer.activation == CLAMP else {"activation": layer.activation})
            for layer in self.layers
        ]
        return {"version": self.version, "reference_ccel": self.reference_ccel, "pool": BLOCK_SIDE, "layers": layers}

    @classmethod
    def from_json(cls, data: Any) -> "Filters":
        """Filters from what `as_json` wrote, wherever it has been since.

        Raises:
            ModelError: it is anything else.
        """
        fields = _fields("filters", data, ("version", "reference_ccel", "pool", "layers"))
        _check_range("pool", fields["pool"], BLOCK_SIDE, BLOCK_SIDE)
        layers = fields["layers"]
        if not isinstance(layers, list) or not 0 < len(layers) <= filter_set.LAYERS_MAX:
            raise ModelError(f"layers: is no list of 1..{filter_set.LAYERS_MAX} layers")
        return cls(fields["version"], fields["reference_ccel"], tuple(_layer(k, x) for k, x in enumerate(layers)))


@dataclass(frozen=True, eq=False)
class Head:
    """The dense layers.

    Attributes:
        revision: counts the heads of a site upwards.
        layers: (weights float32 [in, out], bias float32 [out]) each; the last one has two outputs, normal and abnormal.
    """

    revision: int
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    def __post_init__(self) -> None:
        """Refuse layers that do not follow on each other."""
        _check_range("revision", self.revision, 0, _VERSION_MAX)
        if not self.layers or np.ndim(self.layers[0][0]) != 2:
            raise ModelError("layers: there must be one at least, with weights [in, out]")
        outputs = [*(len(bias) for _, bias in self.layers[:-1]), CLASSES]
        inputs = [len(self.layers[0][0]), *outputs]
        for index, (weights, bias) in enumerate(self.layers):
            _check_array(f"layers[{index}].weights", weights, np.float32, (inputs[index], outputs[index]))
            _check_array(f"layers[{index}].bias", bias, np.float32, (outputs[index],))
            if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
                raise ModelError(f"layers[{index}]: some numbers are not finite; fit the head again")

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs of each layer, then the outputs of the last: (585, 200, 2)."""
        return (*(len(weights) for weights, _ in self.layers), CLASSES)


@dataclass(frozen=True, eq=False)
class Model:
    """What decides at a site: the nodes' filters and the head that belongs to them."""

    spec_name: str
    filters: Filters
    head: Head

    def __post_init__(self) -> None:
        """Refuse parts that are not of the spec."""
        spec = spec_named(self.spec_name)
        shapes = tuple(layer.shape for layer in self.filters.layers)
        if shapes != spec.layers:
            raise ModelError(f"filters: {shapes} are not of spec {spec.name}; it has {spec.layers}")
        if self.head.widths[1:-1] != spec.hidden:
            raise ModelError(f"head: hidden units {self.head.widths[1:-1]} are not of spec {spec.name}: {spec.hidden}")

    def numbered(self, version: int, revision: int) -> "Model":
        """The same weights under another filter version and head revision.

        Raises:
            ModelError: a number is beyond 32 bits.
        """
        filters, head = replace(self.filters, version=version), replace(self.head, revision=revision)
        return replace(self, filters=filters, head=head)


def _layer(index: int, data: Any) -> NodeLayer:
    """A layer of `Filters.as_json`; one that names no activation clamps."""
    place = f"layers[{index}]"
    data = {"activation": CLAMP} | data if isinstance(data, dict) else data
    fields = _fields(place, data, ("kind", "in", "out", "shift", "bias", "weights", "activation"))
    bias = _int_array(f"{place}.bias", fields["bias"], np.dtype(np.int32))
    weights = _int_array(f"{place}.weights", fields["weights"], np.dtype(np.int8))
    try:
        shape = fields["kind"], fields["in"], fields["out"], fields["shift"]
        return NodeLayer(*shape, bias, weights, fields["activation"])
    except (ModelError, TypeError) as error:  # TypeError: a kind that is a list
        raise ModelError(f"{place}.{error}") from None


def _fields(place: str, data: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, dict) or set(data) != set(keys):
        raise ModelError(f"{place}: does not have exactly the fields {', '.join(keys)}")
    return data


def _int_array(place: str, data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A nested list as an array; unlike numpy it neither rounds, wraps nor takes text or booleans.

    What is no number never reaches numpy: an array of texts has room for the longest in every place.
    """
    try:
        array = np.array(data if _is_whole(data) else None)
    except ValueError:  # ragged
        array = np.array(None)
    limits = np.iinfo(dtype)
    if array.dtype != np.int64 or array.size == 0 or array.min() < limits.min or array.max() > limits.max:
        raise ModelError(f"{place}: is no full array of whole numbers in {limits.min}..{limits.max}")
    return array.astype(dtype)


def _is_whole(data: Any, depth: int = 3) -> bool:
    """Whether it holds whole numbers in lists, so deep at most, and nothing else."""
    if isinstance(data, list):
        return depth > 0 and all(_is_whole(item, depth - 1) for item in data)
    return type(data) is int


def _check_range(field: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(f"{field}: {str(value)[:40]} is not in {low}..{high}")


def _check_array(field: str, array: Any, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ModelError(f"{field}: is {found}, must be {np.dtype(dtype).name} {shape}")
