"""One identity floods a real broker as fast as it can; the gateway soon decides on the others' blocks as before."""

import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import paho.mqtt.client as paho
import pytest
from broker_bench import WAIT_S_MAX, needs_mosquitto
from gateway_bench import SITE, name_of, report_of
from mesh_in_memory import RUN, make_model

from gateway.broker import LOOPBACK, open_broker
from gateway.gateway import Gateway, Timing
from gateway.link import Link
from gateway.service import Beside, monotonic_ms, serve
from protocol import beacon, topic

pytestmark = [needs_mosquitto, pytest.mark.slow]

CYCLES, PERIOD_S = 20, 0.5
# What a cycle may take at most, and what one in which nobody is missing takes at most beside a flood.
TIMING = Timing(period_ms=1_000, exchange_ms=4_000, gather_ms=2_000, report_ms=2_000)
ON_TIME_MS = 2_000
FLOODER, OWNER = (0, 2), (0, 0)

FLOOD = """
import socket, sys
port, name = int(sys.argv[1]), sys.argv[2].encode()
def packet(kind, body):
    return bytes((kind, len(body))) + body
def text(word):
    return len(word).to_bytes(2, "big") + word
connection = socket.create_connection(("127.0.0.1", port))
connection.sendall(packet(0x10, text(b"MQTT") + b"\\x04\\x02\\0\\0" + text(b"flooder")))
assert connection.recv(4) == b"\\x20\\x02\\0\\0"
said = packet(0x30, text(name) + b"\\x16" + bytes(30)) * 1_000
print("floods", flush=True)
while True:
    connection.sendall(said)
"""


@contextmanager
def flood(port):
    command = [sys.executable, "-c", FLOOD, str(port), name_of(FLOODER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert b"floods\n" == process.stdout.readline()
            yield process
            assert process.poll() is None, "the flood has ended"
        finally:
            process.kill()


class Others:
    """The owner of the other block: reports as soon as a beacon comes, as its members would have it."""

    def __init__(self, port):
        self.ready = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe(topic.cycle(SITE.name))
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda _client, _data, message: self.answer(beacon.unpack(message.payload))
        self.client.connect(LOOPBACK, port)
        self.client.loop_start()
        assert self.ready.wait(WAIT_S_MAX)

    def answer(self, opened):
        self.client.publish(name_of(OWNER), report_of(OWNER, opened.cycle, 0b1111))

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Kept:
    """A store that takes everything."""

    def keep(self, outcome):
        return True


class Noted(NamedTuple):
    """A decided cycle: what the other block's maximum was, when it was decided, what had come of the flood by then."""

    feature: int
    took_ms: int
    flooded: int


def test_while_nothing_of_a_flood_is_handed_on_the_others_blocks_are_decided_on_time(tmp_path):
    gateway = Gateway(SITE, make_model("lean", SITE), TIMING, RUN)
    cycles = [Noted(0, 0, 0)]

    def note(outcome):
        took_ms = monotonic_ms() - gateway.due_ms() + TIMING.cycle_ms(gateway.model.filters.exchanges)
        flooded = gateway.faults["malformed"] + gateway.quarantine.dropped[FLOODER]
        cycles.append(Noted(int(outcome.record.features[0, 0, 0]), took_ms, flooded))

    with open_broker("mosquitto", tmp_path) as broker, Link(LOOPBACK, broker.port, SITE.name) as link:
        others = Others(broker.port)
        with flood(broker.port):
            serve(gateway, link, Kept(), Beside(note, lambda: None), PERIOD_S, CYCLES)
        others.close()
    print(*cycles[1:], dict(gateway.faults), f"dropped in line {link.dropped}", sep="\n")
    # Where it is tried whether the flood is over, a report may be lost in the broker.
    spared = [cycle for before, cycle in pairwise(cycles) if cycle.flooded == before.flooded]
    assert len(spared) >= CYCLES // 2
    assert {16} == {cycle.feature for cycle in spared}
    assert max(cycle.took_ms for cycle in spared) < ON_TIME_MS
    assert [FLOODER] == list(gateway.quarantine.cells)
