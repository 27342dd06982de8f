"""What the broker handed on: every report, and every word that told a node that some of its reports are stored.

Who listens has a connection of its own and hears what nodes and gateway hear, in the broker's order. What is missed
while the broker is away weakens the trial and cannot make it fail: nothing is concluded from what was not heard.
"""

import struct
from typing import NamedTuple

from gateway.received import Key, key_of
from gateway.site import Cell, block_of
from protocol import beacon, frame, report, topic
from protocol.grid import parse_node_name

# (run, cycle): one gateway counts both upwards, so the order of cycles is the order of these.
Cycle = tuple[int, int]


class Made(NamedTuple):
    """A report that a node made: its cycle, and its bytes as they were said last."""

    cycle: Cycle
    data: bytes


def topics(site_name: str) -> list[str]:
    """Where all that counts is said, as topic filters."""
    return [topic.cycle(site_name), topic.of_nodes(site_name, "up"), topic.of_nodes(site_name, topic.ACK)]


class Said:
    """What was heard so far.

    Attributes:
        made: reports by name.
        bits: by the cycle that a beacon's bitmap speaks of, the cycle that the beacon opens, and its bytes.
        acks: node, bytes, and the cycle of the beacon that followed: what it speaks of was stored before.
        calm: beacons in a row that no acknowledgement stood before.
    """

    def __init__(self) -> None:
        """Nothing."""
        self.made: dict[Key, Made] = {}
        self.bits: dict[Cycle, tuple[Cycle, bytes]] = {}
        self.acks: list[tuple[Cell, bytes, Cycle]] = []
        self.calm = 0
        self._run = 0
        self._pending: list[tuple[Cell, bytes]] = []

    def note(self, name: str, data: bytes) -> None:
        """Take in a message."""
        leaf = name.rpartition("/")[2]
        if leaf == "cycle":
            self._note_beacon(data)
        elif leaf == "ack":
            self._pending.append((_cell_of(name), data))
        elif leaf == "up" and frame.kind_of(data) == frame.REPORT:
            self._note_report(data)

    def told(self) -> dict[Key, Cycle]:
        """The reports whose node was told that they are stored; by which beacon's cycle at the latest they were.

        A bit speaks of none whose node heard no beacon of its cycle; of two others of one cycle and node, of the first.
        """
        found: dict[Key, Cycle] = {}
        first: set[tuple[Cell, int, Cycle]] = set()
        for key, (cycle, said) in sorted(self.made.items()):
            if report.has_mark(said, report.NO_BEACON):
                continue
            by, data = self.bits.get(cycle, ((0, 0), b""))
            is_first = (key.cell, key.boot, cycle) not in first
            first.add((key.cell, key.boot, cycle))
            if data and is_first and beacon.acknowledged(data, *block_of(key.cell)):
                found[key] = by
        return found

    def told_alone(self) -> dict[Key, Cycle]:
        """The same for words to one node; they may speak of what that node had given up, too."""
        found: dict[Key, Cycle] = {}
        for cell, data, by in self.acks:
            boot, seq = struct.unpack_from("<II", data, 4)
            for before in range(report.ACK_WINDOW):
                key = Key(cell, boot, seq - before)
                made = self.made.get(key)
                if made and report.is_acknowledged(data, made.data):
                    found[key] = min(by, found.get(key, by))
        return found

    def _note_beacon(self, data: bytes) -> None:
        fields = beacon.unpack(data)  # type: ignore[no-untyped-call]  # MicroPython has no typing
        if fields is None or fields.flags & beacon.OPENS_NOTHING:
            return
        opened = fields.run, fields.cycle
        self._run = fields.run
        if fields.cycle:  # the first of a run speaks of no cycle yet, by the number of its own
            self.bits.setdefault((fields.run, fields.acked_cycle), (opened, data))
        self.acks += [(cell, ack, opened) for cell, ack in self._pending]
        self.calm = 0 if self._pending else self.calm + 1
        self._pending = []

    def _note_report(self, data: bytes) -> None:
        away = (frame.run_of(data) - self._run + 128 & 0xFF) - 128
        cycle = self._run + away, frame.cycle_of(data, 0)
        self.made[key_of(data)] = Made(cycle, data)


def _cell_of(name: str) -> Cell:
    node = name.split("/")[-3]
    return parse_node_name(node)
