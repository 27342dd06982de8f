"""Which reports came, by (node, boot, seq): each is kept once, acknowledged once it is, and what never came is a gap.

A node makes its reports one after the other and holds those that nobody acknowledged; each says whether older ones
wait behind it. So what is missing below one that says no is lost, and so is all that a node held when it started anew.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.site import Cell, sender_of
from protocol import report

# What is missing is waited for so long: a node holds fewer reports (firmware/ring.py).
WINDOW = report.ACK_WINDOW
# Of a node so many starts are known, those that were heard of last. One that somebody made up, who has the node's key,
# costs the real one what it still lacked, and keeps none of its later reports out; so many of them make it unknown.
STARTS_MAX = 8


class Key(NamedTuple):
    """What names a report for ever: the node's cell, the 32 random bits of its start, the report's number in it."""

    cell: Cell
    boot: int
    seq: int


def key_of(data: bytes) -> Key:
    """The name of a report.

    Raises:
        ValueError: these are not the bytes of one.
    """
    found = report.Report(data)
    return Key(sender_of(data), found.boot, found.seq)


class Gap(NamedTuple):
    """Reports that are lost: those of a node's start from `first` to `last`; None: nobody knows how many."""

    cell: Cell
    boot: int
    first: int
    last: int | None

    def has(self, key: Key) -> bool:
        """Whether a report is one of them."""
        is_of_start = (key.cell, key.boot) == (self.cell, self.boot)
        return is_of_start and self.first <= key.seq and (self.last is None or key.seq <= self.last)


class Late(NamedTuple):
    """A report that is in no cycle: it came too late for its own, or does not fit it; `frame` is all of it."""

    key: Key
    frame: bytes


class Reporter(NamedTuple):
    """What came of one node's start.

    Attributes:
        boot: which start.
        last: the highest seq that came.
        missing: those below it that may still come.
    """

    boot: int
    last: int
    missing: frozenset[int] = frozenset()

    def needs(self, seq: int) -> bool:
        """Whether a report of this start is still to come."""
        return seq > self.last or seq in self.missing


class Arrivals(NamedTuple):
    """The reports that came since the outcome before: what a store keeps beside the cycle, all or nothing of it.

    Attributes:
        in_cycle: those that the cycle's record rests on.
        late: the others.
        gaps: what is known to be lost now.
        reporters: of each node's start that something came of, what came by now; a later start stands behind.
    """

    in_cycle: tuple[Key, ...] = ()
    late: tuple[Late, ...] = ()
    gaps: tuple[Gap, ...] = ()
    reporters: tuple[tuple[Cell, Reporter], ...] = ()


