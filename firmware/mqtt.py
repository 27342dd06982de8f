"""An MQTT 3.1.1 client without I/O (OASIS standard, 29 October 2014): bytes in, messages and bytes out.

QoS 0 and 1 both ways, will, keepalive, one SUBSCRIBE per connection and single topics that come and go. The shell moves
bytes between a socket and `room()`/`feed()` and `out`, and calls `poll` when its time has come. A packet that is longer
than the input buffer is skipped and counted, never stored; only what comes on a topic `.../wave` may be longer, for it
is handed on piece by piece. A file goes out piece by piece too, and packets wait behind the last one. A broken promise
of the broker raises `RemoteProtocolError`: close and connect again.
"""

import errno
import struct
from array import array

from protocol.compat import cold, const, ticks_diff
from protocol.filter_set import OPENING_SIZE

OFF = const(0)
CONNECTING = const(1)  # CONNECT sent
SUBSCRIBING = const(2)  # CONNACK came, SUBSCRIBE sent
READY = const(3)  # SUBACK came
# What may follow each state, a mask of states.
_MAY_FOLLOW = (1 << CONNECTING, 1 << SUBSCRIBING | 1 << OFF, 1 << READY | 1 << OFF, 1 << OFF)

_CONNACK = const(2)
_PUBLISH = const(3)
_PUBACK = const(4)
_SUBACK = const(9)
_UNSUBACK = const(11)
_PINGREQ = const(12)
_PINGRESP = const(13)
_DISCONNECT = const(14)
_SUBSCRIBE = const(0x82)
_UNSUBSCRIBE = const(0xA2)

# The longest packet a node is meant to get is a beacon of 286 bytes and its topic of 44.
IN_MAX = const(352)
# What may wait for a broker that does not read: a cycle's frames and no more.
OUT_MAX = const(1024)
# An answer that does not come within this time: repeat a PUBLISH, give up a connection.
ANSWER_MS = const(20_000)
# A file goes out in pieces of this many bytes.
_PIECE = const(128)
NOTHING_DUE_MS = const(60_000)
# Places in `counters`, in the order of protocol/health.py.
_PACKETS_IN = const(0)
_BYTES_IN = const(1)
_PACKETS_OUT = const(2)
_BYTES_OUT = const(3)
_SKIPPED = const(4)
_WRAP_MASK = const((1 << 30) - 1)


class RemoteProtocolError(Exception):
    """The broker refused us, or sent what MQTT 3.1.1 does not allow here."""


