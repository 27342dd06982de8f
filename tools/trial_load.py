"""`make trial-load`: a site of 425 nodes over TLS, a cycle a second, for ten minutes; QUICK=1: one minute.

400 nodes of one process stand alone, so that all they do is report, and log in by TLS with the broker's certificate; 25
on real MicroPython stand together and log in with keys. Broker, gateway and nodes run from the files that the commands
write; nodes have lower priority, as they would not share the gateway's machine. Prints the cycles missed, the time from
the last report to the decision and how the gateway's memory grew; exit code 1 where one of them is beyond its bound,
2 where mosquitto or MicroPython is missing.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gateway.broker import LOOPBACK, find_mosquitto
from gateway.passwords import Login, password_line
from gateway.site import Cell, Site
from protocol import topic
from protocol.grid import node_name
from tools.broker_config import Listeners, write_config
from tools.flash.build import build
from tools.mesh.mesh import Mesh, NodeKind, has_micropython
from tools.trial import Listener, Progress, TrialError, wait_broker

SITE = "load"
# Every second place in a square: each node alone in its block. Beside them the block of nodes with neighbours.
ALONE_SIDE, TOGETHER_SIDE = 20, 5
_TOGETHER_COL = 2 * ALONE_SIDE + 2
MINUTES, QUICK_MINUTES = 10, 1
MISSED_MAX, LATENCY_MS_MAX, DRIFT_BYTES_MAX = 0, 50.0, 10 << 20
# Until then caches fill, and memory is not looked at.
_WARM_CYCLES = 20
_HEAP = "36K"
# Nodes stand elsewhere: here they run on what broker and gateway leave of the cores.
_NICENESS = 10
_PORT = 21_883


class Clock:
    """When the latest report was heard, s; 0 before the first."""

    def __init__(self) -> None:
        """No report came yet."""
        self.report_s = 0.0

    def note(self, name: str, _payload: bytes) -> None:
        """A message came."""
        if name.endswith("/up"):
            self.report_s = time.monotonic()


class Decided(NamedTuple):
    """One decision: its cycle, s when it was said, ms since the last report, late nodes, the gateway's bytes."""

    cycle: int
    at_s: float
    latency_ms: float
    late: int
    resident: int


def cells() -> tuple[list[Cell], list[Cell]]:
    """Nodes that stand alone, and those that stand together."""
    alone = [(2 * row, 2 * col) for row in range(ALONE_SIDE) for col in range(ALONE_SIDE)]
    together = [(row, _TOGETHER_COL + col) for row in range(TOGETHER_SIDE) for col in range(TOGETHER_SIDE)]
    return alone, together


def write_site(folder: Path) -> Path:
    """The site's file and the gateway's."""
    alone, together = cells()
    rows, cols = 2 * ALONE_SIDE, _TOGETHER_COL + TOGETHER_SIDE
    here = {*alone, *together}
    holes = [node_name(row, col) for row in range(rows) for col in range(cols) if (row, col) not in here]
    text = f'name = "{SITE}"\nrows = {rows}\ncols = {cols}\ncycle_s = 1\nholes = {json.dumps(holes)}\n'
    (folder / "site.toml").write_text(text)
    config = folder / "gateway.toml"
    config.write_text(f'site = "site.toml"\nspec = "lean"\nbroker = "{LOOPBACK}:{_PORT}"\nplain = false\n')
    return config


def gateway_command(config: Path, cycles: int) -> list[str]:
    """What starts the gateway."""
    return [sys.executable, "-m", "tools.cli", "gateway", "--config", str(config), "--cycles", str(cycles), "--json"]


