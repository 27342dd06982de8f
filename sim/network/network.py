"""Broker and connections at the level of messages: who gets which frame when, and what nodes retain of themselves.

Frames, which are of QoS 0, are lost, doubled and delayed one by one (faults.py). Filter sets have sets.py.
"""

import json
import random
from collections.abc import Callable, Iterable

from firmware.stages import TO_BLOCK, TO_GATEWAY, TO_HALO
from gateway.site import Cell, Site, block_of
from protocol import frame, grid, topic
from sim.network.clock import Clock
from sim.network.faults import DELAY_MS, GATEWAY, Links
from sim.network.gateway_shell import GatewayShell
from sim.network.journal import Journal
from sim.network.node_shell import NodeShell
from sim.network.sets import Sets

_STATE, _ABOUT, _ACK = 3, 4, 6  # places in NodeShell.topics behind the three destinations
# firmware/link.py: waits 1 s, 1 s, 2 s, 2 s ... 60 s between tries, each between half and whole.
BACK_OFF_MS_MIN, BACK_OFF_MS_MAX = 1_000, 60_000
# What a connection takes from its start to the last SUBACK.
CONNECT_MS_MIN, CONNECT_MS_MAX = 20, 400
# Keepalive 30 s, after half as much again the broker gives a silent client up.
WILL_MS = 45_000


