"""The mesh's own side: what it says when the process that holds all nodes is gone."""

import os
import signal

import pytest
from broker_bench import free_port
from mesh_in_memory import make_site

from gateway.broker import LOOPBACK, Broker
from gateway.model import SPECS
from gateway.start_weights import start_filters
from tools.mesh.mesh import Mesh, MeshError, NodeKind

SITE = make_site(1, 1)


@pytest.fixture
def mesh(tmp_path):
    """One node on CPython that finds no broker."""
    with Mesh(SITE, NodeKind("cpython", None), tmp_path) as made:
        sensors = {(0, 0): {"kind": "simulated", "seed": 1, "mean_ccel": 2200}}
        filters = start_filters(SPECS["lean"]).pack(SITE.name)
        made.prepare(Broker(LOOPBACK, free_port(), "none"), filters, "", sensors)
        made.start()
        yield made


def test_an_order_to_a_host_that_died_is_an_error_in_one_line(mesh):
    os.kill(mesh._host.pid, signal.SIGKILL)
    mesh._host.wait(10)
    for _ in range(2):
        with pytest.raises(
            MeshError, match=r"^nodes: the host of all of them ended with code -9; start the mesh again$"
        ):
            mesh.kill([(0, 0)])


def test_a_host_that_lives_takes_orders(mesh):
    mesh.kill([(0, 0)])
    assert [] == mesh.problems()


def test_nobody_gives_orders_to_a_mesh_that_was_not_started(tmp_path):
    with pytest.raises(RuntimeError, match="not started"):
        Mesh(SITE, NodeKind("cpython", None), tmp_path).kill([(0, 0)])