def run(folder: Path, cycles: int) -> list[Decided]:
    """Start everything, run so many cycles, and return what the gateway decided.

    Raises:
        TrialError: mosquitto did not start, or not all nodes became ready.
    """
    config, nodes, clock, tell = write_site(folder), folder / "state" / "nodes", Clock(), Progress()
    with ExitStack() as stack:
        made = write_config(config, None, Listeners(LOOPBACK, _PORT - 1, _PORT, False))
        login = stack.enter_context(_broker(Path(made["folder"])))
        heard = [topic.of_nodes(SITE, leaf) for leaf in ("up", "state")]
        listener = stack.enter_context(closing(Listener(_PORT - 1, heard, clock.note, login)))
        subprocess.run(gateway_command(config, 1), check=True, capture_output=True)  # writes the nodes' files
        build(nodes)
        alone, together = cells()
        for kind, some in ((NodeKind("cpython", None), alone), (NodeKind("micropython", _HEAP), together)):
            site = Site(SITE, 2 * ALONE_SIDE, _TOGETHER_COL + TOGETHER_SIDE, tuple(some))
            stack.enter_context(Mesh(site, kind, nodes, _NICENESS)).start()
        listener.wait_ready(len(alone) + len(together))
        tell(f"{len(alone) + len(together)} nodes are ready")
        found = []
        for decided in _decisions(gateway_command(config, cycles), clock):
            found.append(decided)
            tell.count("cycles", len(found), cycles)
        return found


@contextmanager
def _broker(folder: Path) -> Iterator[Login]:
    """A mosquitto with the command's files, to which one user is added who may read everything."""
    login = Login("watcher", secrets.token_urlsafe(24))
    with (folder / "passwords").open("a") as file:
        file.write(password_line(login.user, login.password, secrets.token_bytes(12)) + "\n")
    with (folder / "acl").open("a") as file:
        file.write(f"\nuser {login.user}\ntopic read #\n")
    process = subprocess.Popen([str(find_mosquitto()), "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_broker(process, _PORT - 1, login)
        yield login
    finally:
        process.terminate()
        process.wait()


def _decisions(command: list[str], clock: Clock) -> Iterator[Decided]:
    """Run the gateway; what it decided, cycle by cycle."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as gateway:
        assert gateway.stdout is not None
        for line in gateway.stdout:
            at_s, decided = time.monotonic(), json.loads(line)
            latency_ms = (at_s - clock.report_s) * 1000
            yield Decided(decided["cycle"], at_s, latency_ms, decided["late"], _resident(gateway.pid))


def _resident(pid: int) -> int:
    """Bytes of a process that lie in memory; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def verdict(found: list[Decided]) -> tuple[list[str], bool]:
    """What people read of a run, and whether it is within the bounds; the first cycles do not count."""
    warm = found[_WARM_CYCLES:]
    missed = round(warm[-1].at_s - warm[0].at_s) - (len(warm) - 1)
    late = sum(decided.late for decided in warm)
    half, most = (float(value) for value in np.percentile([decided.latency_ms for decided in warm], (50, 99)))
    resident = [decided.resident for decided in warm]
    drift = max(resident) - resident[0]
    lines = [
        f"{len(warm)} cycles, {missed} missed (bound {MISSED_MAX}), {late} late reports",
        f"last report to decision: p50 {half:.1f} ms, p99 {most:.1f} ms (bound {LATENCY_MS_MAX:g} ms)",
        f"resident memory of the gateway: {resident[0] / 2**20:.1f} MB, grew by {drift / 2**20:.1f} MB"
        f" (bound {DRIFT_BYTES_MAX >> 20} MB)",
    ]
    return lines, missed <= MISSED_MAX and most < LATENCY_MS_MAX and drift < DRIFT_BYTES_MAX


def main() -> int:
    """Run and print; returns the exit code."""
    if not find_mosquitto() or not has_micropython():
        print("trial_load: mosquitto or MicroPython is not installed", file=sys.stderr)
        return 2
    cycles = 60 * (QUICK_MINUTES if os.environ.get("QUICK") else MINUTES) + _WARM_CYCLES
    try:
        with tempfile.TemporaryDirectory() as folder:
            lines, fine = verdict(run(Path(folder), cycles))
    except TrialError as error:
        print(f"trial_load: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trial_load: stopped", file=sys.stderr)
        return 130
    print("\n".join(lines))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
