"""The model a site starts with: hand-set filters, and a head fitted to simulated rooms where one was committed.

What the filters know beforehand (prior knowledge, not learning): the site's rule compares a cell with its four direct
neighbours, 3.0 degrees apart (R0-13). Hand-set difference filters solve that rule; learning starts from them.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.model import (
    CLASSES,
    CONV1X1,
    CONV3X3,
    SPECS,
    TAPS_OF,
    Filters,
    Head,
    LayerShape,
    Model,
    ModelError,
    ModelSpec,
    NodeLayer,
    feature_len,
    spec_named,
)
from gateway.quantise import NEVER, PEAK
from gateway.site import REFERENCE_CCEL_DEFAULT, Site
from protocol.fixed import ACTIVATION_MAX
from protocol.grid import CENTRE, TAPS

FIRST_VERSION = 1
FOLDER = Path(__file__).with_name("weights")

# Weights of 64 at shift 6 pass a value through.
_ONE = 64
_SHIFT = 6
# One step of activation is 2 ccel, so that differences tell apart up to 5.1 degrees over where they begin to show.
_SLOPE = 0.5
# Half a step more than 2.68 and 2.00 degrees, for units round and these shall be rounded down: 2.99 is not 3.00.
# Seed: high enough that differences under the site's 3.00 hardly add up to one over it.
_SILENT_SEED = 134.5
# Lean: the rule's 3.00 is 50 of 255.
_SILENT_LEAN = 100.5
# A hot spot, the cell over the mean of its four neighbours, shows from 1.00 degree on.
_SILENT_SPOT = 50
# The second layer of the seed spec: a weight of 1 is 4 there.
_SHIFT_STEEP = 4

# Zone: the rule's 3.00 degrees.
_THRESHOLD_CCEL = 300
# Logits either way of a set head: a score of 0.0003 or 0.9997.
_SURE = 8.0

# Taps NW N NE W C E SW S SE; all sum to zero, so the level of a room does not matter.
_DIFFERENCES = (
    (0, 0, 0, 0, -1, 1, 0, 0, 0),  # east over own
    (0, 0, 0, 0, 1, -1, 0, 0, 0),  # own over east
    (0, 0, 0, 0, -1, 0, 0, 1, 0),  # south over own
    (0, 0, 0, 0, 1, 0, 0, -1, 0),  # own over south
    (0, -0.25, 0, -0.25, 1, -0.25, 0, -0.25, 0),  # hot spot
)
# What the second layer of the seed spec makes of a unit's five channels: any difference, very steep (3.02 degrees are
# 129 of 255, 3.35 and more are 255); then the horizontal and the vertical one, less steep, and as they come. Only the
# first adds the two up, so that a larger difference, not two smaller ones, is what stands out of a block.
_SEED_SPREAD = (
    (1.9, 1.9, 1.9, 1.9, 0),
    (0.475, 0.475, 0, 0, 0),
    (0, 0, 0.475, 0.475, 0),
    (0.25, 0.25, 0, 0, 0),
    (0, 0, 0.25, 0.25, 0),
)
# Lean: relu(h - v), v, then relu(v - h), h and the hot spot as they come, for learning to take up.
_LEAN_SPREAD = ((1, 1, -1, -1, 0), (0, 0, 1, 1, 0), (-1, -1, 1, 1, 0), (1, 1, 0, 0, 0), (0, 0, 0, 0, 1))
_LEAN_MAXIMUM = ((1, 1, 0, 0, 0),)


def start_filters(spec: ModelSpec, reference_ccel: int = REFERENCE_CCEL_DEFAULT) -> Filters:
    """Difference filters of version 1.

    Seed: the second layer tells sharply that a difference is over the threshold, for the head to decide by, and how
    large it is, for the place to be found by (gateway/decision.py).

    Lean: the filters compute the rule itself. |E - C| and |S - C| are sums of two channels each, for one of the two is
    always 0; and their maximum is max(h, v) = relu(h - v) + v.

    Zone: the filters compute the rule itself, a difference of two neighbours, either way, at 3.00 degrees; the fifth
    one never says anything.

    Raises:
        ModelError: there are no hand-set filters for this spec.
    """
    if spec.name == "zone":
        return Filters(FIRST_VERSION, reference_ccel, (_zone_layer(spec.layers[0]),))
    silent = _SILENT_SEED if spec.name == "seed" else _SILENT_LEAN
    first = _layer(CONV3X3, _SLOPE * np.asarray(_DIFFERENCES), [-silent] * 4 + [-_SILENT_SPOT])
    if spec.name == "seed":
        second = _layer(CONV3X3, _at_centre(_SEED_SPREAD), [0] * 5, _SHIFT_STEEP)
        return Filters(FIRST_VERSION, reference_ccel, (first, second))
    if spec.name == "lean":
        layers = (first, _layer(CONV1X1, _LEAN_SPREAD, [0] * 5), _layer(CONV1X1, _LEAN_MAXIMUM, [0]))
        return Filters(FIRST_VERSION, reference_ccel, layers)
    raise ModelError(f"spec: {spec.name} has no hand-set filters; write one of {', '.join(SPECS)}")


def start_path(spec_name: str, site: Site) -> Path:
    """Where the committed weights for a spec and a site's bounding grid lie, if there are any."""
    return FOLDER / f"{spec_name}-{site.rows}x{site.cols}.npz"


def load_start(spec_name: str, site: Site) -> Model | None:
    """The committed model for a site's bounding grid, None where there is none: filters version 1, head revision 1.

    Zone needs none: its filters and its head are set by hand for any site.

    Raises:
        ModelError: no such spec.
    """
    spec = spec_named(spec_name)
    if spec.has_sign:
        return Model(spec_name, start_filters(spec, site.reference_ccel), sign_head(spec, site))
    path = start_path(spec_name, site)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        filters = Filters.from_json(json.loads(arrays["filters"].tobytes()))
        values = [arrays[str(index)].astype(np.float32) for index in range(len(arrays.files) - 1)]
    return Model(spec_name, filters, Head(1, tuple(zip(values[::2], values[1::2], strict=True))))


def sign_head(spec: ModelSpec, site: Site, revision: int = 1) -> Head:
    """The head behind a layer with sign: abnormal exactly when the appended maximum of all features is 1.

    It is set, not learned: the maximum alone decides, half a feature's step above 0, and very sure of itself.
    """
    weights = np.zeros((feature_len(site, spec) + spec.appends_maximum, CLASSES), np.float32)
    weights[-1] = -ACTIVATION_MAX * _SURE, ACTIVATION_MAX * _SURE
    return Head(revision, ((weights, np.array([_SURE / 2, -_SURE / 2], np.float32)),))


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


def _zone_layer(shape: LayerShape) -> NodeLayer:
    """Each direction of the first four difference filters, and one that is dropped."""
    weights = np.zeros((shape.filters, 1, TAPS), np.int8)
    weights[:4, 0] = PEAK * np.array(_DIFFERENCES[:4], np.int8)
    bias = np.array([-PEAK * _THRESHOLD_CCEL] * 4 + [NEVER], np.int32)
    return NodeLayer.of(shape, 0, bias, weights)


def _at_centre(weights: ArrayLike) -> NDArray[np.float64]:
    """conv3x3 weights [out, in * 9] that look at the unit itself only, from [out, in]."""
    own = np.asarray(weights, np.float64)
    taps = np.zeros((*own.shape, TAPS))
    taps[..., CENTRE] = own
    return taps.reshape(len(own), -1)
