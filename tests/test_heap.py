"""The smallest heap: a node takes a wave in less than it."""

import json

import pytest

from gateway.model import SPECS
from tools import bench_heap, cli
from tools.mesh import mesh

# What lies where in a heap differs from node to node and run to run: many nodes need what one shows to be enough.
SPARE = 512
# What a machine with other work adds by itself; a heap that is full ends nodes, or costs connections and pulls.
BUSY = ("deadline", "late_report", "repeated", "came late")


@pytest.fixture(scope="module", params=bench_heap.SPEC_OF)
def after(tmp_path_factory, request):
    """Bytes in use by the step after which they were counted, in each mode."""
    return dict(bench_heap.steps(tmp_path_factory.mktemp("flash"), request.param))


def test_a_node_takes_less_than_30_kilobytes_whatever_it_is_doing(after):
    assert max(after.values()) < 30 * 1024


def test_a_set_that_comes_in_holds_little_of_the_heap_for_it_may_take_seconds(after):
    # The first load of some modules makes room for their names, about 1 KB at once.
    assert after["a signed set received into the flash"] - after[bench_heap.STAYS] < 2048


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "mode", "copies"), [*((spec, "always", 0) for spec in SPECS), ("zone", "event", 0), ("zone", "event", 2)]
)
def test_a_mesh_takes_a_wave_exactly_in_half_a_kilobyte_less_than_the_smallest_heap(
    spec, mode, copies, tmp_path, capsys, monkeypatch
):
    heap = mesh.HEAP_MIN - SPARE
    monkeypatch.setattr(mesh, "HEAP_MIN", heap)
    site = tmp_path / "site.toml"
    site.write_text('name = "small"\nrows = 7\ncols = 7\nholes = ["n-00-00", "n-03-03"]\n')
    asked = {"site": site, "spec": spec, "mode": mode, "copies": copies, "cycles": 24}
    assert 0 == cli.demo(**asked, runtime="micropython", heap=str(heap), as_json=True)
    summary = json.loads(capsys.readouterr().out)
    problems = [problem for problem in summary["problems"] if not any(word in problem for word in BUSY)]
    assert (47, 0, []) == (summary["filters"]["confirmed"], summary["filters"]["refused"], problems)
    assert summary["exact"]["compared"] == summary["exact"]["equal"] > 0
    assert {"1", "2"} == set(summary["filters"]["cycles"])
