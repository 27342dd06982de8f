"""Which number a cycle has: none that the mesh came to without the gateway, or two passes of it would be one cycle."""

# A mesh on its own is believed so many cycles ahead of the one opened last.
AHEAD_MAX = 100
# After three periods without a beacon nodes go on by their own clocks (firmware/node.py), which may be fast.
ALONE_PERIODS = 2.5


class CycleNumbers:
    """The numbers of one run.

    Attributes:
        next: what the next cycle gets at least; higher where nodes went on without one.
    """

    def __init__(self, period_ms: int):
        """No cycle was opened; `period_ms`: from beacon to beacon."""
        self.next = 0
        self._period_ms = period_ms
        self._opened: tuple[int, int] | None = None  # which cycle was opened last, and when, ms
        self._believed_end = AHEAD_MAX

    @property
    def latest(self) -> int:
        """The last that was opened or heard of, 0 before the first."""
        return max(self.next - 1, 0)

    def open(self, now_ms: int) -> int:
        """The number of the cycle that opens, behind those that nodes came to by their own clocks since the last one.

        Reports of theirs may still be on their way, and would be taken for those of the cycle that opens.
        """
        number, opened_ms = self._opened or (self.next, now_ms)
        periods = (now_ms - opened_ms) / self._period_ms
        cycle = self.next if periods < ALONE_PERIODS else max(self.next, number + int(periods) + 1)
        self._opened, self.next = (cycle, now_ms), cycle + 1
        self._believed_end = self.next + AHEAD_MAX
        return cycle

    def hear(self, cycle: int) -> None:
        """Nodes speak of a cycle that is not open: those that open from now on lie behind it."""
        self.next = max(self.next, cycle + 1)

    def believes(self, cycle: int) -> bool:
        """Whether a mesh may have come so far."""
        return cycle < self._believed_end
