"""Filter sets between gateway, broker and nodes: who is subscribed to whose, and how the bytes come in.

Messages of QoS 1 come in order on a connection or not at all, so what goes wrong with them is the connection; over a
cut they wait until it heals.
"""

import random
from pathlib import Path
from typing import TYPE_CHECKING

from firmware.wave import Wave
from gateway.site import Cell
from protocol import grid
from sim.network.faults import DELAY_MS, GATEWAY
from sim.network.node_shell import NodeShell

if TYPE_CHECKING:
    from sim.network.network import Network

_WAVE = 5  # place in NodeShell.topics
# A set comes in pieces, as a socket gives them; firmware/mqtt.py hands on no first piece below 8 bytes.
PIECE_MIN, PIECE_MAX, PIECE_MS_MAX = 8, 256, 20


class Sets:
    """What the broker retains of the wave, and the sets that are under way."""

    def __init__(self, network: "Network", wave_topic: str, source: random.Random):
        """Nothing is retained yet. `network` breaks connections; `wave_topic` is the gateway's."""
        self._network, self._wave_topic, self._random = network, wave_topic, source
        self._retained: dict[Cell, bytes] = {}
        self._held: list[tuple[Cell, NodeShell]] = []

    def publish(self, data: bytes) -> None:
        """The gateway's set."""
        self._retain(GATEWAY, self._wave_topic, data)

    def follow(self, shell: NodeShell, wave: Wave) -> None:
        """Keep a connected node's subscription and its retained set at what it wants, as firmware/link.py does."""
        wanted = grid.neighbour_of(*shell.cell, wave.slot) if wave.slot >= 0 else None
        if shell.pulled != wanted:
            shell.pulled = wanted
            if wanted is not None:
                self._network.clock.after(DELAY_MS, self.hand, wanted, shell)
        if shell.offered != wave.offers:
            shell.offered = wave.offers
            if wave.offers:
                data = Path(wave.offers).read_bytes()
                self._network.clock.after(DELAY_MS, self._retain_of, shell, shell.connection, data)

    def hand(self, publisher: Cell, shell: NodeShell) -> None:
        """Send a subscriber the set that is retained, in pieces, behind whatever still comes in on its connection."""
        data = self._retained.get(publisher)
        if data is None or not shell.is_subscribed(publisher):
            return
        clock, links, draw = self._network.clock, self._network.links, self._random.randint
        if links.is_cut(publisher, shell.cell):
            self._held.append((publisher, shell))
            return
        at_ms, at = max(clock.now_ms + DELAY_MS, shell.stream_free_ms), 0
        breaks_at = draw(0, len(data) - 1) if links.breaks() else len(data)
        copies = data * 2 if links.repeats() else data
        while at < len(copies):
            size = min(draw(PIECE_MIN, PIECE_MAX), len(data) - at % len(data))
            if at + size > breaks_at and breaks_at < len(data):
                clock.after(at_ms - clock.now_ms, self._network.lose_link, shell)
                break
            piece = copies[at : at + size]
            clock.after(at_ms - clock.now_ms, self._feed, shell, shell.connection, at % len(data), len(data), piece)
            at_ms, at = at_ms + draw(0, PIECE_MS_MAX), at + size
        shell.stream_free_ms = at_ms + 1

    def release(self) -> None:
        """The cut is healed: what was held back arrives."""
        held, self._held = self._held, []
        for publisher, shell in held:
            self.hand(publisher, shell)

    def forget(self) -> None:
        """The broker restarts."""
        self._retained.clear()
        self._held.clear()

    def _retain(self, publisher: Cell, name: str, data: bytes) -> None:
        network = self._network
        self._retained[publisher] = data
        network.journal.sent(network.clock.now_ms, name, data)
        for shell in network.shells.values() if publisher == GATEWAY else network.shells[publisher].halo:
            if shell.is_subscribed(publisher):
                self.hand(publisher, shell)

    def _retain_of(self, shell: NodeShell, connection: int, data: bytes) -> None:
        if shell.connection == connection:
            self._retain(shell.cell, shell.topics[_WAVE], data)
            self._network.dirty[shell.cell] = shell  # the PUBACK wakes it

    def _feed(self, shell: NodeShell, connection: int, at: int, size: int, piece: bytes) -> None:
        if shell.node is None or shell.connection != connection:
            return
        network = self._network
        try:
            shell.node.wave.feed(at, size, piece, shell.ticks(network.clock.now_ms))
        except Exception as error:
            network.on_fault(shell, error)
        network.dirty[shell.cell] = shell
        network.check(shell)
