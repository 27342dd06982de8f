"""`start_node`, the loop that a board runs for ever, in a process of its own on both runtimes."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
from broker_bench import WAIT_S_MAX, Observer, mosquitto_on, needs_mosquitto
from mesh_in_memory import make_site
from node_bench import beacon_of
from on_micropython import require_micropython

from gateway.broker import open_broker
from gateway.model import SPECS
from gateway.start_weights import start_filters
from tools.mesh.files import Access, write_node_files
from tools.mesh.mesh import Mesh, NodeKind

SITE = make_site(1, 1)
SENSORS = {(0, 0): {"kind": "simulated", "seed": 1, "mean_ccel": 2200}}
STATE, UP = (f"tm/1/memory/n/n-00-00/{leaf}" for leaf in ("state", "up"))


@contextmanager
def node_on(runtime, broker, folder):
    """One node by itself; gives a function that tells its last words."""
    filters = start_filters(SPECS["lean"]).pack(SITE.name)
    if runtime == "micropython":
        with Mesh(SITE, NodeKind("micropython", "32K"), folder) as mesh:
            mesh.prepare(broker, filters, "", SENSORS)
            mesh.start()
            yield mesh.problems
        return
    write_node_files(folder, SITE, Access(broker.host, broker.port), filters, "", SENSORS)
    command = [sys.executable, "-m", "firmware.main", "n-00-00.json"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield lambda: [] if process.poll() is None else [process.stderr.read()]
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S_MAX)


@needs_mosquitto
@pytest.mark.parametrize("runtime", ["micropython", "cpython"])
def test_a_node_that_runs_for_ever_outlives_its_broker_twice(runtime, tmp_path):
    """After each restart it says again that it is ready, and takes part in the next cycle."""
    if runtime == "micropython":
        require_micropython()
    first = open_broker("mosquitto", tmp_path / "broker")
    with node_on(runtime, first, tmp_path / "node") as problems:
        takes_part(first.port, 1)
        first.close()
        for cycle in (2, 3):
            with mosquitto_on(first.port):
                takes_part(first.port, cycle)
            assert [] == problems()


def takes_part(port, cycle):
    """The node comes to this broker, and answers a beacon with a report."""
    observer = Observer(port)
    observer.until(lambda: observer.words(STATE))
    assert {b"ready"} == set(observer.words(STATE))
    observer.client.publish("tm/1/memory/cycle", beacon_of(cycle))
    observer.until(lambda: cycle in [report[4] for report in observer.words(UP)])
    observer.close()
