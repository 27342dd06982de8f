"""Runs one real MicroPython a node: imports the interpreter once and forks it, node by node.

A fork of a process with threads deadlocks, so this is a program of its own that imports nothing else. It reads JSON
lines from standard input and ends, with all its nodes, when that closes:

    {"start": [names], "folder": path, "heap": "32K"}      each node runs main.run("<name>.json") in the folder
    {"kill": [names]}                                      SIGKILL; a node that was killed may be started again

and writes JSON lines: {"started": [names]} and {"ended": name, "code": code} for each node that ends by itself.
"""

import ctypes
import json
import os
import select
import signal
import sys
from typing import Any

import micropython_run

_PR_SET_PDEATHSIG = 1
_WAIT_S = 0.2


class Host:
    """The nodes that run: process id by name."""

    def __init__(self) -> None:
        """None yet."""
        self._pids: dict[str, int] = {}

    def run(self) -> None:
        """Obey until standard input closes."""
        waiting = b""
        while True:
            readable, _, _ = select.select([0], [], [], _WAIT_S)
            if readable:
                data = os.read(0, 65536)
                if not data:
                    break
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            self._reap()
        self._kill(list(self._pids))

    def _obey(self, order: dict[str, Any]) -> None:
        if "start" in order:
            for name in order["start"]:
                self._pids[name] = _fork(name, order["folder"], order["heap"])
            _say({"started": order["start"]})
        self._kill(order.get("kill", []))

    def _kill(self, names: list[str]) -> None:
        for name in names:
            pid = self._pids.pop(name, None)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _reap(self) -> None:
        for name, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[name]
                _say({"ended": name, "code": os.waitstatus_to_exitcode(status)})


def _fork(name: str, folder: str, heap: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.chdir(folder)
        words = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(words, 1)
        os.dup2(words, 2)
        start = f"import main; main.run('{name}.json')"
        code = micropython_run.run_main(["micropython", "-X", f"heapsize={heap}", "-c", start])
    finally:
        os._exit(code & 0xFF)


def _say(fact: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Host().run()
