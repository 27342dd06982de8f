"""The model a site starts with: hand-set filters, and a head fitted to simulated rooms where one was committed.

What the filters know beforehand (prior knowledge, not learning): the site's rule compares a cell with its four direct
neighbours, 3.0 degrees apart (R0-13). Hand-set difference filters solve that rule; learning starts from them.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.model import (
    CONV1X1,
    CONV3X3,
    SPECS,
    TAPS_OF,
    Filters,
    Head,
    Model,
    ModelError,
    ModelSpec,
    NodeLayer,
    spec_named,
)
from gateway.site import REFERENCE_CCEL_DEFAULT, Site
from protocol.grid import CENTRE, TAPS

FIRST_VERSION = 1
FOLDER = Path(__file__).with_name("weights")

# Weights of 64 at shift 6 pass a difference through: one step of activation per ccel.
_ONE = 64
_SHIFT = 6
# A difference shows from 2.00 degrees on and saturates at 4.55: the threshold of 3.0 lies at 100 of 255.
_SILENT_CCEL = 200
# The second layer of the seed spec: 68..132 of 255 becomes 0..255, which is 2.68..3.32 degrees.
_SHIFT_SHARP = 4
_EDGE_LOW = 68
# A hot spot, the cell over the mean of its four neighbours, shows from 1.00 degree on.
_SPOT_SILENT_CCEL = 100

# Taps NW N NE W C E SW S SE; all sum to zero, so the level of a room does not matter.
_DIFFERENCES = (
    (0, 0, 0, 0, -1, 1, 0, 0, 0),  # east over own
    (0, 0, 0, 0, 1, -1, 0, 0, 0),  # own over east
    (0, 0, 0, 0, -1, 0, 0, 1, 0),  # south over own
    (0, 0, 0, 0, 1, 0, 0, -1, 0),  # own over south
    (0, -0.25, 0, -0.25, 1, -0.25, 0, -0.25, 0),  # hot spot
)


def start_filters(spec: ModelSpec, reference_ccel: int = REFERENCE_CCEL_DEFAULT) -> Filters:
    """Difference filters of version 1.

    Seed: the second layer passes each channel on, four times as steep, for the head has to tell one difference over the
    threshold from many that lie under it.

    Lean: the filters compute the rule itself. |E - C| and |S - C| are sums of two channels each, for one of the two is
    always 0; and their maximum is max(h, v) = relu(h - v) + v.

    Raises:
        ModelError: there are no hand-set filters for this spec.
    """
    first = _layer(CONV3X3, _DIFFERENCES, [-_SILENT_CCEL] * 4 + [-_SPOT_SILENT_CCEL])
    if spec.name == "seed":
        second = _layer(CONV3X3, _own_channel(5), [-_EDGE_LOW] * 5, _SHIFT_SHARP)
        return Filters(FIRST_VERSION, reference_ccel, (first, second))
    if spec.name == "lean":
        # relu(h - v), v, then relu(v - h), h and the hot spot as they come, for learning to take up.
        spread = [(1, 1, -1, -1, 0), (0, 0, 1, 1, 0), (-1, -1, 1, 1, 0), (1, 1, 0, 0, 0), (0, 0, 0, 0, 1)]
        layers = (first, _layer(CONV1X1, spread, [0] * 5), _layer(CONV1X1, [(1, 1, 0, 0, 0)], [0]))
        return Filters(FIRST_VERSION, reference_ccel, layers)
    raise ModelError(f"spec: {spec.name} has no hand-set filters; write one of {', '.join(SPECS)}")


def start_path(spec_name: str, site: Site) -> Path:
    """Where the committed weights for a spec and a site's bounding grid lie, if there are any."""
    return FOLDER / f"{spec_name}-{site.rows}x{site.cols}.npz"


def load_start(spec_name: str, site: Site) -> Model | None:
    """The committed model for a site's bounding grid, None where there is none: filters version 1, head revision 1.

    Raises:
        ModelError: no such spec.
    """
    spec_named(spec_name)
    path = start_path(spec_name, site)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        filters = Filters.from_json(json.loads(arrays["filters"].tobytes()))
        values = [arrays[str(index)].astype(np.float32) for index in range(len(arrays.files) - 1)]
    return Model(spec_name, filters, Head(1, tuple(zip(values[::2], values[1::2], strict=True))))


def save_start(model: Model, site: Site) -> Path:
    """Write a model where `load_start` finds it; the head in float16, which costs no decision and half the bytes."""
    path = start_path(model.spec_name, site)
    values = [values.astype(np.float16) for layer in model.head.layers for values in layer]
    text = np.frombuffer(json.dumps(model.filters.as_json()).encode(), np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, filters=text, **{str(k): array for k, array in enumerate(values)})
    return path


def _layer(kind: str, weights: ArrayLike, bias: ArrayLike, shift: int = _SHIFT) -> NodeLayer:
    """A layer from weights [out, in * taps], -1.98..1.98, and biases [out] in steps of its input.

    The default shift passes a weight of 1 through; one less doubles the output.
    """
    scaled = np.rint(_ONE * np.asarray(weights))
    shaped = scaled.reshape(len(scaled), -1, TAPS_OF[kind]).astype(np.int8)
    biases = (_ONE * np.asarray(bias)).astype(np.int32)
    return NodeLayer(kind, shaped.shape[1], len(shaped), shift, biases, shaped)


def _own_channel(channels: int) -> NDArray[np.float64]:
    """conv3x3 weights [channels, channels * 9] that pass each unit's own channels through."""
    weights = np.zeros((channels, channels, TAPS))
    weights[np.arange(channels), np.arange(channels), CENTRE] = 1
    return weights.reshape(channels, -1)
