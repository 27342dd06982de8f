"""What the gateway's connection takes in: `python -m tools.bench_link` sends it reports, as many a second as are asked.

A publisher in a process of its own, mosquitto, and gateway/link.py in this one; beside it, in turns, a bare paho client
that does nothing but count. Each takes in REPORTS_S reports a second for SECONDS, then all that it can. Exit code 1
where a report is lost or the last one comes late, 2 where mosquitto is missing.
"""

import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.broker import LOOPBACK, Broker, find_mosquitto, open_broker
from gateway.link import Link
from protocol import topic

SITE = "bench"
REPORTS_S, SECONDS = 6_000, 10
# As fast as they come; below the broker's queue, so that none is lost there.
ALL_AT_ONCE = 15_000
# A report of spec seed with its readings.
_REPORT = bytes(45)
_NODES, _LAST = 425, b"last"
_TICK_S = 0.01
# The last report may come so much later than it was due.
LATE_S_MAX = 0.5
_WAIT_S_MAX = 30.0


def publish(port: int, count: int, per_s: int) -> None:
    """Send reports in the name of many nodes, so many a second, 0: at once; then a last word."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(0)
    client.connect(LOOPBACK, port)
    client.loop_start()
    topics = [topic.of_node(SITE, number // 25, number % 25, "up") for number in range(_NODES)]
    begin, done = time.monotonic(), 0
    while done < count:
        due = min(count, int((time.monotonic() - begin) * per_s)) if per_s else count
        for number in range(done, due):
            client.publish(topics[number % _NODES], _REPORT)
        done = due
        time.sleep(_TICK_S)
    client.publish(topics[0], _LAST, qos=1).wait_for_publish(_WAIT_S_MAX)
    client.disconnect()
    client.loop_stop()


class Taken(NamedTuple):
    """What came in: how many reports, and how long it took from the first to the last word, s."""

    reports: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Reports a second."""
        return self.reports / self.seconds


class Bare:
    """A paho client that counts what it is handed until the last word comes."""

    def __init__(self, broker: Broker) -> None:
        """Connected and subscribed."""
        self._count, self._begin, self._end = 0, 0.0, 0.0
        self._last, ready = threading.Event(), threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic.of_nodes(SITE, "up"))
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _client, _data, message: self._note(bytes(message.payload))
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        ready.wait(_WAIT_S_MAX)

    def take(self) -> Taken:
        """All until the last word."""
        self._last.wait(_WAIT_S_MAX)
        return Taken(self._count, self._end - self._begin)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _note(self, payload: bytes) -> None:
        self._begin = self._begin or time.monotonic()
        if payload == _LAST:
            self._end = time.monotonic()
            self._last.set()
        else:
            self._count += 1


class Ours:
    """The same through the gateway's own connection."""

    def __init__(self, broker: Broker) -> None:
        """Connected; what it subscribes to goes out before a publisher can have started."""
        self._link = Link(broker.host, broker.port, SITE)

    def take(self) -> Taken:
        """All until the last word."""
        count, begin, deadline = 0, 0.0, time.monotonic() + _WAIT_S_MAX
        while time.monotonic() < deadline:
            message = self._link.next_message(0.5)
            if message:
                begin = begin or time.monotonic()
                if message[1] == _LAST:
                    break
                count += 1
        return Taken(count, time.monotonic() - begin)

    def close(self) -> None:
        """Disconnect."""
        self._link.close()


def measure(broker: Broker, kind: type[Bare] | type[Ours], count: int, per_s: int) -> Taken:
    """What one of the two takes in of so many reports, so many a second, 0: at once."""
    taker = kind(broker)
    publisher = multiprocessing.get_context("spawn").Process(target=publish, args=(broker.port, count, per_s))
    publisher.start()
    try:
        return taker.take()
    finally:
        publisher.join(_WAIT_S_MAX)
        taker.close()


def main() -> int:
    """Measure and print; returns the exit code."""
    if not find_mosquitto():
        print("bench_link: mosquitto is not installed", file=sys.stderr)
        return 2
    fine, most = True, {"paho": 0.0, "ours": 0.0}
    kinds: dict[str, type[Bare] | type[Ours]] = {"paho": Bare, "ours": Ours}
    with tempfile.TemporaryDirectory() as folder, open_broker("mosquitto", Path(folder)) as broker:
        for name, kind in kinds.items():
            taken = measure(broker, kind, REPORTS_S * SECONDS, REPORTS_S)
            lost, late_s = REPORTS_S * SECONDS - taken.reports, taken.seconds - SECONDS
            print(f"{name}: {REPORTS_S:,} a second for {SECONDS} s, {lost} lost, the last {late_s * 1000:.0f} ms late")
            fine = fine and lost == 0 and late_s < LATE_S_MAX
        for name, kind in [*kinds.items()] * 2:
            taken = measure(broker, kind, ALL_AT_ONCE, 0)
            fine = fine and taken.reports == ALL_AT_ONCE
            most[name] = max(most[name], taken.per_s)
    ratio = most["ours"] / most["paho"]
    print(f"at most {most['ours']:,.0f} reports a second, a bare paho client {most['paho']:,.0f}: {ratio:.2f}x")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