class Network:
    """The broker, everybody's connection to it, and what is under way.

    Attributes:
        clock, links, journal: as their classes say.
        shells: by cell.
        gateway: the gateway's shell.
        sets: filter sets, retained and under way.
        dirty: nodes that something came in for, to be polled at the end of this ms.
        is_up: the broker runs.
        on_frame: called with a shell, destination and frame whenever a node sends one, lost or not.
        check: called with a shell whenever its node has taken a step.
        on_report: called with each report that a node says, whether it is connected or not.
        on_told: called with the reports that a node forgot because of a beacon or an acknowledgement.
        on_fault: called with a shell and what its node raised.
    """

    def __init__(self, clock: Clock, links: Links, journal: Journal, source: random.Random):
        """A broker without anybody."""
        self.clock, self.links, self.journal = clock, links, journal
        self.shells: dict[Cell, NodeShell] = {}
        self.gateway: GatewayShell
        self.sets: Sets
        self.dirty: dict[Cell, NodeShell] = {}
        self.is_up = True
        self.on_frame: Callable[[NodeShell, int, bytes], None] = _nothing
        self.check: Callable[[NodeShell], None] = _nothing
        self.on_report: Callable[[bytes], None] = _nothing
        self.on_told: Callable[[set[bytes]], None] = _nothing
        self.on_fault: Callable[[NodeShell, Exception], None] = _raise
        self._random = source
        self._states: dict[Cell, bytes] = {}
        self._abouts: dict[Cell, bytes] = {}

    def join(self, site: Site, shells: Iterable[NodeShell], gateway: GatewayShell) -> None:
        """Take in everybody, and who hears whom; nobody is connected yet."""
        self.shells = {shell.cell: shell for shell in shells}
        self.gateway = gateway
        self.sets = Sets(self, topic.wave(site.name), self._random)
        self._cycle_topic = topic.cycle(site.name)
        for cell, shell in self.shells.items():
            around = [grid.neighbour_of(*cell, slot) for slot in range(grid.SLOTS)]
            shell.halo = [self.shells[other] for other in around if other in self.shells]
            mates = [shell, *shell.halo]  # the broker sends a node's own block frames back to it
            shell.block = [mate for mate in mates if block_of(mate.cell) == block_of(cell)]

    # Power and connections

    def boot(self, shell: NodeShell) -> None:
        """Start a node that is down; it connects soon."""
        try:
            shell.boot(self.clock.now_ms, self._random)
        except Exception as error:
            self.on_fault(shell, error)
            return
        self.journal.event(self.clock.now_ms, "boot", node=shell.name)
        shell.failures = 0
        self.dirty[shell.cell] = shell
        self.check(shell)
        self._connect_soon(shell, self._random.randint(CONNECT_MS_MIN, CONNECT_MS_MAX))

    def reset(self, shell: NodeShell, down_ms: int) -> None:
        """Cut a node's power for so long."""
        if shell.node is None:
            return
        self.journal.event(self.clock.now_ms, "reset", node=shell.name, down_ms=down_ms, wave=shell.node.wave.state)
        shell.will_pending = shell.connected
        shell.halt()
        closed = self._random.random() < 0.5  # else nobody tells the broker that the connection is gone
        self.clock.after(DELAY_MS if closed else WILL_MS, self._publish_will, shell, shell.connection)
        self.clock.after(down_ms, self.boot, shell)

    def lose_link(self, shell: NodeShell) -> None:
        """A node's connection breaks: it knows, and tries again after a while."""
        if not shell.connected or shell.node is None:
            return
        shell.disconnect()
        shell.will_pending = True
        self.clock.after(DELAY_MS, self._publish_will, shell, shell.connection)
        self._try(shell, shell.node.wave.lose_link)
        self._connect_later(shell)

    def restart_broker(self, down_ms: int) -> None:
        """The broker ends and comes back having forgotten everything."""
        self.journal.event(self.clock.now_ms, "broker down", down_ms=down_ms)
        self.is_up = False
        self._states.clear()
        self._abouts.clear()
        self.sets.forget()
        self.gateway.connected = False
        for shell in self.shells.values():
            self.lose_link(shell)
            shell.will_pending = False
        self.clock.after(down_ms, self._broker_is_up)

    def connect_gateway(self) -> None:
        """The gateway is connected: it publishes its set again, and hears what is retained."""
        gateway = self.gateway
        if not self.is_up or not gateway.is_up:
            return
        gateway.connected = True
        if gateway.wave:
            self.sets.publish(gateway.wave)
        for cell in self.shells:
            self._tell_gateway(cell)

    def cut(self, cells: frozenset[Cell]) -> None:
        """Let cells hear only each other; with none: heal, and what was held back arrives."""
        self.links.cut_off = cells
        self.journal.event(self.clock.now_ms, "cut", cells=[self.shells[cell].name for cell in sorted(cells)])
        if cells:
            return
        self.sets.release()
        if self.gateway.connected:
            for cell in self.shells:
                self._tell_gateway(cell)

    def _broker_is_up(self) -> None:
        self.is_up = True
        self.clock.after(BACK_OFF_MS_MIN, self.connect_gateway)

    def _connect_soon(self, shell: NodeShell, delay_ms: int) -> None:
        self.clock.after(delay_ms, self._connect, shell, shell.connection)

    def _connect_later(self, shell: NodeShell) -> None:
        wait_ms = min(BACK_OFF_MS_MAX, BACK_OFF_MS_MIN << min(shell.failures // 2, 6))
        shell.failures += 1
        self._connect_soon(shell, wait_ms // 2 + self._random.randint(0, wait_ms // 2) + CONNECT_MS_MIN)

    def _connect(self, shell: NodeShell, connection: int) -> None:
        if shell.node is None or shell.connection != connection:
            return
        if not self.is_up:
            self._connect_later(shell)
            return
        self._publish_will(shell, connection)  # of a connection that the broker still held for alive
        shell.connection += 1
        shell.connected, shell.failures = True, 0
        shell.stream_free_ms = self.clock.now_ms
        self._publish_kept(shell, _ABOUT, json.dumps(shell.about()).encode())
        self._publish_kept(shell, _STATE, b"ready")
        shell.node.rejoined = True
        if shell.is_entry:
            self.sets.hand(GATEWAY, shell)
        self.dirty[shell.cell] = shell

    def _publish_will(self, shell: NodeShell, connection: int) -> None:
        if shell.will_pending and shell.connection == connection and self.is_up:
            shell.will_pending = False
            self._publish_kept(shell, _STATE, b"lost")

    def _publish_kept(self, shell: NodeShell, place: int, data: bytes) -> None:
        """A node's retained state or facts."""
        kept = self._states if place == _STATE else self._abouts
        kept[shell.cell] = data
        self.journal.sent(self.clock.now_ms, shell.topics[place], data)
        self.clock.after(DELAY_MS, self._tell_gateway, shell.cell)

    def _tell_gateway(self, cell: Cell) -> None:
        if self.links.is_cut(cell, GATEWAY):
            return
        topics = self.shells[cell].topics
        for name, kept in ((topics[_STATE], self._states), (topics[_ABOUT], self._abouts)):
            if cell in kept:
                self.gateway.take(name, kept[cell])

    # Frames: QoS 0

    def publish_beacon(self, data: bytes) -> None:
        """The gateway speaks to all nodes."""
        self.journal.sent(self.clock.now_ms, self._cycle_topic, data)
        if self.gateway.connected:
            self._spread(GATEWAY, list(self.shells.values()), data)

    def publish_acknowledgement(self, cell: Cell, data: bytes) -> None:
        """The gateway speaks to one node."""
        shell = self.shells[cell]
        self.journal.sent(self.clock.now_ms, shell.topics[_ACK], data)
        if self.gateway.connected:
            for delay_ms in self.links.delays_ms(GATEWAY, cell, self.clock.now_ms):
                self.clock.after(delay_ms, self._acknowledge, shell, data)

    def poll(self, shell: NodeShell) -> None:
        """Let a node do what is due, send what it says, and remember when it wants to be polled again."""
        node, now_ms = shell.node, self.clock.now_ms
        if node is None:
            return
        try:
            frames, wake_ms = node.poll(shell.ticks(now_ms))
        except Exception as error:
            self.on_fault(shell, error)
            return
        for destination, data in frames:
            if frame.kind_of(data) == frame.REPORT:
                self.on_report(data)
            self._publish(shell, destination, data)
        if shell.connected:
            self.sets.follow(shell, node.wave)
        shell.due_ms = now_ms + (wake_ms or 1)
        if shell.timer_ms < 0 or shell.due_ms < shell.timer_ms:
            shell.timer_ms = shell.due_ms
            self.clock.after(shell.due_ms - now_ms, self._wake, shell, shell.due_ms)
        self.check(shell)

    def _wake(self, shell: NodeShell, timer_ms: int) -> None:
        """A node's timer: poll it if it still wants that; most timers are overtaken by frames."""
        if shell.timer_ms != timer_ms or shell.node is None:
            return
        shell.timer_ms = -1
        if shell.due_ms <= timer_ms:
            self.dirty[shell.cell] = shell
        else:
            shell.timer_ms = shell.due_ms
            self.clock.after(shell.due_ms - timer_ms, self._wake, shell, shell.due_ms)

    def _publish(self, shell: NodeShell, destination: int, data: bytes) -> None:
        if not shell.connected:
            return  # as the MQTT client does
        self.journal.sent(self.clock.now_ms, shell.topics[destination], data)
        self.on_frame(shell, destination, data)
        if destination == TO_HALO:
            self._spread(shell.cell, shell.halo, data)
        elif destination == TO_BLOCK:
            self._spread(shell.cell, shell.block, data)
        elif destination == TO_GATEWAY:
            delays_ms = self.links.delays_ms(shell.cell, GATEWAY, self.clock.now_ms)
            for delay_ms in delays_ms:
                self.clock.after(delay_ms, self.gateway.take, shell.topics[destination], data)

    def _spread(self, publisher: Cell, subscribers: list[NodeShell], data: bytes) -> None:
        clock, links = self.clock, self.links
        if links.perfect:
            clock.after(DELAY_MS, self._deliver, subscribers, data)
            return
        for shell in subscribers:
            for delay_ms in links.delays_ms(publisher, shell.cell, clock.now_ms):
                clock.after(delay_ms, self._deliver, (shell,), data)

    def _deliver(self, subscribers: Iterable[NodeShell], data: bytes) -> None:
        now_ms, dirty = self.clock.now_ms, self.dirty
        for shell in subscribers:
            if shell.connected and shell.node is not None:
                held = shell.held_reports() if frame.kind_of(data) == frame.BEACON else None
                try:
                    shell.node.on_frame(data, shell.ticks(now_ms))
                except Exception as error:
                    self.on_fault(shell, error)
                if held:
                    self.on_told(held - shell.held_reports())
                dirty[shell.cell] = shell

    def _acknowledge(self, shell: NodeShell, data: bytes) -> None:
        node = shell.node
        if shell.connected and node is not None:
            held = shell.held_reports()
            self._try(shell, lambda _now_ms: node.on_acknowledgement(data))
            self.on_told(held - shell.held_reports())

    def _try(self, shell: NodeShell, action: Callable[[int], None]) -> None:
        try:
            action(shell.ticks(self.clock.now_ms))
        except Exception as error:
            self.on_fault(shell, error)
        self.dirty[shell.cell] = shell


def _nothing(*_: object) -> None:
    """Nobody looks."""


def _raise(_shell: NodeShell, error: Exception) -> None:
    raise error
