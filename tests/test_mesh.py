"""The mesh's own side: nodes that are killed and restarted, and what it says when the host of all of them is gone."""

import os
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mesh_in_memory import make_site
from on_micropython import require_micropython

from gateway.broker import LOOPBACK, Broker, free_port
from gateway.model import SPECS
from gateway.start_weights import start_filters
from tools.mesh.mesh import Mesh, MeshError, NodeKind

SITE = make_site(1, 1)
WAIT_S_MAX = 20.0
KINDS = {"cpython": NodeKind("cpython", None), "micropython": NodeKind("micropython", "32K")}


def prepared(mesh, port):
    """One node, and where it looks for its broker."""
    sensors = {(0, 0): {"kind": "simulated", "seed": 1, "mean_ccel": 2200}}
    mesh.prepare(Broker(LOOPBACK, port, "none"), start_filters(SPECS["lean"]).pack(SITE.name), "", sensors)
    return mesh


@pytest.fixture
def mesh(tmp_path):
    """One node on CPython that finds no broker."""
    with Mesh(SITE, KINDS["cpython"], tmp_path) as made:
        prepared(made, free_port()).start()
        yield made


@contextmanager
def listener():
    """Takes connections and says nothing; nothing that is awaited of it may take long."""
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(WAIT_S_MAX)
        yield server


@contextmanager
def connected(server):
    """The next node that connects."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(WAIT_S_MAX)
        assert connection.recv(1) == b"\x10"  # CONNECT
        yield connection


def is_gone(connection):
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


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


@pytest.mark.parametrize("runtime", KINDS)
def test_a_node_can_be_killed_and_restarted_and_restarted_while_it_runs(runtime, tmp_path):
    if runtime == "micropython":
        require_micropython()
    with listener() as server, Mesh(SITE, KINDS[runtime], tmp_path) as mesh:
        prepared(mesh, server.getsockname()[1]).start()
        with connected(server) as first:
            mesh.kill([(0, 0)])
            assert is_gone(first)
        for _ in range(2):
            mesh.restart([(0, 0)])
            with connected(server) as second:
                mesh.restart([(0, 0)])
                assert is_gone(second)
            with connected(server) as third:
                mesh.kill([(0, 0)])
                assert is_gone(third)
        assert [] == mesh.problems()


@pytest.mark.parametrize("runtime", KINDS)
def test_nodes_that_give_way_do_so_whatever_process_they_run_in(runtime, tmp_path):
    if runtime == "micropython":
        require_micropython()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with listener() as server, Mesh(SITE, KINDS[runtime], tmp_path, niceness=3) as mesh:
        prepared(mesh, server.getsockname()[1]).start()
        with connected(server):
            host = mesh._host.pid
            pids = [host, *map(int, Path(f"/proc/{host}/task/{host}/children").read_text().split())]
            found = [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids]
            groups = [file.read_text() for pid in pids if (file := Path(f"/proc/{pid}/autogroup")).exists()]
            assert [own + 3] * {"cpython": 1, "micropython": 2}[runtime] == found
            assert all(group.endswith(" nice 3\n") for group in groups), groups


def test_a_node_that_ended_by_itself_is_no_problem_any_more_once_it_was_restarted(tmp_path):
    require_micropython()
    with listener() as server, Mesh(SITE, KINDS["micropython"], tmp_path) as mesh:
        prepared(mesh, server.getsockname()[1])
        config = tmp_path / "n-00-00.json"
        config.rename(tmp_path / "away")
        mesh.start()
        deadline = time.monotonic() + WAIT_S_MAX
        while not mesh.problems():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ended = mesh.ended
        assert ["n-00-00"] == list(ended)
        (tmp_path / "away").rename(config)
        mesh.restart([(0, 0)])
        with connected(server):  # the host's word that it started may come later than the node itself
            while mesh.problems():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert ["n-00-00"] == list(ended)  # what was read earlier does not change under its reader
