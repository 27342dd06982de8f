"""One real node with a real socket on a bench: the clock is the test's, so a back-off of a minute costs nothing."""

import select
import socket
import time
from contextlib import contextmanager

from broker_bench import WAIT_S_MAX
from mesh_in_memory import make_site
from wave_bench import BEFORE_WRAP

from firmware import mqtt, start
from firmware.link import BACK_OFF_MS_MAX, Link
from gateway.broker import LOOPBACK
from gateway.model import SPECS
from gateway.start_weights import start_filters
from protocol.compat import ticks_add, ticks_ms
from tools.mesh.files import Access, write_node_files

SITE = make_site(1, 2)
CONNACK = b"\x20\x02\x00\x00"


class Bench:
    """One real node on CPython with a real socket; its clock starts just before the wrap and can be put forward."""

    def __init__(self, folder, port, monkeypatch, name="n-00-00", key=b""):
        sensors = {cell: {"kind": "simulated", "seed": 1, "mean_ccel": 2200} for cell in SITE.cells}
        filters = start_filters(SPECS["lean"]).pack(SITE.name)
        write_node_files(folder, SITE, Access(LOOPBACK, port), filters, key.hex(), sensors)
        monkeypatch.chdir(folder)
        self._ahead_ms = BEFORE_WRAP - ticks_ms()
        self.link = Link(start.prepare(name + ".json"), self.now_ms())

    def now_ms(self):
        return ticks_add(ticks_ms(), self._ahead_ms)

    def skip(self, duration_ms):
        self._ahead_ms += duration_ms

    def poll(self):
        return self.link.poll(self.now_ms())

    def until(self, condition):
        """Poll whenever the socket or the clock asks for it, until something is true."""
        deadline = time.monotonic() + WAIT_S_MAX
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            wait_ms = self.poll()
            sockets = [self.link.socket] if self.link.socket else []
            select.select(sockets, sockets if self.link.wants_write else [], [], min(wait_ms, 20) / 1000)

    def is_ready(self):
        return self.link._client.state == mqtt.READY and not self.link._client._waiting

    def is_off(self):
        return self.link.socket is None

    def skip_back_off(self):
        self.skip(BACK_OFF_MS_MAX)


def ready_node(folder, port, monkeypatch, name="n-00-00", key=b""):
    """A bench on which the node is connected."""
    bench = Bench(folder, port, monkeypatch, name, key)
    bench.until(bench.is_ready)
    return bench


@contextmanager
def listening():
    """A broker's end that takes the next connection."""
    with socket.create_server((LOOPBACK, 0)) as made:
        made.settimeout(WAIT_S_MAX)
        yield made


def serve(bench, listener, answers):
    """Accept the node and answer its packets one by one; gives the broker's end of the connection."""
    bench.poll()
    connection, _ = listener.accept()
    connection.settimeout(0.01)
    for answer in answers:
        heard = bytearray()
        bench.until(lambda heard=heard: received(connection, heard))
        connection.sendall(answer)
    return connection


def received(connection, heard):
    try:
        heard += connection.recv(4_096)
    except TimeoutError:
        return False
    return True


def suback(count):
    return b"\x90" + bytes((2 + count, 0, 1)) + bytes(count)


# To the beacon, the block and one neighbour.
SUBACK = suback(3)
