"""The nodes' exact twin: the same integers, all nodes of many cycles at once.

Plan: per exchange, one bit per neighbour says whether its value was used (existing, heard, with a reading); every
other tap holds the node's own value of that layer. A convolution is one float64 matrix product over all nodes, which
is exact because every partial sum is an integer below 2^53 (protocol/filter_set.py proves 2^30), then the nodes' own
integer rounding. Everything inside has the axes (channel, cycle, row, column), which is the weights' order of taps.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.model import CONV3X3, SIGN, Filters, NodeLayer
from gateway.site import Site
from protocol.fixed import ACTIVATION_MAX, READING_MAX, READING_MIN
from protocol.grid import BLOCK_SIDE, CENTRE, SLOTS, TAPS, tap_of

# A feature where nothing was pooled.
NOTHING = -1
# Cells of many cycles that are computed at once: enough to keep BLAS busy, few enough for its caches, and for 10 MB.
_CELLS_AT_ONCE = 1 << 14

Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)


def units(filters: Filters, readings_ccel: Ints, present: Bools, neighbour_masks: Bytes, absence: Bytes) -> Bytes:
    """Every node's last activations in one cycle.

    Args:
        filters: the cycle's filters.
        readings_ccel: int16 [rows, cols]; anything where no reading is.
        present: bool [rows, cols], which nodes have a reading.
        neighbour_masks: uint8 [rows, cols], which neighbours exist, one bit a slot.
        absence: uint8 [exchanges, rows, cols], neighbours that exist and yet were not used, one bit a slot.

    Returns:
        uint8 [rows, cols, channels]; zeros where no node computes.
    """
    used = neighbour_masks & ~absence & neighbours_where(present)
    activations = _compute(filters, readings_ccel[np.newaxis], used[:, np.newaxis])[0]
    return np.where(present[..., np.newaxis], activations, np.uint8(0))


def unit(layer: NodeLayer, inputs: Ints) -> Bytes:
    """One node's activations of one layer: inputs int [taps], already centred in the first layer -> uint8 [out]."""
    return _convolve(layer, inputs.astype(np.float64).reshape(-1, 1, 1, 1)).ravel().astype(np.uint8)


