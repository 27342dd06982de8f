"""A whole site of real processes, to be killed and started again: mosquitto on one port, `thermesh gateway`, nodes.

The nodes are real MicroPython on the smallest heap there may be, and stand next to each other without a hole.
"""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
from broker_bench import until
from mesh_in_memory import make_site
from real_mesh import HEAP

from gateway import broker
from gateway.broker import LOOPBACK, find_mosquitto, free_port
from gateway.model import Filters
from gateway.site import block_of
from gateway.store import Store
from gateway.wave import Holding, holding_of
from protocol import frame, topic
from protocol.grid import node_name
from tools import backup, filters
from tools.flash.build import build
from tools.mesh.mesh import Mesh, NodeKind

SITE = make_site(6, 6)
NAMES = {node_name(*cell): cell for cell in SITE.cells}
CYCLE_S = 1
START_S_MAX = 60.0
ROLLOUT_S_MAX = 90.0
# The observer is back on a broker well before the nodes are.
_OBSERVER_RETRY_S = 0.2


class Observer:
    """What nodes say on the broker, over all of the broker's lives; filled by a thread.

    Attributes:
        states: the word of each node that said one to the present broker, by name.
        boots: the number of each node's present start, by name.
        holdings: what each node said last of its filters, by name.
        reports: (run's low byte, cycle's low half) of the latest report of each block.
    """

    def __init__(self, port):
        self.states: dict[str, str] = {}
        self.boots: dict[str, int] = {}
        self.holdings: dict[str, Holding] = {}
        self.reports: dict[tuple[int, int], tuple[int, int]] = {}
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = self._subscribe
        self._client.on_message = lambda _client, _data, message: self._note(message.topic, bytes(message.payload))
        self._client.reconnect_delay_set(_OBSERVER_RETRY_S, _OBSERVER_RETRY_S)
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()

    def ready(self, boots_before=None):
        """Whether every node is ready; those named with a start number have to have started again since."""
        again = all(self.boots.get(name) not in (None, boot) for name, boot in (boots_before or {}).items())
        return again and list(self.states.values()) == ["ready"] * len(NAMES)

    def holding(self, version):
        """The names of nodes that hold a version, staged or in use."""
        return {name for name, held in self.holdings.items() if held.holds(version)}

    def _subscribe(self, client, *_):
        client.subscribe(topic.nodes(SITE.name) + "#")

    def _note(self, name, payload):
        node, _, leaf = name.removeprefix(topic.nodes(SITE.name)).partition("/")
        if leaf == "state":
            self.states[node] = payload.decode()
        elif leaf == "about":
            self.boots[node] = json.loads(payload)["boot"]
        elif leaf == "up" and frame.kind_of(payload) == frame.FILTERS:
            self.holdings[node] = holding_of(payload, 1)
        elif leaf == "up":
            self.reports[block_of(NAMES[node])] = frame.run_of(payload), frame.cycle_of(payload, 0)


