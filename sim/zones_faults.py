"""What happens to a mesh in mode event: frames lost on links and on the way up, nodes that die."""

from typing import NamedTuple

import numpy as np

from gateway.site import Site
from protocol.grid import BLOCK_SIDE, TAPS
from sim.zones import Bools, Ints

# Of `Faults.dies`: a node that lives on.
NEVER = 1 << 30


class Faults(NamedTuple):
    """What happens to frames and nodes.

    Attributes:
        loss: mean share of copies lost on each link, 0 to below 1.
        burst: mean number of copies lost in a row on one link within a cycle, loss / (1 - loss) or more; 0: each is
            lost on its own.
        outage: instead, mean number of cycles in a row in which a link loses everything, as above; 0: none.
        upward_loss: share of blocks' bits that the gateway does not hear; they are said again in the next cycle.
        dies: int [rows, cols], the cycle from which on a node is dead, or NEVER; None: all live on.
        seed: of all that is random.
    """

    loss: float = 0.0
    burst: float = 0
    outage: float = 0
    upward_loss: float = 0.0
    dies: Ints | None = None
    seed: int = 0


class Links:
    """One directed link from each of a node's nine taps to it; the one from itself is never asked.

    Bursts and outages are Gilbert's two states: bad links lose all, good ones nothing. In the first cycle all are good.
    """

    def __init__(self, nodes: int, faults: Faults):
        self._faults, self._rng = faults, np.random.default_rng(faults.seed)
        self._bad = np.zeros((nodes, TAPS), np.bool_)
        self._perfect = True

    def start_cycle(self, cycle: int) -> None:
        """Cycles lie minutes apart: outages may last, bursts do not."""
        self._perfect = cycle == 0 or self._faults.loss == 0
        if self._faults.outage and cycle > 1:
            self._step(self._faults.outage)
        else:
            self._draw()

    def lost(self, copies: int) -> Bools:
        """Which links lose all copies of what is sent next: [nodes, taps], by who would hear it from where."""
        if self._perfect:
            return np.zeros_like(self._bad)
        lost: Bools = np.ones_like(self._bad)
        for _ in range(copies):
            if self._faults.burst:
                self._step(self._faults.burst)
            elif not self._faults.outage:
                self._draw()
            lost &= self._bad
        return lost

    def _draw(self) -> None:
        self._bad = np.less(self._rng.random(self._bad.shape), self._faults.loss)

    def _step(self, mean: float) -> None:
        """A bad link turns good with 1 / mean, a good one bad as often as keeps the share of bad ones."""
        loss, drawn = self._faults.loss, self._rng.random(self._bad.shape)
        self._bad = np.where(self._bad, drawn >= 1 / mean, drawn < loss / (1 - loss) / mean)


class Blocks:
    """Blocks' bits on their way to the gateway, and what it holds; a block without a living node counts as normal."""

    def __init__(self, site: Site, faults: Faults):
        row, col = np.indices(site.mask.shape) // BLOCK_SIDE
        self._of_node = (row * site.block_shape[1] + col).ravel()
        self._loss, self._rng = faults.upward_loss, np.random.default_rng((faults.seed, 1))
        self._held = np.zeros(self._of_node.max() + 1, np.bool_)
        self._heard = np.zeros_like(self._held)

    def cycle(self, states: Bools, alive: Bools) -> tuple[int, bool]:
        """Say what the gateway does not hold: bool [nodes] twice -> (bits said, whether it holds an abnormal one)."""
        bits = np.bincount(self._of_node, states) > 0
        lives = np.bincount(self._of_node, alive) > 0
        saying = lives & ((bits != self._held) | ~self._heard)
        heard = saying & (self._rng.random(len(bits)) >= self._loss)
        self._held = np.where(heard, bits, self._held) & lives
        self._heard |= heard
        return int(saying.sum()), bool(self._held.any())


def deaths(site: Site, share: float, cycles: range, seed: int) -> Ints:
    """`Faults.dies` for a share of a site's nodes that die in these cycles, any of them in any."""
    rng = np.random.default_rng((seed, 3))
    dies = np.full(site.mask.shape, NEVER)
    chosen = rng.choice(len(site.cells), round(share * len(site.cells)), replace=False)
    for place in chosen:
        dies[site.cells[place]] = rng.integers(cycles.start, cycles.stop)
    return dies