class Received:
    """What came, and what of it is not kept yet."""

    def __init__(self, known: dict[Cell, list[Reporter]]):
        """`known`: of each node its starts, the latest at the end, as a store gives them."""
        self._starts = {cell: {found.boot: found for found in starts[-STARTS_MAX:]} for cell, starts in known.items()}
        self._open: dict[Key, bool] = {}  # whether older ones wait behind it
        self._in_cycle: list[Key] = []
        self._late: list[Late] = []

    def is_news(self, key: Key) -> bool:
        """Whether a report was neither kept nor taken before, and may still be."""
        reporter = self._reporter(key.cell, key.boot)
        return key not in self._open and (reporter is None or reporter.needs(key.seq))

    def start(self, cell: Cell, boot: int) -> None:
        """A node says that it started: what the start before it held is lost, also where it never reports again."""
        if self._reporter(cell, boot) is None:
            self._open.setdefault(Key(cell, boot, 0), False)

    def lacking(self) -> set[Cell]:
        """The nodes of which reports may still come that were made before others that came."""
        every = self._starts.items()
        return {cell for cell, starts in every if any(reporter.missing for reporter in starts.values())}

    def take(self, key: Key, has_older: bool) -> None:
        """A report that is news is in the cycle."""
        self._open[key] = has_older
        self._in_cycle.append(key)

    def take_late(self, key: Key, has_older: bool, frame: bytes) -> None:
        """A report that is news is in no cycle."""
        self._open[key] = has_older
        self._late.append(Late(key, frame))

    def arrivals(self) -> Arrivals:
        """All that was taken since the last call of `settle`."""
        latest: dict[Cell, Reporter] = {}
        reporters: dict[tuple[Cell, int], Reporter] = {}
        gaps: list[Gap] = []
        for key in self._in_order():
            before = reporters.get(key[:2]) or self._reporter(key.cell, key.boot)
            newest = latest.get(key.cell) or self._latest(key.cell)
            if not key.seq and newest is None:
                continue  # nothing is known that it could end
            if before is None and newest:
                gaps += _gaps(key.cell, newest.boot, newest.missing)
                gaps.append(Gap(key.cell, newest.boot, newest.last + 1, None))
                reporters[key.cell, newest.boot] = newest._replace(missing=frozenset())
            after, lost = _advance(before or Reporter(key.boot, 0), key, self._open[key])
            reporters[key.cell, key.boot] = after
            if before is None or newest is None or newest.boot == key.boot:  # else it is of an older start, and late
                latest[key.cell] = after
            gaps += lost
        pairs = tuple((cell, reporter) for (cell, _), reporter in reporters.items())
        return Arrivals(tuple(self._in_cycle), tuple(self._late), tuple(gaps), pairs)

    def settle(self, kept: Arrivals) -> None:
        """What `arrivals` gave is kept, or nothing of it is: then it was never taken."""
        for cell, reporter in kept.reporters:
            starts = self._starts.setdefault(cell, {})
            starts[reporter.boot] = reporter
            if len(starts) > STARTS_MAX:
                del starts[next(iter(starts))]
        # Reports that are not kept come again; what a node says of its start does not.
        said = {key.cell: key for key in self._open if not key.seq and self._latest(key.cell)}
        self._open = {key: False for cell, key in said.items() if self._reporter(cell, key.boot) is None}
        self._in_cycle.clear()
        self._late.clear()

    def acknowledgement(self, cell: Cell, boot: int) -> bytes:
        """What tells a node which reports of a start are kept; nothing where none is."""
        reporter = self._reporter(cell, boot)
        return report.pack_ack(boot, reporter.last, reporter.missing) if reporter else b""

    def _reporter(self, cell: Cell, boot: int) -> Reporter | None:
        return self._starts.get(cell, {}).get(boot)

    def _latest(self, cell: Cell) -> Reporter | None:
        starts = self._starts.get(cell)
        return starts[next(reversed(starts))] if starts else None

    def _in_order(self) -> list[Key]:
        """What was taken, by number, the starts that are known before those that were heard of after them."""
        order: dict[tuple[Cell, int], int] = {}
        for cell, boot, _ in self._open:
            order.setdefault((cell, boot), -1 if self._reporter(cell, boot) else len(order))
        return sorted(self._open, key=lambda key: (order[key.cell, key.boot], key.seq))


def _advance(before: Reporter, key: Key, has_older: bool) -> tuple[Reporter, list[Gap]]:
    """What came of a node's start once one more report did, and what is lost by then."""
    last = max(before.last, key.seq)
    # What is below this never comes.
    floor = max(last - WINDOW + 1, 0 if has_older else key.seq)
    lost = {seq for seq in before.missing if seq < floor} - {key.seq}
    gaps = _gaps(key.cell, key.boot, lost)
    first, end = before.last + 1, min(floor, key.seq)
    if first < end:
        gaps.append(Gap(key.cell, key.boot, first, end - 1))
    missing = before.missing - lost | set(range(max(first, floor), key.seq))
    return Reporter(key.boot, last, missing - {key.seq}), gaps


def _gaps(cell: Cell, boot: int, lost: Iterable[int]) -> list[Gap]:
    """The numbers as ranges."""
    found: list[Gap] = []
    for seq in sorted(lost):
        if found and found[-1].last == seq - 1:
            found[-1] = found[-1]._replace(last=seq)
        else:
            found.append(Gap(cell, boot, seq, seq))
    return found