class LiveSite:
    """All that runs; a context manager that ends it, by process id, however the test ends.

    Attributes:
        mesh: the nodes.
        observer: of what they say.
        store: the gateway's, opened for reading.
    """

    def __init__(self, folder, seed):
        """Nothing runs yet.

        Args:
            folder: of the gateway's file.
            seed: of the temperatures, which differ from node to node so that features do.
        """
        self._folder = folder
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        self._write_files(np.random.default_rng(seed))

    def __enter__(self):
        """Everything started: every node is ready, and a cycle of all of them was decided."""
        with self._stack as stack:
            stack.callback(self._kill_all)
            self.start_broker()
            self.start_gateway()
            until(self._decides, self._words_of_gateway, START_S_MAX)
            build(self._folder / "state" / "nodes")
            self.observer = Observer(self._port)
            stack.callback(self.observer.close)
            self.mesh = stack.enter_context(Mesh(SITE, NodeKind("micropython", HEAP), self._folder / "state" / "nodes"))
            self.mesh.start()
            self.store = Store(self._folder / "state", SITE)
            stack.callback(lambda: self.store.__exit__())
            until(self.observer.ready, lambda: (self.observer.states, self.mesh.problems()), START_S_MAX)
            until(partial(self.decided_by_all, self.latest()), self.latest, START_S_MAX)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    # What is killed and started again

    def start_broker(self):
        self._start("broker", [find_mosquitto(), "-p", str(self._port)])
        until(lambda: broker._answers(self._port), "mosquitto answers", START_S_MAX)

    def start_gateway(self):
        self._start("gateway", [sys.executable, "-m", "tools.cli", "gateway", "--config", str(self._config), "--json"])

    def kill(self, name):
        """SIGKILL: "broker" or "gateway"."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        if name == "broker":
            self.observer.states.clear()  # the next broker knows of nobody

    # What is seen of it

    def push(self, wanted):
        """Order other filters; returns their version."""
        file = self._folder / "wanted.json"
        file.write_text(json.dumps(wanted.as_json()))
        return filters.push(self._config, None, file)["filters"]

    def backup(self, file):
        """What `thermesh backup` does, in the middle of everything."""
        backup.make(self._config, file, lambda _: lambda done, pages: None)

    def restore(self, file):
        """What `thermesh restore --replace` does; the gateway must not run."""
        self.store.__exit__()
        backup.restore(self._config, file, replace=True)
        self.store = Store(self._folder / "state", SITE)

    def status(self):
        return filters.status(self._config)

    def latest(self):
        """(run, cycle) of the latest stored cycle, (0, 0) before the first."""
        for stored in self.store.latest_cycles(1):
            return stored.run, stored.outcome.record.cycle
        return 0, 0

    def decided_by_all(self, since):
        """Whether a cycle later than `since` was decided with every node in it, every feature exact."""
        for stored in self.store.latest_cycles(3):
            record, exact = stored.outcome.record, stored.outcome.exact
            whole = record.pooled.sum() == len(NAMES) and record.late == 0
            if (stored.run, record.cycle) > since and whole and exact.compared == exact.equal == record.features.size:
                return True
        return False

    def confirmed_by_all(self, version):
        found = self.status()
        decides = found["active"]["filters"] == version == found["rollout"]["filters"]
        return decides and found["rollout"]["nodes"]["confirmed"] == len(NAMES)

    def problems(self):
        """What is good to know when something did not happen."""
        found = self.status()
        holdings = {name: tuple(held) for name, held in self.observer.holdings.items()}
        return found["rollout"], self.observer.states, holdings, self.mesh.problems(), self._words_of_gateway()

    # How it is made

    @property
    def _config(self) -> Path:
        return self._folder / "gateway.toml"

    def _write_files(self, rng):
        text = f'name = "{SITE.name}"\nrows = {SITE.rows}\ncols = {SITE.cols}\ncycle_s = {CYCLE_S}\n'
        (self._folder / "site.toml").write_text(text)
        text = f'site = "site.toml"\nspec = "seed"\nbroker = "{LOOPBACK}:{self._port}"\n[learning]\nevery_cycles = 0\n'
        self._config.write_text(text)
        nodes = self._folder / "state" / "nodes"
        nodes.mkdir(parents=True)
        for seed, name in enumerate(NAMES):
            sensor = {"kind": "simulated", "seed": seed, "mean_ccel": int(rng.integers(1_900, 2_600))}
            (nodes / f"{name}.json").write_text(json.dumps({"sensor": sensor}))

    def _decides(self):
        """Whether the gateway writes decisions; by then the nodes' files are there."""
        assert self._processes["gateway"].poll() is None, self._words_of_gateway()
        return '{"cycle"' in (self._folder / "gateway.log").read_text()

    def _words_of_gateway(self):
        lines = (self._folder / "gateway.log").read_text().splitlines()
        return [line for line in lines if not line.startswith("{")][-5:]

    def _start(self, name, command):
        with (self._folder / f"{name}.log").open("a") as log:
            log.write("-- started\n")
        # The same way as an own broker of the gateway: it ends when this process does, whatever becomes of it.
        self._processes[name] = broker._spawn(command, self._folder / f"{name}.log")

    def _kill_all(self):
        for name in list(self._processes):
            self.kill(name)


def rolled(found: Filters) -> Filters:
    """The same filters in another order, so that features and activations tell which of the two computed them."""
    first = found.layers[0]
    other = replace(first, bias=np.roll(first.bias, 1), weights=np.roll(first.weights, 1, axis=0))
    return replace(found, layers=(other, *found.layers[1:]))
