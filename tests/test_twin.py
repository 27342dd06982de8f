"""The twin against the definition, written out node by node in plain Python, and against the nodes' own kernel."""

import tracemalloc
from array import array

import numpy as np
import pytest
from mesh_in_memory import make_site, random_site
from sign_layers import SHAPE, random_sign_layer

from firmware.unit import convolve
from gateway import twin
from gateway.model import SPECS, Filters, ModelSpec, NodeLayer
from gateway.site import lounge, site_of_cells
from gateway.start_weights import start_filters
from protocol import filter_set
from protocol.fixed import centred

SIGNS = ModelSpec("signs", (SHAPE,), (), appends_maximum=True)
SPECS_BY_NAME = pytest.mark.parametrize("spec", [*SPECS.values(), SIGNS], ids=lambda spec: spec.name)
ROUNDS = 40
# NW N NE W E SW S SE, as slots count them.
STEPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def random_filters(spec, rng):
    """Weights over all of int8; shifts and biases that leave activations neither all 0 nor all as large as can be."""
    layers = []
    for index, shape in enumerate(spec.layers):
        if shape.activation == "sign":
            layers.append(random_sign_layer(rng, shape.filters, thresholds=(0, 4_000_000)))
            continue
        taps = 9 if shape.kind == "conv3x3" else 1
        shift = int(rng.integers(10, 16) if index == 0 else rng.integers(5, 9))
        bias = rng.integers(-(2**shift) * 20, 2**shift * 100, shape.filters).astype(np.int32)
        weights = rng.integers(-128, 128, (shape.filters, shape.channels_in, taps)).astype(np.int8)
        layers.append(NodeLayer.of(shape, shift, bias, weights))
    return Filters(1, int(rng.integers(1500, 2500)), tuple(layers))


def random_cycle(site, exchanges, rng):
    """Readings over all of int16, some nodes silent, and for each node's every exchange some neighbours unheard."""
    shape = site.mask.shape
    readings = rng.integers(-32768, 32768, shape).astype(np.int16)
    present = site.mask & (rng.random(shape) < 0.85)
    absence = np.zeros((exchanges, *shape), np.uint8)
    for row, col in site.cells:
        for slot, other in around(site, row, col):
            for exchange in range(exchanges):
                if not present[other] or rng.random() < 0.2:
                    absence[exchange, row, col] |= 1 << slot
    return readings, present, absence


def around(site, row, col):
    """The neighbours that exist, with their slots."""
    others = ((slot, (row + down, col + right)) for slot, (down, right) in enumerate(STEPS))
    return [(slot, other) for slot, other in others if other in site.cells]


