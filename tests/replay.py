"""Replays a mesh of mesh.json with the node's own parts, on CPython and MicroPython alike."""

from firmware.filters import Filters, compute_unit
from firmware.neighbours import Neighbours
from firmware.pool import Block
from protocol import filter_set, grid
from protocol.fixed import centred


def replay(mesh):
    """The mesh's absence bytes, units and features, laid out as in the golden file.

    A neighbour's values arrive unless the golden absence byte says that they did not.
    """
    found = filter_set.unpack(bytes.fromhex(mesh["filter_set"]))
    cells = [
        (row, col) for row in range(mesh["rows"]) for col in range(mesh["cols"]) if [row, col] not in mesh["holes"]
    ]
    readings = {cell: mesh["readings"][cell[0]][cell[1]] for cell in cells}
    nodes = {cell: Filters(found) for cell in cells if readings[cell] is not None}
    halos = {}
    values = {}
    for cell, filters in nodes.items():
        inputs = [filters.inputs[layer] for layer in filters.exchanges]
        halos[cell] = Neighbours(grid.neighbour_mask(cells, cell[0], cell[1]))
        halos[cell].use(inputs)
        values[cell] = (centred(readings[cell], found.reference_ccel),)
    for exchange in range(len(mesh["absence"])):
        values = _exchange(mesh, exchange, nodes, halos, values)
    features = _pooled(mesh, halos, values)
    return {
        "absence": [
            _laid_out(mesh, {cell: halo.absence[exchange] for cell, halo in halos.items()}, 0)
            for exchange in range(len(mesh["absence"]))
        ],
        "units": _laid_out(mesh, {cell: list(own) for cell, own in values.items()}, None),
        "features": features,
    }


def _exchange(mesh, exchange, nodes, halos, values):
    """Everybody hears the neighbours and computes: the values that the next exchange sends."""
    after = {}
    for cell, filters in nodes.items():
        row, col = cell
        for slot in range(grid.SLOTS):
            other = grid.neighbour_of(row, col, slot)
            if other in values and not mesh["absence"][exchange][row][col] >> slot & 1:
                halos[cell].put(exchange, slot, values[other], 0, len(values[other]))
        halos[cell].fill(exchange, values[cell])
        layer = compute_unit(filters, filters.exchanges[exchange])
        after[cell] = filters.values[layer - 1]
    return after


def _pooled(mesh, halos, values):
    blocks = {}
    for cell in values:
        row, col = cell
        place = (row // grid.BLOCK_SIDE, col // grid.BLOCK_SIDE)
        if place not in blocks:
            blocks[place] = Block(len(values[cell]), len(mesh["absence"]))
        blocks[place].put(grid.corner_of(row, col), values[cell], halos[cell].absence, None)
    rows, cols = (mesh["rows"] + 1) // 2, (mesh["cols"] + 1) // 2
    return [
        [list(blocks[(row, col)].features()) if (row, col) in blocks else None for col in range(cols)]
        for row in range(rows)
    ]


def _laid_out(mesh, of_cell, nothing):
    return [[of_cell.get((row, col), nothing) for col in range(mesh["cols"])] for row in range(mesh["rows"])]