def pool(activations: Bytes, pooled: Bools) -> NDArray[np.int16]:
    """The maximum per block and channel over the units that were pooled.

    Args:
        activations: uint8 [..., rows, cols, channels].
        pooled: bool [..., rows, cols].

    Returns:
        int16 [..., block rows, block cols, channels], 0..255, or -1 where nothing was pooled.
    """
    *batch, rows, cols, channels = activations.shape
    block_rows, block_cols = -(-rows // BLOCK_SIDE), -(-cols // BLOCK_SIDE)
    padded = np.full((*batch, block_rows * BLOCK_SIDE, block_cols * BLOCK_SIDE, channels), NOTHING, np.int16)
    padded[..., :rows, :cols, :] = np.where(pooled[..., np.newaxis], activations.astype(np.int16), NOTHING)
    tops = np.maximum(padded[..., ::BLOCK_SIDE, :, :], padded[..., 1::BLOCK_SIDE, :, :])
    return np.maximum(tops[..., ::BLOCK_SIDE, :], tops[..., 1::BLOCK_SIDE, :])


def features(filters: Filters, readings_ccel: Ints, present: Bools, site: Site) -> NDArray[np.int16]:
    """The features of many cycles in which nothing was lost but the readings that are missing.

    Args:
        filters: one set for all cycles.
        readings_ccel: int16 [n, rows, cols].
        present: bool [n, rows, cols]; holes of the site may hold anything.
        site: where nodes stand.

    Returns:
        int16 [n, block rows, block cols, channels], as `pool` gives them.
    """
    result = np.empty((len(readings_ccel), *site.block_shape, filters.layers[-1].channels_out), np.int16)
    for part in _parts(readings_ccel):
        last = _undisturbed(filters, readings_ccel[part], present[part], site)
        result[part] = pool(last, present[part] & site.mask)
    return result


def activations(filters: Filters, readings_ccel: Ints, present: Bools, site: Site) -> Bytes:
    """The last activations behind those features: uint8 [n, rows, cols, channels]; anything where no reading is."""
    result = np.empty((*readings_ccel.shape, filters.layers[-1].channels_out), np.uint8)
    for part in _parts(readings_ccel):
        result[part] = _undisturbed(filters, readings_ccel[part], present[part], site)
    return result


def computable(known: Bools, present: Bools, neighbour_masks: Bytes, absence: Bytes) -> Bools:
    """Which units of one cycle can be recomputed from what was reported.

    A unit's value at a layer can be when its own absence bytes were reported and its own and every used neighbour's
    value of the layer before can be; a value of layer 0 is the reading. What used a unit whose byte never came is late.

    Args:
        known: bool [rows, cols], nodes whose absence bytes were reported.
        present: bool [rows, cols], nodes whose reading was reported.
        neighbour_masks: uint8 [rows, cols], which neighbours exist, one bit a slot.
        absence: uint8 [exchanges, rows, cols], as reported.

    Returns:
        bool [rows, cols].
    """
    value = present
    for used in neighbour_masks & ~absence:
        value = known & value & ((used & ~neighbours_where(value)) == 0)
    return value


def _parts(readings_ccel: Ints) -> Iterator[slice]:
    """The cycles that are computed at once."""
    cycles, rows, cols = readings_ccel.shape
    count = max(1, _CELLS_AT_ONCE // (rows * cols))
    return (slice(start, start + count) for start in range(0, cycles, count))


def _undisturbed(filters: Filters, readings_ccel: Ints, present: Bools, site: Site) -> Bytes:
    """Last activations where nothing was lost but the readings that are missing: uint8 [n, rows, cols, channels]."""
    used = site.neighbour_masks & neighbours_where(present & site.mask)
    return _compute(filters, readings_ccel, np.broadcast_to(used, (filters.exchanges, *used.shape)))


def _compute(filters: Filters, readings_ccel: Ints, used: Bytes) -> Bytes:
    """All layers: readings [n, rows, cols] and used [exchanges, n, rows, cols] -> uint8 [n, rows, cols, channels]."""
    centred = readings_ccel.astype(np.int64) - filters.reference_ccel
    values = np.clip(centred, READING_MIN, READING_MAX).astype(np.float64)[np.newaxis]
    halos = iter(used)
    for layer in filters.layers:
        taps = _taps(values, next(halos)) if layer.kind == CONV3X3 else values
        values = _convolve(layer, taps)
    return np.moveaxis(values, 0, -1).astype(np.uint8)


def _taps(values: NDArray[np.float64], used: Bytes) -> NDArray[np.float64]:
    """What the units read: values [channels, n, rows, cols] -> [channels, 9, n, rows, cols], own values in the gaps."""
    channels, *grid = values.shape
    taps = np.empty((channels, TAPS, *grid))
    taps[:, CENTRE] = values
    for slot, seen in _by_slot(values):
        taps[:, tap_of(slot)] = np.where(used >> slot & 1, seen, values)
    return taps


def _convolve(layer: NodeLayer, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """One layer's activations, whole numbers 0..255 [out, n, rows, cols]."""
    grid = taps.shape[-3:]
    weights = layer.weights.reshape(layer.filters, -1).astype(np.float64)
    products = (weights @ taps.reshape(weights.shape[1], -1)).astype(np.int64)
    sums = products + layer.bias.astype(np.int64)[:, np.newaxis]
    if layer.activation == SIGN:
        return (sums >= 0).any(axis=0).astype(np.float64).reshape(1, *grid)
    half = 1 << (layer.shift - 1)
    rounded = (sums + half) >> layer.shift
    activations: NDArray[np.float64] = rounded.clip(0, ACTIVATION_MAX).astype(np.float64)
    return activations.reshape(-1, *grid)


def neighbours_where(condition: Bools) -> Bytes:
    """Per node the slots whose node meets a condition: bool [..., rows, cols] -> uint8, one bit a slot."""
    bits = np.zeros(condition.shape, np.uint8)
    for slot, meets in _by_slot(condition):
        bits |= meets.astype(np.uint8) << slot
    return bits


def slots_of(masks: Bytes) -> Bools:
    """Masks of neighbours as a plane for each slot: uint8 [...], one bit a slot -> bool [8, ...]."""
    return np.stack([masks >> slot & 1 for slot in range(SLOTS)]).astype(np.bool_)


def _by_slot(values: NDArray[Number]) -> Iterator[tuple[int, NDArray[Number]]]:
    """Slot by slot every node's neighbour's value, zero outside the grid: views of the shape [..., rows, cols]."""
    *batch, rows, cols = values.shape
    padded = np.zeros((*batch, rows + 2, cols + 2), values.dtype)
    padded[..., 1:-1, 1:-1] = values
    for slot in range(SLOTS):
        down, right = divmod(tap_of(slot), 3)
        yield slot, padded[..., down : down + rows, right : right + cols]
