"""What a node reported, it holds and says again until it is told that it is stored, and by whom it is told."""

from unittest.mock import Mock

import pytest
from mesh_in_memory import RUN
from node_bench import PERIOD_MS, Bench, Steady, beacon_of, head_of, no_reading_of, reading_of

from firmware import ring
from firmware.stages import TO_GATEWAY, TO_HALO
from protocol import beacon, frame, health, report
from protocol.report import Report


def test_a_report_that_the_next_beacon_does_not_confirm_is_repeated_bit_by_bit():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5))
    (report,) = bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    said = bench.hear(beacon_of(6, acked=[(0, 1), (1, 0), (1, 1)]))
    assert report == said[0]
    assert {"repeated": 1} == bench.faults()


def test_a_report_that_the_beacon_confirms_is_not_repeated():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5))
    bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert [TO_HALO] == [destination for destination, _ in bench.hear(beacon_of(6, acked=[(0, 0)]))]
    assert {} == bench.faults()


def test_a_beacon_that_speaks_of_another_cycle_settles_nothing():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5))
    bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    said = bench.hear(beacon_of(6, acked_cycle=3))
    assert [TO_HALO] == [destination for destination, _ in said]
    said = bench.hear(beacon_of(7, acked_cycle=5))
    assert [TO_GATEWAY, TO_HALO] == [destination for destination, _ in said]


def test_a_report_to_an_earlier_run_is_said_again_to_the_next_one_until_it_tells_that_it_has_it():
    """Whatever its beacons acknowledge is of its own run, also where it is that very cycle's number."""
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5))
    bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    for cycle in (5, 6):
        said = bench.hear(beacon_of(cycle, run=RUN + 1, acked=[(0, 0)], acked_cycle=5))
        assert [(RUN & 0xFF, 1)] == [(data[3], Report(data).seq) for where, data in said if where == TO_GATEWAY]
    bench.node.on_acknowledgement(report.pack_ack(bench.node.boot, 1, ()))
    bench.hear(beacon_of(7, run=RUN + 1))
    assert 2 == bench.count(health.REPEATED)


def reporting_bench(cycles):
    """An owner that reported in cycles of which no beacon spoke yet."""
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    for cycle in cycles:
        bench.hear(beacon_of(cycle, acked_cycle=0))
        bench.hear(*[no_reading_of(cell, cycle) for cell in [(0, 1), (1, 0), (1, 1)]])
    return bench


def reports_in(said):
    return [Report(data) for where, data in said if where == TO_GATEWAY]


def test_of_reports_that_wait_the_two_oldest_are_said_again_with_each_beacon():
    bench = reporting_bench(range(5, 10))
    assert [1, 2] == [found.seq for found in reports_in(bench.hear(beacon_of(10)))]
    bench.node.on_acknowledgement(report.pack_ack(bench.node.boot, 3, {1}))
    assert [1, 4] == [found.seq for found in reports_in(bench.hear(beacon_of(11)))]


def test_only_a_beacon_that_is_believed_has_reports_said_again():
    bench = reporting_bench([5])
    assert [1] == [found.seq for found in reports_in(bench.hear(beacon_of(6)))]
    assert [] == bench.hear(beacon_of(6), beacon_of(5), beacon_of(7)[:-1], beacon_of(8, flags=beacon.OPENS_NOTHING))
    assert 1 == bench.count(health.REPEATED)