def kernel(layer, inputs, first):
    """The definition (docs/protocol.md): sums of products, round half up, clamp; or any sum of at least 0."""
    out = []
    for bias, weights in zip(layer.bias.tolist(), layer.weights.reshape(layer.filters, -1).tolist(), strict=True):
        total = sum(x * w for x, w in zip(inputs, weights, strict=True)) + bias
        if layer.activation == "sign":
            out.append(int(total >= 0))
        else:
            out.append(max(0, min(255, (total + 2 ** (layer.shift - 1)) // 2**layer.shift)))
    return [max(out)] if layer.activation == "sign" else out


class Firmware:
    """The same, by the code that runs on nodes, from the bytes that travel to them."""

    def __init__(self, filters):
        self.layers = dict(zip(filters.layers, filter_set.unpack(filters.pack("site")).layers, strict=True))

    def __call__(self, layer, inputs, first):
        stored = self.layers[layer]
        out = bytearray(layer.channels_out)
        zero = 32768 if first else 0
        convolve(out, array("H", [value + zero for value in inputs]), stored.weights, stored.bias, stored.shape)
        return list(out)


def slow_units(filters, site, readings, present, absence, compute=kernel):
    """Every unit, node by node: {cell: activations}."""
    nodes = [cell for cell in site.cells if present[cell]]
    values = {cell: [centred(int(readings[cell]), filters.reference_ccel) - 32768] for cell in nodes}
    exchange = 0
    for index, layer in enumerate(filters.layers):
        inputs = values
        if layer.kind == "conv3x3":
            inputs = {cell: taps(site, values, cell, int(absence[exchange][cell])) for cell in nodes}
            exchange += 1
        values = {cell: compute(layer, inputs[cell], index == 0) for cell in nodes}
    return values


def taps(site, values, cell, absent):
    """Channel by channel nine values, the own one wherever a neighbour was not used."""
    window = {4: cell}
    for slot, other in around(site, *cell):
        if not absent >> slot & 1:
            window[slot + (slot >= 4)] = other
    return [values[window.get(tap, cell)][channel] for channel in range(len(values[cell])) for tap in range(9)]


def as_dict(activations, present):
    return {tuple(cell): activations[tuple(cell)].tolist() for cell in np.argwhere(present).tolist()}


@SPECS_BY_NAME
@pytest.mark.parametrize("compute", ["the definition", "the firmware"])
def test_the_twin_computes_every_unit_as_the_nodes_do(seed, spec, compute):
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(ROUNDS):
        site, filters = random_site(rng), random_filters(spec, rng)
        readings, present, absence = random_cycle(site, spec.exchanges, rng)
        slow = kernel if compute == "the definition" else Firmware(filters)
        activations = twin.units(filters, readings, present, site.neighbour_masks, absence)
        assert slow_units(filters, site, readings, present, absence, slow) == as_dict(activations, present)
        seen |= set(activations[present].ravel().tolist())
    assert seen == {0, 1} or len(seen) > 20, "the filters of this test leave nothing to compare"


def test_a_flagged_neighbour_counts_as_the_nodes_own_value():
    site = site_of_cells("pair", {(0, 0), (0, 1)})
    filters = start_filters(SPECS["seed"])
    first = Filters(1, 2200, filters.layers[:1])  # channel 0: east over own, from 2.68 degrees on
    readings, present = np.array([[2000, 2300]], np.int16), np.ones((1, 2), np.bool_)
    heard, flagged = np.zeros((1, 1, 2), np.uint8), np.array([[[1 << 4, 0]]], np.uint8)
    assert 16 == twin.units(first, readings, present, site.neighbour_masks, heard)[0, 0, 0]
    assert 0 == twin.units(first, readings, present, site.neighbour_masks, flagged)[0, 0, 0]


def test_with_sign_an_absent_member_merges_into_the_corners_own_tap(seed):
    """Beyond the border, in a hole, silent or unheard: all the same as a weight of the corner's own."""
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        site, layer = random_site(rng), random_sign_layer(rng, thresholds=(0, 4_000_000))
        readings, present, absence = random_cycle(site, 1, rng)
        states = twin.units(Filters(1, 0, (layer,)), readings, present, site.neighbour_masks, absence)
        for cell in map(tuple, np.argwhere(present).tolist()):
            there = {slot: other for slot, other in around(site, *cell) if not absence[0][cell] >> slot & 1}
            sums = []
            for weights, bias in zip(layer.weights[:, 0].tolist(), layer.bias.tolist(), strict=True):
                merged = weights[4] + sum(weights[tap] for tap in (5, 7, 8) if tap - 1 not in there)
                members = sum(weights[tap] * int(readings[there[tap - 1]]) for tap in (5, 7, 8) if tap - 1 in there)
                sums.append(merged * int(readings[cell]) + members + bias)
            assert [int(max(sums) >= 0)] == states[cell].tolist()


def test_a_flag_counts_in_its_own_exchange_only(seed):
    rng = np.random.default_rng(seed)
    filters = random_filters(SPECS["seed"], rng)
    site = lounge()
    readings, present, absence = random_cycle(site, 2, rng)
    both = twin.units(filters, readings, present, site.neighbour_masks, absence)
    absence[1] = 0
    assert np.any(both != twin.units(filters, readings, present, site.neighbour_masks, absence))


def test_a_node_without_a_reading_computes_no_unit(seed):
    rng = np.random.default_rng(seed)
    site = lounge()
    readings, present, absence = random_cycle(site, 2, rng)
    activations = twin.units(random_filters(SPECS["seed"], rng), readings, present, site.neighbour_masks, absence)
    assert not present.all()
    assert not activations[~present].any()


def test_the_extreme_sums_neither_overflow_nor_round():
    """|sum| <= 9 * 2^15 * 2^7 and 144 * 255 * 2^7, |bias| < 2^29 (protocol/filter_set.py)."""
    site = lounge()
    bias = np.array([2**29 - 1, -(2**29) + 1] * 8, np.int32)
    layers = []
    for channels_in in (1, 16):
        weights = np.empty((16, channels_in, 9), np.int8)
        weights[::2], weights[1::2] = 127, -128
        layers.append(NodeLayer("conv3x3", channels_in, 16, 24 if channels_in == 1 else 22, bias, weights))
    filters = Filters(1, 32767, tuple(layers))
    none = np.zeros((2, *site.mask.shape), np.uint8)
    for reading in (-32768, 32767):
        readings = np.full(site.mask.shape, reading, np.int16)
        activations = twin.units(filters, readings, site.mask, site.neighbour_masks, none)
        assert slow_units(filters, site, readings, site.mask, none) == as_dict(activations, site.mask)


def test_sums_that_single_precision_would_round_are_exact(seed):
    rng = np.random.default_rng(seed)
    site = site_of_cells("one", {(0, 0)})
    for _ in range(ROUNDS):
        reading, weights = int(rng.integers(30000, 32768)), rng.integers(100, 128, (1, 1, 9)).astype(np.int8)
        total = reading * int(weights.sum())
        assert total > 2**24
        # All but 0..510 of the sum is taken away again, so that its last bits decide.
        bias = np.array([int(rng.integers(0, 511)) - total], np.int32)
        filters = Filters(1, 0, (NodeLayer("conv3x3", 1, 1, 1, bias, weights),))
        readings, none = np.array([[reading]], np.int16), np.zeros((1, 1, 1), np.uint8)
        activations = twin.units(filters, readings, site.mask, site.neighbour_masks, none)
        assert slow_units(filters, site, readings, site.mask, none) == as_dict(activations, site.mask)


def test_a_block_holds_the_maximum_of_the_units_pooled_and_minus_one_without_any(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        rows, cols, channels = rng.integers(1, 7, 3)
        activations = rng.integers(0, 256, (rows, cols, channels)).astype(np.uint8)
        pooled = rng.random((rows, cols)) < 0.5
        blocks = twin.pool(activations, pooled)
        assert ((rows + 1) // 2, (cols + 1) // 2, channels) == blocks.shape
        for row, col, channel in np.ndindex(blocks.shape):
            members = [(r, c) for r in (2 * row, 2 * row + 1) for c in (2 * col, 2 * col + 1) if r < rows and c < cols]
            units = [int(activations[r, c, channel]) for r, c in members if pooled[r, c]]
            assert max(units, default=-1) == blocks[row, col, channel]


@SPECS_BY_NAME
def test_features_of_many_cycles_are_those_of_each_cycle_with_silent_neighbours_flagged(seed, spec):
    rng = np.random.default_rng(seed)
    site, filters = site_of_cells("bent", set(lounge().cells) - {(3, 3), (16, 24), (0, 0)}), random_filters(spec, rng)
    readings = rng.integers(1500, 2500, (205, 17, 25)).astype(np.int16)
    present = rng.random(readings.shape) < 0.9
    together = twin.features(filters, readings, present, site)
    assert (205, 9, 13, spec.channels) == together.shape
    for cycle in (0, 37, 38, 204):
        here = present[cycle] & site.mask
        absence = np.zeros((spec.exchanges, 17, 25), np.uint8)
        for row, col in site.cells:
            flags = sum(1 << slot for slot, other in around(site, row, col) if not here[other])
            absence[:, row, col] = flags
        units = slow_units(filters, site, readings[cycle], here, absence)
        activations = np.zeros((17, 25, spec.channels), np.uint8)
        for cell, values in units.items():
            activations[cell] = values
        assert np.array_equal(twin.pool(activations, here), together[cycle])


def slow_computable(site, known, present, absence):
    """By recursion from the last exchange back to the readings."""

    def possible(cell, exchange):
        if exchange < 0:
            return bool(present[cell])
        used = [other for slot, other in around(site, *cell) if not absence[exchange][cell] >> slot & 1]
        return bool(known[cell]) and all(possible(other, exchange - 1) for other in (cell, *used))

    return {cell: possible(cell, len(absence) - 1) for cell in site.cells}


@pytest.mark.parametrize("side", [8, 20, 64])
def test_features_of_any_number_of_cycles_take_little_memory_beside_their_result(side):
    site = make_site(side, side)
    readings_ccel = np.full((16_384 * 8 // side**2, side, side), 2200, np.int16)
    present = np.broadcast_to(site.mask, readings_ccel.shape)
    tracemalloc.start()
    try:
        result = twin.features(start_filters(SPECS["seed"]), readings_ccel, present, site)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 16 << 20


@pytest.mark.parametrize("exchanges", [1, 2, 3])
def test_a_unit_is_computable_when_all_that_it_used_is(seed, exchanges):
    rng = np.random.default_rng(seed)
    answers = set()
    for _ in range(ROUNDS):
        site = random_site(rng)
        _, present, absence = random_cycle(site, exchanges, rng)
        known = present & (rng.random(present.shape) < 0.9)
        expected = slow_computable(site, known, present, absence)
        result = twin.computable(known, present, site.neighbour_masks, absence)
        assert expected == {cell: bool(result[cell]) for cell in site.cells}
        answers |= set(expected.values())
    assert {True, False} == answers


def test_a_node_that_died_in_mid_cycle_spoils_its_users_and_only_their_last_layer():
    site = site_of_cells("row", {(0, col) for col in range(5)})
    present = np.ones((1, 5), np.bool_)
    known = np.array([[False, True, True, True, True]])  # node 0 gave its reading and activations, and no absence byte
    absence = np.zeros((2, 1, 5), np.uint8)
    assert [[False, False, True, True, True]] == twin.computable(known, present, site.neighbour_masks, absence).tolist()
    absence[1, 0, 1] = 1 << 3  # its only user says that it did not hear the activations
    assert [[False, True, True, True, True]] == twin.computable(known, present, site.neighbour_masks, absence).tolist()
