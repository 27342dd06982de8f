"""A real broker on a test bench: one that comes back on its port, and a client that sees what is said on it."""

import select
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress

import paho.mqtt.client as paho
import pytest

from gateway import broker
from gateway.broker import LOOPBACK, find_mosquitto

WAIT_S_MAX = 10.0
_LOOK_S = 0.02
needs_mosquitto = pytest.mark.skipif(not find_mosquitto(), reason="mosquitto is not installed")


def until(condition, what="", seconds=WAIT_S_MAX):
    """What the condition gives once it holds; looked at again and again."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what() if callable(what) else what}"
        select.select([], [], [], _LOOK_S)
    return found


class Observer:
    """What a client of the broker sees below a site: (topic, payload, retained)."""

    def __init__(self, port, site_name="memory"):
        self.seen = []
        self._subscribed = False
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe(f"tm/1/{site_name}/#", 1)
        self.client.on_subscribe = lambda *_: setattr(self, "_subscribed", True)
        self.client.on_message = lambda *arguments: self._note(arguments[2])
        self.client.connect(LOOPBACK, port)
        self.until(lambda: self._subscribed)

    def _note(self, message):
        self.seen.append((message.topic, bytes(message.payload), message.retain))

    def until(self, condition):
        deadline = time.monotonic() + WAIT_S_MAX
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; saw {self.seen[-20:]}"
            self.client.loop(0.02)

    def words(self, name):
        return [payload for topic, payload, _ in self.seen if topic == name]

    def close(self):
        self.client.disconnect()


@contextmanager
def mosquitto_on(port):
    """mosquitto on a port that an earlier one had."""
    command = [find_mosquitto(), "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: broker._answers(port), "mosquitto answers")
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S_MAX)


def free_ports(count):
    """The first of so many free ports in a row."""
    while True:
        first = broker.free_port()
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server((LOOPBACK, port)))
            return first
