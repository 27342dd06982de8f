"""The heat balance of the cells, stepped in time.

A cell holds heat, passes it to its four neighbours, to a slow mass of its own (floor, furniture), through the outer
walls and to the central air:

    C dT/dt = sum_links g (T_other - T) + g_slow (S - T) + power - loss T        C_slow dS/dt = g_slow (T - S)

Implicit Euler, factored by direction: (1 + X)(1 + Y)(1 + D) dT = residual, where X, Y and D are the links along rows,
the links along columns and the rest (alternating directions in delta form; J. Douglas, J. E. Gunn, Numerische
Mathematik 6, 1964). Stable at any step; its steady states are those of the balance itself, and it needs one small
inverse a line instead of one matrix over all pairs of cells: the lounge takes a tenth of the multiplications, and a
site of 4,000 cells remains possible.
"""

import numpy as np
from numpy.typing import NDArray

from sim.field.parameters import Lounge, Stream
from sim.field.plan import Plan

Field = NDArray[np.float64]


class HeatBalance:
    """The state of `count` independent copies of the room: `temperature` float64 [rows, cols, count]."""

    def __init__(self, lounge: Lounge, loss_w_k: Field, start_c: Field) -> None:
        """Begin in rest.

        Args:
            lounge: the room.
            loss_w_k: what leaves a cell per kelvin, [rows, cols].
            start_c: of every copy, [count].
        """
        step_s = lounge.slot_s / lounge.steps
        self._per_w = step_s / lounge.cell_capacity_j_k
        self._slow_share = step_s * lounge.slow_w_k / lounge.slow_capacity_j_k
        # S' = (S + share T') / (1 + share), put into the cell's own equation.
        self._slow_w_k = lounge.slow_w_k / (1 + self._slow_share)
        self._loss_w_k = loss_w_k[..., np.newaxis]
        down, right = conductances(lounge)
        self._down, self._right = down[..., np.newaxis], right[..., np.newaxis]
        self._along_rows = _inverses(self._per_w * right)
        self._along_cols = _inverses(self._per_w * down.T)
        self._along_none = 1 / (1 + self._per_w * (self._loss_w_k + self._slow_w_k))
        self.temperature = np.tile(start_c, (*loss_w_k.shape, 1))
        self._slow = self.temperature.copy()

    def step(self, power_w: Field) -> None:
        """One substep under a power [rows, cols, count], what the walls and the central air give included."""
        now = self.temperature
        residual = power_w - self._loss_w_k * now + self._slow_w_k * (self._slow - now)
        down = self._down * (now[1:] - now[:-1])
        right = self._right * (now[:, 1:] - now[:, :-1])
        residual[:-1] += down
        residual[1:] -= down
        residual[:, :-1] += right
        residual[:, 1:] -= right
        change = self._along_rows @ (self._per_w * residual)
        change = (self._along_cols @ change.swapaxes(0, 1)).swapaxes(0, 1)
        now += self._along_none * change
        self._slow += self._slow_share / (1 + self._slow_share) * (now - self._slow)


def conductances(lounge: Lounge) -> tuple[Field, Field]:
    """W/K to the cell below [rows - 1, cols] and to the right [rows, cols - 1]; 0 at holes, a part at partitions."""
    rng = lounge.stream(Stream.WALLS)
    mask = lounge.mask
    down, right = (
        lounge.link_w_k * rng.uniform(1 - lounge.link_spread, 1 + lounge.link_spread, shape)
        for shape in ((lounge.rows - 1, lounge.cols), (lounge.rows, lounge.cols - 1))
    )
    for index in range(lounge.scaled(lounge.partitions)):
        # Partitions run along rows and along columns in turn; a transposed view lets one line serve both.
        links = down if index % 2 else right.T
        if links.size:
            line, start = rng.integers(links.shape[0]), rng.integers(links.shape[1])
            screened = links[line, start : start + lounge.partition_cells]
            np.minimum(screened, screened * lounge.partition_share, out=screened)
    return down * (mask[1:] & mask[:-1]), right * (mask[:, 1:] & mask[:, :-1])


def losses(lounge: Lounge, plan: Plan) -> tuple[Field, Field]:
    """W/K to the outdoors and to the central air, [rows, cols] each."""
    walls = np.zeros(lounge.rows * lounge.cols)
    walls[plan.south_wall] += lounge.south_wall_w_k
    walls[plan.west_wall] += lounge.west_wall_w_k
    return walls.reshape(lounge.rows, lounge.cols), np.full((lounge.rows, lounge.cols), lounge.air_w_k)


def _inverses(weights: Field) -> Field:
    """(1 + L)^-1 of the chain in every line: links [lines, n - 1] -> [lines, n, n]."""
    lines, links = weights.shape
    system = np.tile(np.eye(links + 1), (lines, 1, 1))
    left, right = np.arange(links), np.arange(1, links + 1)
    system[:, left, left] += weights
    system[:, right, right] += weights
    system[:, left, right] -= weights
    system[:, right, left] -= weights
    return np.asarray(np.linalg.inv(system), np.float64)
