"""Quarantine: a node that says more than it can need is not listened to until it has behaved for a while.

The broker is asked not to hand on what it says (gateway/link.py), so it may be that it behaves, or that nobody knows:
then its first words too many shut it out again.

What a node can need is counted between two beacons, whatever it is about:

     3  reports: this cycle's, and two that wait for their acknowledgement
    25  states of mode event: one for each word that may change it, the own, eight neighbours', 16 in challenges
     1  proof
     5  words of its filters: when the beacon asks, staged, on trial, confirmed, returned
     2  health messages: when a beacon asks, and between two cycles
    28  and room for what a network says twice
    --
    64  and for each connection 20 more: lost, ready, about, word of its filters, and room as above

A node takes half a second at least to connect again (firmware/link.py); one that does so more than 60 times in a cycle
is of no use to it either.
"""

from collections import Counter
from collections.abc import Iterable

from gateway.site import Cell

CYCLE_MESSAGES = 64
CONNECTION_MESSAGES = 20
CONNECTION_MS_MIN = 500
CONNECTIONS_MAX = 60
# A gateway that stood still finds what nodes said meanwhile, of so many cycles at most (AHEAD_MAX, cycle_numbers.py).
PERIODS_MAX = 100
# Whole cycles in a row within the bounds, after which a node is listened to again.
GOOD_CYCLES = 3


class Quarantine:
    """Who says how much between two beacons, and who is not listened to.

    Attributes:
        dropped: by node, messages that nobody looked at.
        has_changed: others are listened to than before; who has that carried out at the broker clears this.
    """

    def __init__(self, period_ms: int):
        """Everybody is listened to; `period_ms`: from beacon to beacon."""
        self.dropped: Counter[Cell] = Counter()
        self.has_changed = False
        self._period_ms = period_ms
        self._said: Counter[Cell] = Counter()
        self._good: dict[Cell, int] = {}
        self._started_ms: int | None = None
        self._allowed = allowed(1, period_ms)

    @property
    def cells(self) -> Iterable[Cell]:
        """Who is not listened to now."""
        return self._good.keys()

    def admits(self, cell: Cell) -> bool:
        """Count a message; whether it may be looked at."""
        self._said[cell] += 1
        if self._said[cell] > self._allowed:
            self.has_changed |= cell not in self._good
            self._good[cell] = 0
        if cell in self._good:
            self.dropped[cell] += 1
            return False
        return True

    def start_cycle(self, now_ms: int) -> list[Cell]:
        """A beacon goes out. Returns who is listened to again from now on."""
        for cell in self._good:
            self._good[cell] = self._good[cell] + 1 if self._said[cell] <= self._allowed else 0
        freed = [cell for cell, good in self._good.items() if good >= GOOD_CYCLES]
        for cell in freed:
            del self._good[cell]
            self.has_changed = True
        since_ms = self._period_ms if self._started_ms is None else now_ms - self._started_ms
        self._started_ms = now_ms
        self._allowed = allowed(min(max(-(-since_ms // self._period_ms), 1), PERIODS_MAX), self._period_ms)
        self._said.clear()
        return freed


def allowed(periods: int, period_ms: int) -> int:
    """How many messages a node can need in so many periods; (1, 1_000) -> 104."""
    connections = min(periods * period_ms // CONNECTION_MS_MIN, CONNECTIONS_MAX)
    return periods * CYCLE_MESSAGES + max(connections, 1) * CONNECTION_MESSAGES
