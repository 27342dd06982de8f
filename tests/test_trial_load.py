"""The trial under load: what it says of a run, and that its nodes stand as it says."""

import pytest

from gateway.site import load_site
from tools import trial_load
from tools.trial_load import _WARM_CYCLES, Decided, cells, verdict, write_site

MB = 1 << 20


def decided(cycle, at_s=None, latency_ms=3.0, late=0, resident=100 * MB):
    return Decided(cycle, cycle if at_s is None else at_s, latency_ms, late, resident)


def a_run(*changed):
    """A fine one of 200 cycles behind those that do not count, some of them changed."""
    found = [decided(cycle, latency_ms=1e6, resident=1) for cycle in range(_WARM_CYCLES)]
    found += [decided(_WARM_CYCLES + cycle) for cycle in range(200)]
    for other in changed:
        found[other.cycle] = other
    return found


@pytest.mark.parametrize(
    ("run", "fine"),
    [
        (a_run(), True),
        (a_run(decided(219, at_s=220)), False),
        (a_run(*(decided(cycle, latency_ms=60) for cycle in (50, 51))), True),
        (a_run(*(decided(cycle, latency_ms=60) for cycle in (50, 51, 52))), False),
        (a_run(decided(100, resident=109 * MB)), True),
        (a_run(decided(100, resident=110 * MB)), False),
        (a_run(decided(219, resident=0)), True),
    ],
)
def test_a_run_is_fine_within_all_bounds(run, fine):
    assert fine == verdict(run)[1]


def test_the_lines_name_each_figure_with_its_bound():
    lines, _ = verdict(a_run(decided(219, at_s=221, late=2, resident=102 * MB)))
    assert [
        "200 cycles, 2 missed (bound 0), 2 late reports",
        "last report to decision: p50 3.0 ms, p99 3.0 ms (bound 50 ms)",
        "resident memory of the gateway: 100.0 MB, grew by 2.0 MB (bound 10 MB)",
    ] == lines


def test_400_nodes_have_no_neighbours_and_25_stand_together(tmp_path):
    write_site(tmp_path)
    masks = load_site(tmp_path / "site.toml").neighbour_masks
    alone, together = cells()
    assert (400, 25) == (len(alone), len(together))
    assert {0} == {int(masks[cell]) for cell in alone}
    assert 255 == masks[together[12]]


def test_a_machine_without_mosquitto_is_told(monkeypatch, capsys):
    monkeypatch.setattr(trial_load, "find_mosquitto", lambda: None)
    assert 2 == trial_load.main()
    assert "trial_load: mosquitto or MicroPython is not installed\n" == capsys.readouterr().err
