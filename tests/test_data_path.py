"""One reading's way through all stages, by name; it reads like the table that opens ARCHITECTURE.md."""

import itertools

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firmware.filters import Filters as NodeFilters
from firmware.filters import compute_unit
from firmware.neighbours import Neighbours
from firmware.pool import Block
from firmware.reading import open_sensor
from firmware.start import prepare_filters
from firmware.trace import Trace
from firmware.wave import Wave
from gateway import acceptance, decision, keys, twin, wave
from gateway.cycles import Assembly, Presence
from gateway.exactness import compare
from gateway.head import HeadRunner
from gateway.model import SPECS, Head, Model, feature_len
from gateway.rule import abnormal
from gateway.samples import Samples
from gateway.site import site_of_cells
from gateway.start_weights import start_filters
from protocol import filter_set, frame, report
from protocol.filter_set import STAGED
from protocol.fixed import centred
from protocol.grid import corner_of, corner_slots, neighbour_mask, slot_of

SPEC = SPECS["lean"]
CELLS = [(0, 0), (0, 1), (1, 0), (1, 1)]
CYCLE = 7


def test_a_reading_becomes_a_decision_stage_by_stage():
    """Four nodes, one of them 9 degrees hotter: one report, one feature, the decision abnormal at the one block."""
    site = site_of_cells("path", set(CELLS))
    filters = start_filters(SPEC)

    # 1 reading: each node's sensor gives int16 ccel
    sensors = {cell: open_sensor({"kind": "simulated", "seed": 0, "mean_ccel": 2200}) for cell in CELLS}
    readings = {cell: sensors[cell].read(CYCLE) + (900 if cell == (1, 1) else 0) for cell in CELLS}

    # 2 halo: each node publishes its reading once and stores its neighbours'
    head = {cell: frame.header(frame.READING, *cell, 1, CYCLE, filters.version) for cell in CELLS}
    frames = {cell: frame.reading(head[cell], readings[cell]) for cell in CELLS}
    nodes = {cell: NodeFilters(filter_set.unpack(filters.pack(site.name))) for cell in CELLS}
    halos = {cell: _hear(cell, nodes[cell], frames, readings[cell]) for cell in CELLS}

    # 3 unit: the layers up to the next exchange; lean has only one
    for cell in CELLS:
        assert len(SPEC.layers) == compute_unit(nodes[cell], 0)

    # 4 feature: the owner, the lowest member, pools and reports
    block = Block(SPEC.channels, SPEC.exchanges)
    for cell in CELLS:
        block.put(corner_of(*cell), nodes[cell].values[-1], halos[cell].absence, readings[cell])
    data = report.pack(frame.header(frame.REPORT, 0, 0, 1, CYCLE, 1), 99, 1, block, block.features())

    # 5 cycle assembly: the report becomes features and what recomputes them
    nobody = np.zeros_like(site.mask)
    assembly = Assembly(site, CYCLE, SPEC.channels, SPEC.exchanges, nobody)
    assert assembly.take((0, 0), report.Report(data))
    record = assembly.close(Presence(site))
    assert [[list(block.features())]] == record.features.tolist()

    # 6 head: a dense layer that looks at the maximum only
    weights = np.array([[0, 0], [-10, 10]], np.float32)
    runner = HeadRunner(SPEC, Head(1, ((weights, np.array([2, -2], np.float32)),)))
    assert 1 == feature_len(site, SPEC)

    # 7 decision: abnormal, and where
    _, decided = decision.update(decision.init(), record.features, runner)
    assert decided.abnormal
    assert (0, 0) == decided.where

    # proof: the twin computes the same from the readings
    exact = compare(record, filters, site)
    assert (1, 1, 0) == exact
    assert twin.NOTHING not in record.features


def test_decided_cycles_become_filters_that_a_node_computes_with(tmp_path, seed):
    """The way back: what was reported and labelled teaches a model; its signed filters are proven, staged, in use."""
    site, key = site_of_cells("path", set(np.ndindex(4, 4))), Ed25519PrivateKey.generate()
    before = Model("seed", start_filters(SPECS["seed"]), Head(1, _untrained_layers(site, seed)))
    flashed = tmp_path / "filters"
    flashed.write_bytes(before.filters.pack(site.name))
    public = bytes.fromhex(keys.public_hex(key))
    node = Wave(prepare_filters(str(flashed), site.name, public), Trace())

    # memory: readings as reported, labels by the site's rule
    readings = np.random.default_rng(seed).normal(2200, 90, (400, 4, 4)).astype(np.int16)
    present = np.ones(readings.shape, np.bool_)
    samples = Samples(readings, present, abnormal(readings, present))

    # 8 learning: accepted, because it is right more often on cycles that it was not trained on
    trained = acceptance.train(before, site, samples, before.filters.version + 1, seed)
    assert trained.accepted
    assert trained.accuracy_before < trained.accuracy_after

    # 9 wave: signed for the site, and received piece by piece
    data = wave.signed(trained.model.filters, site.name, key)
    for at in range(0, len(data), 100):
        node.feed(at, len(data), data[at : at + 100], 0)

    # 10 new filters: proven, staged, and in use from the cycle that asks for them
    while node.step(0):
        pass
    assert STAGED == node.phase
    assert node.take_staged(2)
    (first, _), weights = trained.model.filters.layers, node.active.layers[0][1]
    assert (first.weights.astype(np.int16) + 128).ravel().tolist() == list(weights)


def _untrained_layers(site, seed):
    rng = np.random.default_rng(seed)
    widths = itertools.pairwise((feature_len(site, SPECS["seed"]), 200, 2))
    return tuple((rng.normal(0, 0.1, w).astype(np.float32), np.zeros(w[1], np.float32)) for w in widths)


def _hear(cell, filters, frames, reading_ccel):
    """A node's halo after all of its neighbours' frames, its own value in every gap."""
    halo = Neighbours(neighbour_mask(CELLS, *cell))
    halo.use([filters.inputs[0]])
    for data in (frames[other] for other in CELLS if other != cell):
        slot = slot_of(*cell, frame.row_of(data), frame.col_of(data))
        halo.hear(slot, True)
        halo.put(0, slot, (centred(frame.i16(data, frame.HEADER_SIZE), filters.reference_ccel),), 0, 1)
    assert 0 == halo.awaited(0)
    assert set(corner_slots(*cell)) >= {-1}
    halo.fill(0, (centred(reading_ccel, filters.reference_ccel),))
    return halo
