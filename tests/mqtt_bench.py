"""The MQTT client without I/O on a bench, with the test as its socket and a hand on its clock."""

from wave_bench import BEFORE_WRAP

from firmware import mqtt_session
from firmware.mqtt import IN_MAX, Client, field, packet_of
from protocol.compat import ticks_add
from protocol.filter_set import OPENING_SIZE

PACKETS_IN, BYTES_IN, PACKETS_OUT, BYTES_OUT, SKIPPED = range(5)
KEEPALIVE_S = 60
PING_MS = KEEPALIVE_S * 1000 // 2
SILENCE_MS = KEEPALIVE_S * 1500
CONNECT = mqtt_session.connect("node", "state", KEEPALIVE_S)
SUBSCRIBE = mqtt_session.subscribe(["cycle", "n/+/halo"])
FACTS = mqtt_session.retained("about", "{}")
CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x04\x00\x01\x00\x00"
PUBACK_OF_FACTS = b"\x40\x02\x00\x02"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


class Line:
    """A client whose socket is this test."""

    def __init__(self):
        self.heard, self.pieces = [], []
        session = (KEEPALIVE_S, CONNECT, SUBSCRIBE, FACTS)
        self.client = Client(session, lambda _, payload: self.heard.append(bytes(payload)), self._take_piece)
        self.now_ms = BEFORE_WRAP

    def _take_piece(self, at, size, data):
        self.pieces.append((at, size, bytes(data)))

    def sets(self):
        """The sets that were handed on, put together again; each piece follows the one before."""
        found = []
        for at, size, data in self.pieces:
            if at == 0:
                assert len(data) >= min(size, OPENING_SIZE)
                found.append([size, b""])
            assert (found[-1][0], len(found[-1][1])) == (size, at)
            found[-1][1] += data
        return [data for size, data in found if len(data) == size]

    def receive(self, data, at_once=IN_MAX):
        """The socket gives these bytes, so many at a time."""
        while data:
            room = self.client.room()
            count = min(len(room), len(data), at_once)
            room[:count] = data[:count]
            self.client.feed(count, self.now_ms)
            data = data[count:]

    def sent(self):
        """What went out since the last look."""
        out, self.client.out = bytes(self.client.out), bytearray()
        while self.client.file:
            self.client.refill()
            out += self.client.out
            self.client.out = bytearray()
        return out

    def wait(self, duration_ms):
        self.now_ms = ticks_add(self.now_ms, duration_ms)
        return self.client.poll(self.now_ms)

    def follow(self, duration_ms):
        """Poll whenever poll said so, over a time: (ms, what went out) each time that something did."""
        start, passed, log = self.now_ms, 0, []
        while True:
            self.now_ms = ticks_add(start, passed)
            wait_ms = self.client.poll(self.now_ms)
            out = self.sent()
            if out:
                log.append((passed, out))
            if passed >= duration_ms:
                return log
            passed = min(passed + wait_ms, duration_ms)


def connecting():
    line = Line()
    line.client.start_connect(line.now_ms)
    return line


def ready(facts_arrived=True):
    line = connecting()
    line.receive(CONNACK + SUBACK + (PUBACK_OF_FACTS if facts_arrived else b""))
    line.sent()
    return line


def publish_of(payload, topic=b"a/b", first=0x30, packet_id=b""):
    return packet_of(first, field(topic) + packet_id + payload)


def duplicate_of(packet):
    return bytes((packet[0] | 8,)) + packet[1:]
