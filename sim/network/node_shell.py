"""The shell around one simulated node: what firmware/link.py does on a socket, here on the simulated network.

The node's code and its files are real. A reset throws the Node away and makes a new one of the same files.
"""

import random
from pathlib import Path
from typing import Any

from firmware import start
from firmware.node import Node
from gateway.site import Cell, Site
from protocol import frame, topic
from protocol.compat import TICKS_PERIOD
from protocol.grid import node_name
from sim.network.faults import GATEWAY

# A node's own clock starts so shortly before its ticks wrap, at each start anew.
WRAPS_WITHIN_MS = 60_000
LEAVES = ("halo", "up", "state", "about", "wave", topic.ACK)
_TICKS_MASK = TICKS_PERIOD - 1


class Sensor:
    """A sensor that knows its readings: int16 ccel by cycle number, None where it gives nothing."""

    def __init__(self, values: list[int | None]):
        """`values` begin again where they end."""
        self._values = values

    def read(self, cycle: int) -> int | None:
        """The reading of a cycle."""
        return self._values[cycle % len(self._values)]


class NodeShell:
    """One node with its files, its clock and its connection.

    Attributes:
        cell, name: which node.
        node: the real Node, None while it is down.
        path: of its flashed filter set.
        topics: halo, block, up (in the order of the destinations in firmware/stages.py), state, about, wave and
            down/ack.
        halo, block: the shells that hear its frames; filled in when all are there.
        is_entry: the gateway hands it new sets.
        connected: to the broker.
        connection: counts connections; what belongs to an older one is void.
        will_pending: the broker holds its will.
        pulled: the neighbour's cell whose wave it is subscribed to, or None.
        offered: path of the set that it published for its neighbours, or "".
        stream_free_ms: one set comes in after the other; when the next may begin.
        failures: connects that failed since the last good one.
        due_ms: when it wants to be polled next; timer_ms: when the clock looks at it next, -1 never.
        steps_left: it is reset after so many more steps of a wave; -1 never.
    """

    def __init__(self, cell: Cell, site: Site, path: Path, key: bytes, sensor: Sensor):
        """Down; `path` holds its filter set already."""
        row, col = cell
        self.cell, self.name = cell, node_name(row, col)
        self.node: Node | None = None
        self.path = str(path)
        own = [topic.of_node(site.name, row, col, leaf) for leaf in LEAVES]
        self.topics = (own[0], topic.of_member(site.name, row, col), *own[1:])
        self.halo: list[NodeShell] = []
        self.block: list[NodeShell] = []
        self.is_entry = cell in site.next_to_gateway
        self.connected = self.will_pending = False
        self.connection = 0
        self.pulled: Cell | None = None
        self.offered = ""
        self.stream_free_ms = 0
        self.failures = 0
        self.due_ms = 0
        self.timer_ms = -1
        self.steps_left = -1
        self.boots = 0
        self._site, self._key, self._sensor = site, key, sensor
        self._origin = 0

    def boot(self, now_ms: int, source: random.Random) -> None:
        """Start the node from its files, as firmware/main.py does.

        Raises:
            OSError, ValueError: as firmware.start.prepare_filters.
        """
        self.boots += 1
        filters = start.prepare_filters(self.path, self._site.name, self._key)
        exists = int(self._site.neighbour_masks[self.cell])
        self.node = Node(*self.cell, exists, filters, self._sensor, source.getrandbits(32))
        self._origin = TICKS_PERIOD - source.randrange(1, WRAPS_WITHIN_MS) - now_ms
        self.due_ms, self.timer_ms = now_ms, -1

    def reading(self, cycle: int) -> int | None:
        """What its sensor gives in a cycle."""
        return self._sensor.read(cycle)

    def ticks(self, now_ms: int) -> int:
        """What the node's own clock shows."""
        return (self._origin + now_ms) & _TICKS_MASK

    def held_reports(self) -> set[bytes]:
        """The reports that its node holds because nobody acknowledged them yet."""
        waiting = self.node.ring if self.node else []
        return {data for data in waiting if frame.kind_of(data) == frame.REPORT}

    def halt(self) -> None:
        """The node's power is gone; its files stay as they are."""
        self.node = None
        self.disconnect()

    def disconnect(self) -> None:
        """The connection is gone, and every subscription with it."""
        self.connected = False
        self.connection += 1
        self.pulled, self.offered = None, ""

    def is_subscribed(self, publisher: Cell) -> bool:
        """Whether it takes the sets of a neighbour, or of the gateway."""
        return self.connected and (self.is_entry if publisher == GATEWAY else self.pulled == publisher)

    def about(self) -> dict[str, Any]:
        """The facts that the gateway needs of it, as firmware.start.about gives them."""
        if self.node is None:
            return {"filter_version": 0}
        return {"filter_version": self.node.wave.active.version, "boot": self.node.boot}
