"""A site of real processes on this machine, to be killed and started again: mosquitto, `thermesh gateway`, nodes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from gateway.broker import LOOPBACK, MOSQUITTO_CONFIG, QUEUE_LEN_MAX, find_mosquitto, free_port, user_line
from gateway.site import Site, load_site
from protocol import topic
from tools import filters
from tools.flash.build import build
from tools.mesh.mesh import HEAP_MIN, Mesh, NodeKind
from tools.trial import START_S_MAX, Listener, TrialError, wait, wait_broker
from tools.trial_crash.said import Said, topics

SITE = "crash"
_WAIT_S_MAX = 60.0


class Ground(NamedTuple):
    """Where the trial takes place: rows x columns of nodes, seconds from cycle to cycle."""

    rows: int
    cols: int
    cycle_s: int


class LiveSite:
    """All that runs; a context manager that ends it, by process id.

    Attributes:
        site: where nodes stand.
        state: the gateway's state folder.
        said: what is said on the broker.
        decided: what the gateway that runs has decided so far: how many blocks it heard of, cycle by cycle.
    """

    def __init__(self, folder: Path, ground: Ground):
        """Nothing runs yet; `folder` gets all files."""
        self.state = folder / "state"
        self.said = Said()
        self.decided: list[int] = []
        self._folder = folder
        self._port = free_port()
        self._config = folder / "gateway.toml"
        self._broker: subprocess.Popen[bytes] | None = None
        self._gateway: subprocess.Popen[bytes] | None = None
        self._write_files(ground)
        self.site: Site = load_site(folder / "site.toml")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Everything started: every node is ready, and a cycle of all blocks was decided."""
        with self._stack as stack:
            stack.callback(self.kill_broker)
            stack.callback(self.kill_gateway)
            self.start_broker()
            self.start_gateway()
            wait(lambda: self.decided, "the gateway decides", _WAIT_S_MAX)
            build(self.state / "nodes")
            heard = [*topics(SITE), topic.of_nodes(SITE, "state")]
            listener = Listener(self._port, heard, self.said.note)
            stack.callback(listener.close)
            kind = NodeKind("micropython", f"{HEAP_MIN // 1024}K")
            self._mesh = stack.enter_context(Mesh(self.site, kind, self.state / "nodes"))
            self._mesh.start()
            listener.wait_ready(len(self.site.cells))
            self.kill_gateway()  # it decided without them; no cycle of this one waited
            self.start_gateway()
            wait(lambda: self.blocks in self.decided, "a cycle of all blocks", START_S_MAX)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        rows, cols = self.site.block_shape
        return rows * cols

    def start_broker(self) -> None:
        """Start mosquitto, on the port of the one before, and wait until it answers."""
        command = [str(find_mosquitto()), "-c", str(self._folder / "mosquitto.conf")]
        self._broker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_broker(self._broker, self._port)

    def kill_broker(self) -> None:
        """End mosquitto as a power cut would."""
        if self._broker:
            self._broker.kill()
            self._broker.wait()

    def start_gateway(self, hook: tuple[str, int] | None = None) -> None:
        """Start the gateway; one with a hook kills itself there, at so many calls (tools/trial_crash/hooks.py)."""
        program = ["-m", "tools.cli", "gateway", "--config", str(self._config), "--json"]
        if hook:
            program = ["-m", "tools.trial_crash.hooks", hook[0], str(hook[1]), str(self._config)]
        decided: list[int] = []
        self.decided = decided
        with (self._folder / "gateway.log").open("a") as words:
            self._gateway = subprocess.Popen([sys.executable, *program], stdout=subprocess.PIPE, stderr=words)
        threading.Thread(target=_hear, args=(self._gateway, decided), daemon=True).start()

    def kill_gateway(self) -> None:
        """End the gateway as a power cut would."""
        if self._gateway:
            os.kill(self._gateway.pid, signal.SIGKILL) if self._gateway.poll() is None else None
            self._gateway.wait()

    def killed_itself(self) -> bool:
        """Whether the gateway ended by its hook.

        Raises:
            TrialError: it ended otherwise.
        """
        assert self._gateway is not None
        code = self._gateway.poll()
        if code not in (None, -signal.SIGKILL):
            raise TrialError(f"the gateway ended with code {code}: {self._last_words()}")
        return code is not None

    def wait_decided(self) -> None:
        """Wait until the gateway has decided a cycle of at least half of all blocks."""

        def is_done() -> bool:
            assert self._gateway is not None
            if self._gateway.poll() is not None:
                raise TrialError(f"the gateway ended with code {self._gateway.returncode}: {self._last_words()}")
            return any(2 * heard >= self.blocks for heard in self.decided)

        wait(is_done, "the gateway decides again", _WAIT_S_MAX)

    def restart_nodes(self, count: int, rng: random.Random) -> int:
        """So many nodes that reported lose power, and what they hold with it, and start again; fewer where none did."""
        owners = sorted({key.cell for key in list(self.said.made)})
        chosen = rng.sample(owners, min(count, len(owners)))
        self._mesh.restart(chosen)
        return len(chosen)

    def push(self) -> None:
        """Order that the weights in use are sent to all nodes again, under the next version."""
        filters.push(self._config, None, None)

    def _write_files(self, ground: Ground) -> None:
        text = f'name = "{SITE}"\nrows = {ground.rows}\ncols = {ground.cols}\ncycle_s = {ground.cycle_s}\n'
        (self._folder / "site.toml").write_text(text)
        text = f'site = "site.toml"\nspec = "lean"\nbroker = "{LOOPBACK}:{self._port}"\n[learning]\nevery_cycles = 0\n'
        self._config.write_text(text)
        asks = "allow_anonymous true\n"
        text = MOSQUITTO_CONFIG.format(
            port=self._port, host=LOOPBACK, asks=asks, user=user_line(), queue_len_max=QUEUE_LEN_MAX
        )
        (self._folder / "mosquitto.conf").write_text(text)

    def _last_words(self) -> str:
        return (self._folder / "gateway.log").read_text(errors="replace").strip().rpartition("\n")[2][-200:]


def _hear(gateway: "subprocess.Popen[bytes]", decided: list[int]) -> None:
    """Note each decision of a gateway until it ends; the last line of one that was killed may be cut short."""
    assert gateway.stdout is not None
    for line in gateway.stdout:
        if line.endswith(b"\n"):
            decided.append(sum(block is not None for row in json.loads(line)["features"] for block in row))
