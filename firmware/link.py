"""A node on a socket: moves bytes between MQTT and the machines of node.py and mqtt.py, connects again after a loss.

`Link.poll` never blocks, but to look up the name of a broker that is not given as an address. Whoever owns the loop
(`start_node` for one node, a host for many) waits until the socket has something or the time that `poll` returned is
over, and calls again.
"""

import errno
import random
import select
import socket

from firmware import mqtt
from firmware.node import Node
from firmware.stages import TO_GATEWAY
from protocol import frame, grid
from protocol.compat import cold, const, ticks_add, ticks_diff, ticks_ms
from protocol.health import MQTT_LOST, MQTT_PACKETS_IN, STRANGER

BACK_OFF_MS_MIN = const(1_000)
BACK_OFF_MS_MAX = const(60_000)
# One poll reads the socket at most so often, so that a flood cannot keep a node from its deadlines.
READS_MAX = const(8)
# Where TLS waits, nothing tells for what: so often it is tried again.
TLS_MS = const(20)
_NOT_YET = (errno.EAGAIN, errno.EINPROGRESS, errno.ENOTCONN)
# The place among a node's topics behind the three destinations of stages.py: how all nodes' topics begin.
_NODES = const(3)
# How topics end that a node listens to: cycle, n/<id>/down/ack.
_CYCLE_END = const(101)
_ACK_END = const(107)


