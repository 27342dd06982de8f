"""The plan of the room: what stands in which cell. Cells are flat indices, row * cols + col."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.field.parameters import Lounge, Stream

Cells = NDArray[np.intp]


class Plan(NamedTuple):
    """Where everything stands, int [count] each; seats and the like each in a cell of their own."""

    room: Cells
    south_wall: Cells
    west_wall: Cells
    south_windows: Cells
    west_windows: Cells
    vents: Cells
    seats: Cells
    doors: Cells
    machines: Cells


def plan(lounge: Lounge) -> Plan:
    """The lounge's plan, the same for the same seed. Walls follow the room's outline, so holes may cut it anyhow."""
    rng = lounge.stream(Stream.PLAN)
    mask = lounge.mask
    room = np.flatnonzero(mask)
    south, north = _edges(mask)
    east, west = (_transposed(cells, mask.shape) for cells in _edges(mask.T))

    def choose(cells: Cells, count: int) -> Cells:
        return rng.choice(cells, min(count, len(cells)), replace=False)

    def windows(wall: Cells) -> Cells:
        return np.sort(choose(wall, max(1, round(lounge.window_share * len(wall)))))

    return Plan(
        room=room,
        south_wall=south,
        west_wall=west,
        south_windows=windows(south),
        west_windows=windows(west),
        vents=choose(room, lounge.scaled(lounge.vents)),
        seats=choose(room, lounge.scaled(lounge.seats)),
        doors=choose(np.union1d(north, east), lounge.scaled(lounge.doors)),
        machines=choose(room, lounge.scaled(lounge.machines)),
    )


def _edges(mask: NDArray[np.bool_]) -> tuple[Cells, Cells]:
    """The last and the first existing cell of every column that has one."""
    rows, cols = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    first = mask.argmax(axis=0)[columns]
    last = rows - 1 - mask[::-1].argmax(axis=0)[columns]
    return last * cols + columns, first * cols + columns


def _transposed(cells: Cells, shape: tuple[int, ...]) -> Cells:
    """Flat indices of the transposed grid -> of the grid of this shape."""
    rows, cols = shape
    return cells % rows * cols + cells // rows
