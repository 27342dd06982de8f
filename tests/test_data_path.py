"""One reading's way through all stages, by name; it reads like the table that opens ARCHITECTURE.md."""

import numpy as np

from firmware.filters import Filters as NodeFilters
from firmware.neighbours import Neighbours
from firmware.pool import Block
from firmware.reading import open_sensor
from gateway import decision, twin
from gateway.cycles import Assembly, Presence
from gateway.exactness import compare
from gateway.head import HeadRunner
from gateway.model import SPECS, Head, feature_len
from gateway.site import site_of_cells
from gateway.start_weights import start_filters
from protocol import filter_set, frame, report
from protocol.fixed import centred
from protocol.grid import corner_of, corner_slots, neighbour_mask

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
        assert len(SPEC.layers) == nodes[cell].compute(0)

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


def _hear(cell, filters, frames, reading_ccel):
    """A node's halo after all of its neighbours' frames, its own value in every gap."""
    halo = Neighbours(*cell, neighbour_mask(CELLS, *cell))
    halo.use([filters.inputs[0]])
    for data in (frames[other] for other in CELLS if other != cell):
        slot = halo.slot_of(frame.row_of(data), frame.col_of(data))
        halo.hear(slot, True)
        halo.put(0, slot, (centred(frame.i16(data, frame.HEADER_SIZE), filters.reference_ccel),), 0, 1)
    assert 0 == halo.awaited(0)
    assert set(corner_slots(*cell)) >= {-1}
    halo.fill(0, (centred(reading_ccel, filters.reference_ccel),))
    return halo