class Link:
    """One node's connection.

    Attributes:
        node: the Node.
        socket: the open socket, or None while backing off.
    """

    @cold
    def __init__(self, prepared, now_ms: int):
        """Build the node of what firmware.start.prepare returned; the first poll connects."""
        (row, col, exists), self._address, self._tls, session, self._topics, boot, sensor, filters = prepared
        self.node = Node(row, col, exists, filters, sensor, boot)
        self.socket: socket.socket = None
        self._client = mqtt.Client(session, self._on_message, self._on_set)
        self._was_ready = False
        self._pulled = -1  # the neighbour whose wave is subscribed to
        self._offered = ""  # the file that was published for neighbours
        self._failures = 0
        self._retry_ms = self._now_ms = now_ms

    @property
    def wants_write(self) -> bool:
        """Whether the socket should be watched for writing."""
        if self._tls and self._tls.waits:
            return False
        return len(self._client.out) > 0 or self._client.file is not None

    def poll(self, now_ms: int) -> int:
        """Do everything that is due. Returns ms until the next call is needed if the socket stays quiet."""
        self._now_ms = now_ms
        wake_ms = self._guarded(self._receive, now_ms)
        frames, node_wake_ms = self.node.poll(now_ms)
        for destination, data in frames:
            self._client.publish(self._topics[destination], data)
        if self.node.health_wanted:
            self._publish_health()
        wake_ms = min(wake_ms, node_wake_ms, self._guarded(self._keep_up, now_ms))
        return min(wake_ms, self._guarded(self._write, now_ms))

    def close(self) -> None:
        """Say goodbye and close."""
        if self.socket:
            self._client.disconnect(self._own_topic(b"state"))
            self._guarded(self._write, self._now_ms)
        if self.socket:
            self.socket.close()
            self.socket = None

    def _guarded(self, step, now_ms: int) -> int:
        """Run a step that may lose the connection. Returns ms until something is due."""
        try:
            return step(now_ms)
        except (mqtt.RemoteProtocolError, MemoryError):
            return self._lose(now_ms)
        except OSError as error:
            return mqtt.NOTHING_DUE_MS if error.errno in _NOT_YET else self._lose(now_ms)

    def _receive(self, now_ms: int) -> int:
        if self.socket is None:
            due_ms = ticks_diff(self._retry_ms, now_ms)
            if due_ms > 0:
                return due_ms
            self._connect(now_ms)
        client, wake_ms = self._client, mqtt.NOTHING_DUE_MS
        for _ in range(READS_MAX):
            room = client.room()
            count = receive_into(self.socket, room)
            if count is None:
                break
            if count == 0:
                raise OSError(errno.ECONNRESET)
            client.feed(count, now_ms)
            if count < len(room):
                break
        else:
            wake_ms = 0  # TLS may hold more than the socket shows
        if not self._was_ready and client.state == mqtt.READY:
            self._begin(now_ms)
        return wake_ms

    @cold
    def _begin(self, now_ms: int) -> None:
        """The broker listens."""
        self._failures = 0
        self._client.publish_surely(self._own_topic(b"state"), b"ready", now_ms)
        self._was_ready = True
        self.node.rejoined = True

    @cold
    def _connect(self, now_ms: int) -> None:
        every = socket.getaddrinfo(self._address[0], self._address[1])
        found = every[self._failures % len(every)]  # one may be of a protocol that the broker does not listen to
        self.socket = raw = socket.socket(found[0])
        raw.setblocking(False)
        if self._tls:
            self.socket = self._tls.secured(raw)
        self._client.start_connect(now_ms)
        try:  # on CPython the secured socket has taken the raw one's place, on MicroPython it cannot connect
            (self.socket if hasattr(self.socket, "connect") else raw).connect(found[-1])
        except OSError as error:
            if error.errno not in _NOT_YET:
                raise

    def _keep_up(self, now_ms: int) -> int:
        wave = self.node.wave
        if self._was_ready:
            if self._pulled != wave.slot:
                self._follow_pull()
            if self._offered != wave.offers:
                self._follow_offer(now_ms)  # first of all: what is offered no more must not be repeated
        return self._client.poll(now_ms)

    def _write(self, _now_ms: int) -> int:
        client = self._client
        if self.socket:
            if client.file and not client.out:
                client.refill()
            if client.out:
                sent = self._tls.send_some(client.out) if self._tls else self.socket.send(client.out)
                client.out = client.out[sent:]
                if not sent:
                    return TLS_MS
        return mqtt.NOTHING_DUE_MS

    @cold
    def _lose(self, now_ms: int) -> int:
        """Close the socket and wait before the next try: 1 s, 1 s, 2 s, 2 s ... 60 s, each between half and whole."""
        if self.socket:
            self.socket.close()
            self.socket = None
        self.node.trace.fault(MQTT_LOST)
        self.node.wave.lose_link(now_ms)
        self._client.withdraw(self._own_topic(b"wave"))  # offered again when connected: the broker may have lost it
        self._was_ready = False
        self._pulled, self._offered = -1, ""
        self._client.drop()
        wait_ms = min(BACK_OFF_MS_MAX, BACK_OFF_MS_MIN << min(self._failures // 2, 6))
        self._failures += 1
        wait_ms = wait_ms // 2 + random.getrandbits(15) * (wait_ms // 2) // 32768
        self._retry_ms = ticks_add(now_ms, wait_ms)
        return wait_ms

    def _own_topic(self, leaf: bytes) -> bytes:
        """The node's topic for a leaf; each that is kept costs the heap 80 bytes."""
        return self._topics[TO_GATEWAY][: -len(b"up")] + leaf

    def _on_message(self, name, payload) -> None:
        """Take in what comes on a topic; the broker lets nobody speak where somebody else should."""
        if name[-1] == _ACK_END:
            self.node.on_acknowledgement(payload)
        elif self._is_owners(name, payload):
            self.node.on_frame(payload, self._now_ms)
        else:
            self.node.trace.fault(STRANGER)

    def _is_owners(self, name, data) -> bool:
        """Whether a frame may come on this topic: a beacon from the gateway, all else from the node in its header."""
        if len(data) < frame.HEADER_SIZE:
            return True  # the node finds that it is no frame
        if data[0] & 0x0F == frame.BEACON:
            return name[-1] == _CYCLE_END
        # It may be the beginning of a longer name: of a node that is no neighbour of who hears that one.
        return grid.node_name(frame.row_of(data), frame.col_of(data)).encode() in bytes(name)

    def _on_set(self, at: int, size: int, data) -> None:
        if at or not self._client.file:  # the set could take the place of the one that is on its way out
            self.node.wave.feed(at, size, data, self._now_ms)

    @cold
    def _follow_pull(self) -> None:
        """Subscribe to the neighbour that the node pulls from, and to no other."""
        before, self._pulled = self._pulled, self.node.wave.slot
        for slot in (before, self._pulled):
            if slot >= 0:
                row, col = grid.neighbour_of(self.node.row, self.node.col, slot)
                name = self._topics[_NODES] + (grid.node_name(row, col) + "/wave").encode()
                self._client.subscribe(name, slot == self._pulled)

    @cold
    def _follow_offer(self, now_ms: int) -> None:
        """Publish the set that the node offers."""
        self._offered = self.node.wave.offers
        if self._offered:
            self._client.publish_file(self._own_topic(b"wave"), self._offered, now_ms)
        else:
            self._client.withdraw(self._own_topic(b"wave"))

    @cold
    def _publish_health(self) -> None:
        counters = self.node.trace.counters
        for place in range(len(self._client.counters)):
            counters[MQTT_PACKETS_IN + place] = self._client.counters[place]
        self.node.health_wanted = False
        self._client.publish(self._own_topic(b"health"), bytes(counters))


def start_node(link) -> None:
    """Run one node for ever: wait for the socket or for the time, poll, again."""
    try:
        while True:
            wait_ms = link.poll(ticks_ms())
            poller = select.poll()  # a new one: the socket of before may be closed by now
            if link.socket:
                poller.register(link.socket, select.POLLIN | (select.POLLOUT if link.wants_write else 0))
            poller.poll(wait_ms)
    finally:
        link.close()


def receive_into(connection, room):
    """Bytes received into a buffer, or None where none are there yet: the one call that the runtimes spell apart."""
    try:
        return connection.readinto(room) if hasattr(connection, "readinto") else connection.recv_into(room)
    except OSError as error:
        if error.errno in _NOT_YET:
            return None
        raise