class Client:
    """One connection after another to one broker.

    Attributes:
        state: OFF, CONNECTING, SUBSCRIBING or READY.
        out: bytes for the socket; the shell removes what it has sent.
        file: the open file whose pieces follow, or None; the shell calls `refill` when `out` is empty.
        counters: MQTT's own traffic, headers and topics included: packets in, bytes in, packets out, bytes out, packets
            skipped because they were too long, found no room or their file could not be opened; modulo 2^30.
    """

    @cold
    def __init__(self, session, on_message, on_set):
        """Nothing is connected yet.

        Args:
            session: keepalive_s and the packets of firmware/mqtt_session.py.
            on_message: called with topic and payload, memoryviews.
            on_set: called with (offset, size of the whole payload, bytes from that offset) for topics `.../wave`, the
                first time with OPENING_SIZE bytes at least, where there are so many.
        """
        self.state = OFF
        self.out = bytearray()
        self.file = None
        self._file_left = 0
        self._behind = bytearray()  # what waits for the file's end
        self.counters = array("I", bytes(4 * 5))
        keepalive_s, self._connect, self._subscribe, facts = session
        self._keepalive_ms = keepalive_s * 1000
        self._on_message = on_message
        self._on_set = on_set
        self._set_at = self._set_size = 0
        self._set_ack = b""
        self._in = memoryview(bytearray(IN_MAX))
        self._fill = 0
        self._skip = 0
        self._packet_id = 2  # the first two stand in the session's packets
        self._waiting = [[2, facts, 0, b"", ""]]  # packet id, packet, ms when it was last sent, topic, file behind it
        self._heard_ms = self._spoke_ms = 0

    # The connection

    @cold
    def start_connect(self, now_ms: int) -> None:
        """Begin on a fresh socket: queue CONNECT."""
        self._go(CONNECTING)
        self._fill = self._skip = self._set_at = self._set_size = 0
        self._heard_ms = self._spoke_ms = now_ms
        self._queue_packet(self._connect)

    @cold
    def drop(self) -> None:
        """The socket is gone. Messages of QoS 1 without PUBACK are kept for the next connection."""
        self.out = bytearray()
        self._end_file()
        if self.state != OFF:
            self._go(OFF)

    @cold
    def disconnect(self, state_topic: bytes) -> None:
        """Queue a clean goodbye, and the state that replaces the will, which the broker will not publish now."""
        if self.state == READY:
            self._queue_packet(packet_of(_PUBLISH << 4 | 1, field(state_topic) + b"disconnected"))
            self._queue(_DISCONNECT << 4, 0)

    def publish(self, topic: bytes, payload) -> None:
        """Queue a message with QoS 0; dropped where there is no connection, or the broker stopped reading."""
        if self.state == READY:
            size = 2 + len(topic) + len(payload)
            if len(self.out) + len(self._behind) + size > OUT_MAX:
                self._count(_SKIPPED, 1)
                return
            self._queue(_PUBLISH << 4, size, struct.pack(">H", len(topic)), topic, payload)

    @cold
    def publish_surely(self, topic: bytes, payload, now_ms: int) -> None:
        """Queue a retained message with QoS 1: it is repeated until its PUBACK, over connections.

        One that still waits on the same topic is replaced, for the broker keeps the last one only.
        """
        self._publish_retained(topic, payload, "", now_ms)

    @cold
    def publish_file(self, topic: bytes, path: str, now_ms: int) -> None:
        """Queue a retained message with QoS 1 whose payload is the content of a file.

        The file is read each time the message goes out, one that cannot be opened is tried again like a message without
        PUBACK. `withdraw` the message before the file changes, and change it only while `file` is None.
        """
        self._publish_retained(topic, b"", path, now_ms)

    @cold
    def withdraw(self, topic: bytes) -> None:
        """Repeat no message on this topic any more."""
        self._waiting = [entry for entry in self._waiting if entry[3] != topic]

    @cold
    def subscribe(self, topic: bytes, wanted: bool) -> None:
        """Ask for a topic with QoS 1, or ask no more, for this connection only."""
        self._packet_id = self._packet_id % 0xFFFF + 1
        body = struct.pack(">H", self._packet_id) + field(topic)
        self._queue_packet(packet_of(_SUBSCRIBE, body + b"\x01") if wanted else packet_of(_UNSUBSCRIBE, body))

    @cold
    def _publish_retained(self, topic: bytes, payload, path: str, now_ms: int) -> None:
        self.withdraw(topic)
        self._packet_id = self._packet_id % 0xFFFF + 1
        body = field(topic) + struct.pack(">H", self._packet_id) + payload
        # The length of a file's message is put in when the file is open.
        packet = bytes((_PUBLISH << 4 | 3,)) + body if path else packet_of(_PUBLISH << 4 | 3, body)
        self._waiting.append([self._packet_id, packet, now_ms, topic, path])
        if self.state == READY:
            self._send_entry(self._waiting[-1], now_ms)

    def poll(self, now_ms: int) -> int:
        """Keep the connection alive and repeat what was not answered. Returns ms until the next poll is needed.

        Raises:
            RemoteProtocolError: the broker has been silent for too long.
        """
        if self.state == OFF:
            return NOTHING_DUE_MS
        silent_ms = ticks_diff(now_ms, self._heard_ms)
        limit_ms = self._keepalive_ms * 3 // 2 if self.state == READY else ANSWER_MS
        if silent_ms > limit_ms:
            raise RemoteProtocolError("the broker is silent")
        due_ms = limit_ms - silent_ms + 1
        if self.state == READY:
            due_ms = min(due_ms, self._repeat_if_due(now_ms), self._ping_if_due(now_ms))
        return due_ms

    # Bytes in

    def room(self):
        """Where the shell may put received bytes, a memoryview of at least one byte."""
        return self._in[self._fill :]

    def feed(self, count: int, now_ms: int) -> None:
        """Take in `count` bytes that were put into `room()`.

        Raises:
            RemoteProtocolError: they break the protocol.
        """
        self._heard_ms = now_ms
        self._count(_BYTES_IN, count)
        end = self._fill + count
        at = min(self._skip, end)
        self._skip -= at
        while at < end:
            if self._set_size:
                at = self._take_set(at, end)
                continue
            head, size = _packet_size(self._in, at, end)
            behind = at + head + size
            is_set = head and self._is_set(at, at + head, min(end, behind))
            if is_set:
                opened = self._open_set(at, at + head, size, end)
                if opened == at:
                    break
                at = opened
            elif head and head + size > IN_MAX and is_set is not None:
                self._count(_SKIPPED, 1)
                self._skip = behind - end
                at = end
            elif head == 0 or behind > end:
                break
            else:
                self._count(_PACKETS_IN, 1)
                self._take(self._in[at], at + head, size, now_ms)
                at = behind
        if at and at < end:
            self._in[: end - at] = self._in[at:end]
        self._fill = end - at

    def _take(self, first: int, at: int, size: int, now_ms: int) -> None:
        kind = first >> 4
        body = self._in[at : at + size]
        if kind == _PUBLISH and self.state in (SUBSCRIBING, READY):
            self._take_publish(first, body)
        else:
            self._take_answer(kind, body, now_ms)

    @cold
    def _take_answer(self, kind: int, body, now_ms: int) -> None:
        size = len(body)
        if kind == _CONNACK and self.state == CONNECTING and size == 2:
            if body[1]:
                raise RemoteProtocolError("the broker refuses us, code %d" % body[1])
            self._go(SUBSCRIBING)
            self._queue_packet(self._subscribe)
        elif kind == _SUBACK and self.state == SUBSCRIBING:
            if 0x80 in bytes(body[2:]):
                raise RemoteProtocolError("the broker refuses a subscription")
            self._go(READY)
            self._repeat_all(now_ms)
        elif kind == _PUBACK and size == 2:
            packet_id = body[0] << 8 | body[1]
            self._waiting = [entry for entry in self._waiting if entry[0] != packet_id]
        elif self.state == READY and kind in (_SUBACK, _UNSUBACK):
            return  # a refused neighbour's wave never comes; whoever waits for it knows when to give up
        elif kind != _PINGRESP:
            raise RemoteProtocolError("packet of kind %d out of place" % kind)

    def _take_publish(self, first: int, body) -> None:
        qos = first >> 1 & 3
        at = 2 + (body[0] << 8 | body[1]) if len(body) >= 2 else 3
        start = at + (2 if qos else 0)
        if at < 3 or start > len(body) or qos > 1:
            raise RemoteProtocolError("malformed PUBLISH")
        if qos:
            self._queue(_PUBACK << 4, 2, body[at:start])
        self._on_message(body[2:at], body[start:])

    def _is_set(self, at: int, body: int, end: int) -> bool:
        """Whether a PUBLISH on a topic ending in "ve", as "wave", begins at `at`; None: that is not all there yet."""
        packet = self._in
        if packet[at] >> 4 != _PUBLISH:
            return False
        last = body + 1 + (packet[body] << 8 | packet[body + 1]) if body + 2 <= end else end
        if last >= end:
            return None if last - at < IN_MAX else False
        return packet[last] == 101 and packet[last - 1] == 118

    @cold
    def _open_set(self, at: int, body: int, size: int, end: int) -> int:
        """Begin to hand on a long payload. Returns where it begins, `at` if too little of it is there."""
        start = body + 2 + (self._in[body] << 8 | self._in[body + 1])
        behind = body + size
        acked = start + (2 if self._in[at] >> 1 & 3 else 0)
        if acked > behind:
            raise RemoteProtocolError("malformed PUBLISH")
        if end < min(behind, acked + OPENING_SIZE):
            return at
        self._set_ack = bytes(self._in[start:acked])
        self._set_at, self._set_size = 0, behind - acked
        self._count(_PACKETS_IN, 1)
        if acked == behind and self._set_ack:  # nothing: a set was withdrawn
            self._queue(_PUBACK << 4, 2, self._set_ack)
        return acked

    def _take_set(self, at: int, end: int) -> int:
        """Hand on what is there of a long payload. Returns where it ends."""
        end = min(end, at + self._set_size - self._set_at)
        self._on_set(self._set_at, self._set_size, self._in[at:end])
        self._set_at += end - at
        if self._set_at == self._set_size:
            self._set_size = 0
            if self._set_ack:
                self._queue(_PUBACK << 4, 2, self._set_ack)
        return end

    # Bytes out

    def _ping_if_due(self, now_ms: int) -> int:
        due_ms = self._keepalive_ms // 2 - ticks_diff(now_ms, self._spoke_ms)
        if due_ms > 0:
            return due_ms
        self._ping(now_ms)
        return self._keepalive_ms // 2

    @cold
    def _ping(self, now_ms: int) -> None:
        self._queue(_PINGREQ << 4, 0)
        self._spoke_ms = now_ms

    def _repeat_if_due(self, now_ms: int) -> int:
        reads = not self.out and not self.file  # else what was not answered may be on its way still
        due_ms = NOTHING_DUE_MS
        for entry in self._waiting:
            left_ms = ANSWER_MS + 1 - ticks_diff(now_ms, entry[2])
            if left_ms <= 0 and reads:
                self._send_entry(entry, now_ms)
                left_ms = ANSWER_MS + 1
            if left_ms > 0:
                due_ms = min(due_ms, left_ms)
        return due_ms

    @cold
    def _repeat_all(self, now_ms: int) -> None:
        """Send what waits for its PUBACK: for the first time, or again on a new connection."""
        for entry in self._waiting:
            self._send_entry(entry, now_ms)

    @cold
    def _send_entry(self, entry, now_ms: int) -> None:
        entry[2] = now_ms
        if not entry[4]:
            self._queue_packet(entry[1])
        elif not self._open_file(entry[4], entry[1]):
            self._count(_SKIPPED, 1)
            return
        entry[1] = bytes((entry[1][0] | 8,)) + entry[1][1:]  # the next time it goes out as a duplicate

    def _queue(self, first: int, size: int, *parts) -> None:
        """Queue a packet whose parts make up `size` bytes; they are copied once, for a node has no room for twice."""
        head, out = header_of(first, size), self._end_of_out()
        out.extend(head)
        for part in parts:
            out.extend(part)
        self._count(_PACKETS_OUT, 1)
        self._count(_BYTES_OUT, len(head) + size)

    @cold
    def _queue_packet(self, packet) -> None:
        self._end_of_out().extend(packet)
        self._count(_PACKETS_OUT, 1)
        self._count(_BYTES_OUT, len(packet))

    def _end_of_out(self):
        return self._behind if self.file else self.out

    @cold
    def _open_file(self, path: str, start: bytes) -> bool:
        """Queue the start of a file's message: its first byte, then what comes behind its length. False: not now."""
        if self.file:
            return False
        try:
            file = open(path, "rb")  # noqa: SIM115  closed by `_end_file`
            size = file.seek(0, 2)
            file.seek(0)
        except OSError:
            return False
        self._queue_packet(header_of(start[0], len(start) - 1 + size) + start[1:])
        self.file, self._file_left = file, size
        return True

    @cold
    def refill(self) -> None:
        """Put the next piece of the open file into the empty `out`, behind the last one all that waited for it.

        Raises:
            OSError: it does not give what was announced; the connection is of no use any more.
        """
        piece = self.file.read(min(_PIECE, self._file_left))
        if not piece and self._file_left:
            raise OSError(errno.EIO)
        self.out.extend(piece)
        self._count(_BYTES_OUT, len(piece))
        self._file_left -= len(piece)
        if not self._file_left:
            self.out.extend(self._behind)
            self._end_file()

    @cold
    def _end_file(self) -> None:
        if self.file:
            self.file.close()
            self.file = None
            self._behind = bytearray()

    def _count(self, place: int, amount: int) -> None:
        self.counters[place] = (self.counters[place] + amount) & _WRAP_MASK

    def _go(self, state: int) -> None:
        if not _MAY_FOLLOW[self.state] >> state & 1:
            raise RuntimeError("mqtt: no way from state %d to %d" % (self.state, state))
        self.state = state


def field(data) -> bytes:
    """A string or blob: its length in two bytes, then itself."""
    return struct.pack(">H", len(data)) + data


def header_of(first: int, size: int) -> bytes:
    """A fixed header: the first byte, the remaining length in 7-bit groups, lowest first (clause 2.2.3)."""
    head = bytearray((first,))
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head)


def packet_of(first: int, body) -> bytes:
    """A whole packet."""
    return header_of(first, len(body)) + body


def _packet_size(data, at: int, end: int) -> tuple:
    """(length of the fixed header, remaining length) of the packet at `at`; (0, 0) while too little is there."""
    size = shift = 0
    for place in range(at + 1, min(end, at + 5)):
        size |= (data[place] & 127) << shift
        if data[place] < 128:
            return place - at + 1, size
        shift += 7
    if end >= at + 5:
        raise RemoteProtocolError("remaining length of more than four bytes")
    return 0, 0
