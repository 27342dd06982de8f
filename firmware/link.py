"""A node on a socket: moves bytes between MQTT and the machines of node.py and mqtt.py, connects again after a loss.

`Link.poll` never blocks. Whoever owns the loop (`start_node` for one node, a host for many) waits until the socket has
something or the time that `poll` returned is over, and calls again.
"""

import errno
import gc
import random
import select
import socket

from firmware import mqtt
from firmware.filters import Filters
from firmware.node import Node
from protocol.compat import const, ticks_add, ticks_diff, ticks_ms
from protocol.health import MQTT_LOST, MQTT_PACKETS_IN

BACK_OFF_MS_MIN = const(1_000)
BACK_OFF_MS_MAX = const(60_000)
# One poll reads the socket at most so often, so that a flood cannot keep a node from its deadlines.
READS_MAX = const(8)
# A wait of so long is worth tidying the heap first.
IDLE_MS = const(100)
_NOT_YET = (errno.EAGAIN, errno.EINPROGRESS, errno.ENOTCONN)
# Places among a node's topics behind the three destinations of node.py.
_STATE = const(3)
_HEALTH = const(4)


class Link:
    """One node's connection.

    Attributes:
        node: the Node.
        socket: the open socket, or None while backing off.
    """

    def __init__(self, prepared, now_ms: int):
        """Build the node of what firmware.start.prepare returned; the first poll connects."""
        (row, col, exists), self._address, session, self._topics, boot, sensor, filter_set = prepared
        self.node = Node(row, col, exists, Filters(filter_set), sensor, boot)
        self.socket: socket.socket = None
        self._client = mqtt.Client(session, self._on_message)
        self._was_ready = False
        self._failures = 0
        self._retry_ms = self._now_ms = now_ms

    @property
    def wants_write(self) -> bool:
        """Whether the socket should be watched for writing."""
        return len(self._client.out) > 0

    def poll(self, now_ms: int) -> int:
        """Do everything that is due. Returns ms until the next call is needed if the socket stays quiet."""
        self._now_ms = now_ms
        wake_ms = self._guarded(self._receive, now_ms)
        frames, node_wake_ms = self.node.poll(now_ms)
        for destination, data in frames:
            self._client.publish(self._topics[destination], data)
        if self.node.health_wanted:
            self._publish_health()
        return min(wake_ms, node_wake_ms, self._guarded(self._write, now_ms))

    def close(self) -> None:
        """Say goodbye and close."""
        if self.socket:
            self._client.disconnect(self._topics[_STATE])
            self._guarded(self._write, self._now_ms)
        if self.socket:
            self.socket.close()
            self.socket = None

    def _guarded(self, step, now_ms: int) -> int:
        """Run a step that may lose the connection. Returns ms until something is due."""
        try:
            return step(now_ms)
        except mqtt.RemoteProtocolError:
            return self._lose(now_ms)
        except OSError as error:
            return mqtt.NOTHING_DUE_MS if error.errno in _NOT_YET else self._lose(now_ms)

    def _receive(self, now_ms: int) -> int:
        if self.socket is None:
            due_ms = ticks_diff(self._retry_ms, now_ms)
            if due_ms > 0:
                return due_ms
            self._connect(now_ms)
        client = self._client
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
        ready = client.state == mqtt.READY
        if ready and not self._was_ready:
            self._failures = 0
            client.publish_surely(self._topics[_STATE], b"ready", now_ms)
        self._was_ready = ready
        return client.poll(now_ms)

    def _connect(self, now_ms: int) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self._client.start_connect(now_ms)
        try:
            self.socket.connect(socket.getaddrinfo(self._address[0], self._address[1])[0][-1])
        except OSError as error:
            if error.errno not in _NOT_YET:
                raise

    def _write(self, _now_ms: int) -> int:
        client = self._client
        if self.socket and client.out:
            client.out = client.out[self.socket.send(client.out) :]
        return mqtt.NOTHING_DUE_MS

    def _lose(self, now_ms: int) -> int:
        """Close the socket and wait before the next try: 1 s, 2 s, 4 s ... 60 s, each between half and whole."""
        if self.socket:
            self.socket.close()
            self.socket = None
        self.node.trace.fault(MQTT_LOST, self.node.cycle)
        self._was_ready = False
        self._client.drop()
        wait_ms = min(BACK_OFF_MS_MAX, BACK_OFF_MS_MIN << min(self._failures, 6))
        self._failures += 1
        wait_ms = wait_ms // 2 + random.getrandbits(15) * (wait_ms // 2) // 32768
        self._retry_ms = ticks_add(now_ms, wait_ms)
        return wait_ms

    def _on_message(self, payload) -> None:
        self.node.on_frame(payload, self._now_ms)

    def _publish_health(self) -> None:
        counters = self.node.trace.counters
        for place in range(len(self._client.counters)):
            counters[MQTT_PACKETS_IN + place] = self._client.counters[place]
        self.node.health_wanted = False
        self._client.publish(self._topics[_HEALTH], bytes(counters))


def start_node(link) -> None:
    """Run one node for ever: wait for the socket or for the time, poll, again."""
    poller = select.poll()
    watched = None
    try:
        while True:
            wait_ms = link.poll(ticks_ms())
            if link.socket is not watched:
                if watched:
                    poller.unregister(watched)
                watched = link.socket
                if watched:
                    poller.register(watched, select.POLLIN)
            if watched:
                poller.modify(watched, select.POLLIN | (select.POLLOUT if link.wants_write else 0))
            if wait_ms > IDLE_MS:
                gc.collect()  # while there is time, so that what comes finds its room in one piece
            poller.poll(wait_ms)
    except KeyboardInterrupt:
        link.close()


def receive_into(connection, room):
    """Bytes received into a buffer, or None where none are there yet: the one call that the runtimes spell apart."""
    try:
        return connection.readinto(room) if hasattr(connection, "readinto") else connection.recv_into(room)
    except OSError as error:
        if error.errno in _NOT_YET:
            return None
        raise
