"""A small mesh of real MicroPython nodes with the smallest heap there may be, a real mosquitto, the real gateway."""

from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from mesh_in_memory import RUN, make_model
from on_micropython import require_micropython

from gateway import service
from gateway.broker import Broker, open_broker
from gateway.gateway import Gateway, Timing
from gateway.link import Link
from tools.flash.build import build
from tools.mesh.mesh import HEAP_MIN, Mesh, NodeKind

HEAP = f"{HEAP_MIN // 1024}K"
# Long enough for a machine with other work; a complete cycle never waits for them.
TIMING = Timing(period_ms=20_000, exchange_ms=3_000, gather_ms=3_000, report_ms=3_000)
READY_S_MAX = 30.0


class RealMesh(NamedTuple):
    broker: Broker
    mesh: Mesh
    gateway: Gateway
    link: Link

    def run_cycle(self):
        return service.run_cycle(self.gateway, self.link)

    def listen_until(self, condition, seconds):
        return service.listen_until(self.gateway, self.link, condition, seconds)

    def ask_health(self):
        """Every node's counters as they are now, by cell."""
        self.gateway.health.clear()
        self.link.publish_beacon(self.gateway.ask_health())
        assert self.listen_until(lambda: len(self.gateway.health) == len(self.gateway.site.cells), READY_S_MAX)
        return dict(self.gateway.health)


def sensor_of(row, col):
    return {"kind": "simulated", "seed": 7 * row + col, "mean_ccel": 2_200 + 90 * row * col}


@contextmanager
def real_mesh(folder, site, spec, viper=True):
    """Everything started, every node ready."""
    require_micropython()
    model = make_model(spec, site)
    with ExitStack() as stack:
        broker = stack.enter_context(open_broker("mosquitto", folder / "broker"))
        link = stack.enter_context(Link(broker.host, broker.port, site.name))
        gateway = Gateway(site, model, TIMING, RUN)
        mesh = stack.enter_context(Mesh(site, NodeKind("micropython", HEAP), folder / "nodes"))
        mesh.prepare(broker, model.filters.pack(site.name), "", {cell: sensor_of(*cell) for cell in site.cells})
        if not viper:
            build(folder / "nodes", viper=False)
        mesh.start()
        made = RealMesh(broker, mesh, gateway, link)
        all_ready = made.listen_until(lambda: len(gateway.states) == len(site.cells), READY_S_MAX)
        assert all_ready, (gateway.states, mesh.problems())
        yield made
