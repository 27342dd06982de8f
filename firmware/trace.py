"""What a node remembers of itself: counters that only grow."""

from array import array

from protocol.compat import cold
from protocol.health import COUNTERS, SENT, SENT_BYTES, TAKEN, TAKEN_BYTES, WRAP_MASK


class Trace:
    """Counters of one node.

    Attributes:
        counters: uint32 [COUNTERS], places as in protocol/health.py.
    """

    @cold
    def __init__(self):
        """All zero."""
        self.counters = array("I", bytes(4 * COUNTERS))

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
        """Count a fault."""
        self.add(place, 1)
