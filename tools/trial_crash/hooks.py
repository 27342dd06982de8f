"""`thermesh gateway` that kills itself where something is published or committed: `hooks.py HOOK CALL CONFIG`.

A hook is named by what happens there; at its n-th call of this process the process ends by SIGKILL. The gateway knows
nothing of it: what it calls is wrapped before it starts.
"""

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import paho.mqtt.client as paho

from gateway.link import Link
from gateway.store import Store
from tools import cli

# Before it is handed to the connection, and when it has left this process (the wave: when the broker has said so).
PUBLISHES = ("beacon", "acknowledgement", "wave")
# Of a cycle with its reports: before the transaction, when all is written and COMMIT is next, somewhere in COMMIT, and
# when it is on the disk.
COMMITS = ("before transaction", "before commit", "in commit", "after commit")
HOOKS = (*(f"{when} {what}" for what in PUBLISHES for when in ("before", "after")), *COMMITS)
_SENT_S_MAX = 5.0
# How far into COMMIT, of the time that the one before took.
_IN_COMMIT = 0.5


class Trap:
    """Kills this process at the n-th call of one hook."""

    def __init__(self, hook: str, call: int) -> None:
        """`call`: 1 for the first one."""
        self._hook = hook
        self._left = call

    def reach(self, hook: str) -> None:
        """A hook is reached."""
        if self.is_due(hook):
            die()

    def is_due(self, hook: str) -> bool:
        """Whether this is the call at which the process has to end."""
        self._left -= hook == self._hook
        return hook == self._hook and self._left == 0


def die() -> None:
    """End as a power cut ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch_publishes(trap: Trap) -> None:
    """Wrap what the gateway publishes with."""
    sent: list[paho.MQTTMessageInfo] = []
    publish = paho.Client.publish

    def noted(*args: Any, **more: Any) -> paho.MQTTMessageInfo:
        sent[:] = [publish(*args, **more)]
        return sent[0]

    def trapped(what: str, method: Callable[..., None]) -> Callable[..., None]:
        @wraps(method)
        def call(*args: Any) -> None:
            trap.reach(f"before {what}")
            method(*args)
            if trap.is_due(f"after {what}"):
                sent[0].wait_for_publish(_SENT_S_MAX)
                die()

        return call

    paho.Client.publish = noted  # type: ignore[method-assign]
    for what in PUBLISHES:
        setattr(Link, f"publish_{what}", trapped(what, getattr(Link, f"publish_{what}")))


def watch_commits(trap: Trap) -> None:
    """Wrap what the gateway stores cycles with, and the commits in it."""
    add_cycle, connect = Store.add_cycle, sqlite3.connect
    is_open = threading.local()

    class Watched(sqlite3.Connection):
        last_s = 0.0

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql != "COMMIT" or not getattr(is_open, "cycle", False):
                return super().execute(sql, *args)
            trap.reach("before commit")
            is_due = trap.is_due("in commit")
            if is_due:
                threading.Timer(_IN_COMMIT * self.last_s, die).start()
            begin_s = time.monotonic()
            found = super().execute(sql, *args)
            self.last_s = time.monotonic() - begin_s
            if is_due:  # it was faster than the one before
                die()
            return found

    def watched_add_cycle(*args: Any) -> None:
        trap.reach("before transaction")
        is_open.cycle = True
        try:
            add_cycle(*args)
        finally:
            is_open.cycle = False
        trap.reach("after commit")

    sqlite3.connect = lambda *args, **more: connect(*args, factory=Watched, **more)  # type: ignore[assignment]
    Store.add_cycle = watched_add_cycle  # type: ignore[assignment,method-assign]


def main(hook: str, call: int, config: str) -> None:
    """Run the gateway."""
    trap = Trap(hook, call)
    watch_publishes(trap)
    watch_commits(trap)
    sys.argv = ["thermesh", "gateway", "--config", config, "--json"]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