def test_a_node_whose_memory_runs_out_over_what_waits_still_holds_it(monkeypatch):
    bench = reporting_bench(range(5, 8))
    with monkeypatch.context() as tight:
        tight.setattr(bench.node, "send", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            bench.hear(beacon_of(8))
    assert [1, 2, 3] == [Report(told).seq for told in bench.node.ring]


def test_a_beacon_confirms_the_report_of_the_one_cycle_that_it_speaks_of():
    bench = reporting_bench(range(5, 8))
    assert [1] == [found.seq for found in reports_in(bench.hear(beacon_of(8, acked=[(0, 0)], acked_cycle=6)))]
    assert [1, 3] == [found.seq for found in reports_in(bench.hear(beacon_of(9)))]


def test_no_beacon_confirms_the_report_of_a_cycle_whose_beacon_the_node_did_not_hear():
    """It was alone, by its own clock, and the gateway gave the number to a cycle of its own when it was back."""
    bench = reporting_bench([5])
    bench.node.on_acknowledgement(report.pack_ack(bench.node.boot, 1, ()))
    bench.wait(3 * PERIOD_MS)
    bench.hear(*[no_reading_of(cell, 8) for cell in [(0, 1), (1, 0), (1, 1)]])
    bench.wait(PERIOD_MS)
    bench.hear(beacon_of(8, acked_cycle=5))
    bench.hear(*[no_reading_of(cell, 8) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert [(1, False), (2, True), (3, False)] == [(found.seq, found.no_beacon) for found in reports_in(bench.said)]
    bench.hear(beacon_of(9, acked=[(0, 0)]))
    assert [2] == [Report(told).seq for told in bench.node.ring]


def test_of_two_reports_of_one_cycle_a_beacon_confirms_the_first():
    """Beacons that come twice, and out of order, can lead a node that a neighbour drew ahead into a cycle once more."""
    bench = reporting_bench([5])
    for data in (beacon_of(4), reading_of((0, 1), 6), beacon_of(5, acked_cycle=0)):
        bench.hear(data)
    bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert [(1, False), (2, False)] == [(Report(told).seq, Report(told).no_beacon) for told in bench.node.ring]
    assert [2] == [found.seq for found in reports_in(bench.hear(beacon_of(6, acked=[(0, 0)])))]


def test_what_lies_beyond_the_beacon_is_said_again_too():
    """The gateway stood still while the mesh went on; what is of its open cycle it cannot speak of yet."""
    bench = reporting_bench([5])
    for seq, cycle in ((2, 500), (3, 6)):
        ahead = report.pack(head_of(frame.REPORT, (0, 0), cycle), bench.node.boot, seq, Nothing(), b"")
        bench.node.tell_gateway(ahead)
    bench.poll()
    assert [2] == [found.seq for found in reports_in(bench.hear(beacon_of(6, acked=[(0, 0)])))]


def test_the_oldest_report_that_is_said_again_says_that_none_is_older_whatever_it_said_first():
    bench = reporting_bench(range(5, 8))
    bench.node.on_acknowledgement(report.pack_ack(bench.node.boot, 1, ()))
    assert [(2, False), (3, True)] == [(found.seq, found.has_older) for found in reports_in(bench.hear(beacon_of(8)))]


def test_a_state_that_waits_is_no_older_report_and_goes_with_its_mode():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.node.tell_gateway(head_of(frame.STATE, (0, 0), 4) + b"\x01")
    bench.hear(beacon_of(5))
    bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert [False] == [Report(data).has_older for _, data in bench.said if data[0] & 15 == frame.REPORT]
    bench.node._open_mode()
    assert not ring.holds(bench.node.ring, frame.STATE)


class Nothing:
    """A block of which nothing was gathered."""

    pooled = no_reading = 0
    exchanges, absence, readings, with_readings = 2, bytes(8), (0,) * 4, False


def test_a_report_says_whether_older_ones_wait():
    bench = reporting_bench(range(5, 8))
    assert [False, True, True] == [found.has_older for found in reports_in(bench.said)]
    bench.node.on_acknowledgement(report.pack_ack(bench.node.boot, 3, ()))
    bench.said.clear()
    bench.hear(beacon_of(8))
    bench.hear(*[no_reading_of(cell, 8) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert [False] == [found.has_older for found in reports_in(bench.said)]


def test_numbers_of_reports_count_on():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    for cycle in (5, 6, 7):
        bench.hear(beacon_of(cycle, acked=[(0, 0)]))
        bench.hear(*[no_reading_of(cell, cycle) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert [1, 2, 3] == [Report(data).seq for where, data in bench.said if where == TO_GATEWAY]
