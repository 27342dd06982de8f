"""What a node remembers of itself: counters that only grow, and a ring of its latest faults. Integers only."""

from array import array

from protocol.compat import cold, const
from protocol.health import COUNTERS, SENT, SENT_BYTES, TAKEN, TAKEN_BYTES, WRAP_MASK

RING_LEN = const(16)


class Trace:
    """Counters and ring of one node.

    Attributes:
        counters: uint32 [COUNTERS], places as in protocol/health.py.
        ring: uint32 [2 * RING_LEN], pairs (cycle, place of the fault's counter); the oldest pair is overwritten next.
        cycle: the one that the node is in; the node keeps it so.
    """

    @cold
    def __init__(self):
        """All zero."""
        self.counters = array("I", bytes(4 * COUNTERS))
        self.ring = array("I", bytes(8 * RING_LEN))
        self.cycle = 0
        self._next = 0

    def add(self, place: int, amount: int) -> None:
        """Add to a counter."""
        self.counters[place] = (self.counters[place] + amount) & WRAP_MASK

    def send(self, kind: int, size: int) -> None:
        """Count a frame that goes out."""
        self.add(SENT + kind, 1)
        self.add(SENT_BYTES + kind, size)

    def take(self, kind: int, size: int) -> None:
        """Count a well-formed frame that came in."""
        self.add(TAKEN + kind, 1)
        self.add(TAKEN_BYTES + kind, size)

    def fault(self, place: int) -> None:
        """Count a fault and remember the cycle in which it happened."""
        self.add(place, 1)
        self.ring[self._next] = self.cycle & WRAP_MASK
        self.ring[self._next + 1] = place
        self._next = (self._next + 2) % (2 * RING_LEN)
