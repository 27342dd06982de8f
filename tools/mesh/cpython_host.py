"""Runs all nodes in one CPython process, each the same code as on a device; speaks like fork_host.py."""

import heapq
import itertools
import json
import os
import resource
import selectors
import signal
import sys
import time
from typing import Any

from firmware import start
from firmware.link import Link
from protocol.compat import ticks_ms

_WAIT_MS_MAX = 200


class Host:
    """The nodes that run, each with its socket in one selector and its next wake-up in one heap."""

    def __init__(self) -> None:
        """None yet."""
        self._links: dict[str, Link] = {}
        self._sockets: dict[str, Any] = {}
        self._wakes: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._latest: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._waiting = b""

    def run(self) -> None:
        """Obey until standard input closes."""
        self._selector.register(0, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select(self._wait_ms() / 1000):
                if key.data is None:
                    if not self._listen():
                        return
                elif key.data in self._links:
                    self._poll(key.data)
            self._poll_due()

    def _listen(self) -> bool:
        data = os.read(0, 65536)
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "start" in order:
                self._start(order)
            for name in order.get("kill", []):
                self._kill(name)
        return bool(data)

    def _start(self, order: dict[str, Any]) -> None:
        os.chdir(order["folder"])
        for name in order["start"]:
            self._links[name] = Link(start.prepare(f"{name}.json"), ticks_ms())
            self._poll(name)
        sys.stdout.write(json.dumps({"started": order["start"]}) + "\n")
        sys.stdout.flush()

    def _kill(self, name: str) -> None:
        """As sudden as a power cut: the socket just closes."""
        link = self._links.pop(name, None)
        if link and name in self._sockets:
            connection = self._sockets.pop(name)
            self._selector.unregister(connection)
            connection.close()

    def _poll(self, name: str) -> None:
        link = self._links[name]
        wait_ms = link.poll(ticks_ms())
        self._watch(name, link)
        stamp = next(self._order)
        self._latest[name] = stamp
        heapq.heappush(self._wakes, (_now_ms() + wait_ms, stamp, name))

    def _watch(self, name: str, link: Link) -> None:
        connection: Any = link.socket
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wants_write else 0)
        before = self._sockets.get(name)
        if before is not None and before is not connection:
            self._selector.unregister(before)
            del self._sockets[name]
        if connection is None:
            return
        if name not in self._sockets:
            self._selector.register(connection, events, name)
            self._sockets[name] = connection
        elif self._selector.get_key(connection).events != events:
            self._selector.modify(connection, events, name)

    def _poll_due(self) -> None:
        now_ms = _now_ms()
        while self._wakes and self._wakes[0][0] <= now_ms:
            _, stamp, name = heapq.heappop(self._wakes)
            if self._latest.get(name) == stamp and name in self._links:
                self._poll(name)

    def _wait_ms(self) -> float:
        return min(max(self._wakes[0][0] - _now_ms(), 0), _WAIT_MS_MAX) if self._wakes else _WAIT_MS_MAX


def _now_ms() -> float:
    return time.monotonic() * 1000


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
    Host().run()
