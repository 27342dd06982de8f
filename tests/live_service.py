"""A real `thermesh gateway` process with one node that reports, for tests of what goes wrong around its store.

Its cycles follow each other at once, and SIGUSR1 sets its clock to the next of `CLOCKS_S`; all else is as it is.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import paho.mqtt.client as paho
from broker_bench import until
from mesh_in_memory import make_node, make_site

from firmware.stages import TO_GATEWAY
from gateway import passwords, running
from gateway.broker import LOOPBACK
from gateway.model import SPECS
from gateway.start_weights import start_filters
from gateway.store import Store
from protocol import beacon, topic
from protocol.compat import TICKS_PERIOD
from tools.rig.interpreter import SOURCES

SITE = make_site(1, 1)
NAME = "n-00-00"
CYCLE, ACK = topic.cycle(SITE.name), topic.of_node(SITE.name, 0, 0, topic.ACK)
YEAR_S = 365 * 86_400
CLOCKS_S = (YEAR_S, -YEAR_S, 0)
PERIOD_S = 0.01
WAIT_S_MAX = 30.0
UNSTORED, STORED = " are not stored: ", " is stored again; "

DRIVER = f"""
import signal, time
real, offset_s, clocks_s = time.time, 0, list({CLOCKS_S})
time.time = lambda: real() + offset_s
def set_clock(*_):
    global offset_s
    offset_s = clocks_s.pop(0)
signal.signal(signal.SIGUSR1, set_clock)
from gateway import service
serve = service.serve
service.serve = lambda *given: serve(*given[:4], {PERIOD_S}, *given[5:])
from tools.cli import main
main()
"""


class Warm:
    """A sensor."""

    def read(self, cycle):
        return 2_000 + cycle % 50


class Service:
    """A context manager: the gateway decides and its node's reports are acknowledged; at the end it is stopped.

    Attributes:
        decided: numbers of the cycles that the gateway printed.
        said: lines of its log.
        acknowledged: (run, cycle) of every report that a beacon acknowledged.
        pid: of its process.
    """

    def __init__(self, folder):
        """Nothing runs yet; `folder` holds the gateway's file."""
        self.state, self.config = folder / "state", write_files(folder)
        self.decided, self.said, self.acknowledged = [], [], []
        self._node = make_node(SITE, (0, 0), start_filters(SPECS["zone"]), Warm())

    def __enter__(self):
        command = [sys.executable, "-c", DRIVER, "gateway", "--config", str(self.config), "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=SOURCES, **pipes)
        self.pid = self._process.pid
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, lambda line: self._note(line))),
            threading.Thread(target=self._read, args=(self._process.stderr, self.said.append)),
        ]
        for reader in self._readers:
            reader.start()
        try:
            port = until(self._port, lambda: self.said, WAIT_S_MAX)
            self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
            self._client.username_pw_set(NAME, passwords.load(self.state, SITE)[NAME])
            self._client.on_connect = lambda client, *_: client.subscribe([(name, 0) for name in (CYCLE, ACK)])
            self._client.on_message = lambda _client, _data, message: self._hear(message.topic, bytes(message.payload))
            self._client.connect(LOOPBACK, port)
            self._client.loop_start()
            self.goes_on()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)

    def stop(self, how=signal.SIGTERM):
        """End it, politely or not; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        if hasattr(self, "_client"):
            self._client.disconnect()
            self._client.loop_stop()
        return code

    def goes_on(self, cycles=3, acknowledged=True):
        """Wait for so many decisions more, and the first acknowledgement of them."""
        decided, known = len(self.decided), len(self.acknowledged)
        until(lambda: len(self.decided) >= decided + cycles, self.last_words, WAIT_S_MAX)
        if acknowledged:
            until(lambda: len(self.acknowledged) > known, self.last_words, WAIT_S_MAX)

    def last_words(self):
        return self.said[-5:], self.decided[-2:], self.acknowledged[-2:]

    def lines(self, *words):
        """Lines of the log with any of these words."""
        return [line.partition(" ")[2].partition(" ")[2] for line in self.said if any(word in line for word in words)]

    def facts(self):
        return running.read(self.state)

    def stored(self):
        """(run, cycle) of all that is stored, in order."""
        with Store(self.state, SITE) as store:
            return [(stored.run, stored.outcome.record.cycle) for stored in store.latest_cycles(1_000_000)]

    def lost(self):
        """Reports that were acknowledged and are not stored exactly once."""
        stored = self.stored()
        assert len(stored) == len(set(stored))
        return set(self.acknowledged) - set(stored)

    def allow_files_of(self, size):
        """Refuse it files of more than so many bytes; None: any."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def next_clock(self):
        os.kill(self.pid, signal.SIGUSR1)

    def _port(self):
        assert self._process.poll() is None, self.said
        found = [re.search(r"broker .* at \S+:(\d+)", line) for line in self.said]
        return next((int(one[1]) for one in found if one), None)

    def _read(self, pipe, take):
        for line in pipe:
            take(line.rstrip())

    def _note(self, line):
        self.decided.append(json.loads(line)["cycle"])

    def _hear(self, name, data):
        if name == ACK:
            self._node.on_acknowledgement(data)
        else:
            self._on_beacon(data)

    def _on_beacon(self, data):
        now_ms, opened = time.monotonic_ns() // 1_000_000 % TICKS_PERIOD, beacon.unpack(data)
        if beacon.acknowledged(data, 0, 0):
            self.acknowledged.append((opened.run, opened.acked_cycle))
        self._node.on_frame(data, now_ms)
        for destination, sent in self._node.poll(now_ms)[0]:
            if destination == TO_GATEWAY:
                self._client.publish(topic.of_node(SITE.name, 0, 0, "up"), sent)


def write_files(folder):
    """A site of one node and a gateway's file."""
    (folder / "site.toml").write_text(f'name = "{SITE.name}"\nrows = 1\ncols = 1\ncycle_s = 1\n')
    config = folder / "gateway.toml"
    config.write_text('site = "site.toml"\nspec = "zone"\n[learning]\nevery_cycles = 0\n')
    return config
