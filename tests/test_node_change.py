"""One real node in mode change, and every frame that it could hear."""

import pytest
from mesh_in_memory import RUN, TIMING, make_site
from node_bench import (
    AROUND,
    CENTRE,
    MATES,
    PERIOD_MS,
    READING_CCEL,
    SQUARE,
    Bench,
    Steady,
    activations_of,
    beacon_of,
    head_of,
    member_of,
    no_reading_of,
    reading_of,
    readings_of,
)

import firmware.node
from firmware.change import Change
from firmware.quiet import GONE, HEARTBEAT, heartbeat_due
from firmware.stages import DONE, TO_BLOCK, TO_GATEWAY, TO_HALO
from gateway.carried_reports import Reports
from protocol import beacon, frame
from protocol.filter_set import TRIAL
from protocol.report import Report

CHANGE = beacon.MODE_CHANGE
OWNER = (0, 0)


def start(bench, cycle=1, **fields):
    """Open a cycle; what the node says at once."""
    return bench.hear(beacon_of(cycle, flags=CHANGE, **fields))


def finish(bench):
    """Let the rest of the cycle's times pass; what the node says in them."""
    before = len(bench.said)
    for duration_ms in (TIMING.exchange_ms, TIMING.exchange_ms, TIMING.gather_ms):
        bench.wait(duration_ms)
    return bench.said[before:]


def settled_bench(cell=CENTRE, sensor=None, spec="seed"):
    """A node in mode change after a first cycle in which all neighbours said everything, in its second one."""
    bench = Bench(cell, spec=spec, sensor=sensor or Steady())
    start(bench)
    others = [other for other in SQUARE.cells if max(abs(other[0] - cell[0]), abs(other[1] - cell[1])) == 1]
    bench.hear(*[reading_of(other, 1) for other in others])
    bench.hear(*[activations_of(other, 1) for other in others])
    bench.hear(*[member_of(other, 1) for other in (*MATES, CENTRE) if other in others])
    finish(bench)
    start(bench, 2, acked=[(0, 0)])
    bench.said.clear()
    return bench


def next_cycle(bench, cycle, **fields):
    """A whole further cycle in which nobody else speaks; what the node says."""
    said = start(bench, cycle, acked=[(0, 0)], **fields)
    return said + finish(bench)


def kinds_of(said):
    return [frame.KINDS[data[0] & 15] for _, data in said]


# What is said


def test_in_its_first_cycle_a_node_asks_for_what_it_missed_and_says_everything():
    bench = Bench()
    start(bench)
    bench.hear(reading_of(OWNER, 1))
    finish(bench)
    assert ["refresh", "reading", "activations", "member"] == kinds_of(bench.said)
    assert [TO_HALO, TO_HALO, TO_HALO, TO_BLOCK] == [to for to, _ in bench.said]


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [(CHANGE, ["refresh", "reading"]), (beacon.MODE_ALWAYS, ["reading"])],
    ids=["the same", "another"],
)
def test_after_a_mode_that_there_was_no_room_to_open_the_next_beacon_opens_one(flags, kinds, monkeypatch):
    def fill(mode, node):
        raise MemoryError

    bench, forgotten = Bench(), []
    monkeypatch.setattr(firmware.node, "forget", forgotten.append)
    with monkeypatch.context() as patch:
        patch.setattr(Change, "__init__", fill)
        with pytest.raises(MemoryError):
            start(bench)
    assert [] == bench.hear(*readings_of(AROUND, 1)) + bench.wait(2 * PERIOD_MS)
    assert kinds == kinds_of(bench.hear(beacon_of(2, flags=flags)))
    assert ["firmware.layerwise", "firmware.change"] == forgotten


def test_the_threshold_comes_with_the_beacon():
    bench = settled_bench()
    bench.node._sensor = Steady(READING_CCEL + 25)
    assert [] == start(bench, 3)
    bench.node._sensor = Steady(READING_CCEL + 26)
    assert [(TO_HALO, reading_of(CENTRE, 4, READING_CCEL + 26))] == start(bench, 4)


@pytest.mark.parametrize("reading_ccel", [READING_CCEL + 20, None])
def test_a_heartbeat_says_the_present_reading_and_everything_else(reading_ccel):
    bench = settled_bench()
    due = next(cycle for cycle in range(3, 3 + HEARTBEAT) if heartbeat_due(*CENTRE, cycle))
    bench.node._sensor = Steady(reading_ccel)
    for cycle in range(3, due):
        next_cycle(bench, cycle)
    said = next_cycle(bench, due)
    if reading_ccel is None:
        assert [(TO_HALO, no_reading_of(CENTRE, due))] == said
    else:
        assert ["reading", "activations", "member"] == kinds_of(said)
        assert reading_of(CENTRE, due, reading_ccel) == said[0][1]


def test_units_are_computed_from_the_own_last_word():
    """Within the threshold nothing is computed anew, so what is said at the heartbeat of others stays the same."""
    bench = settled_bench()
    bench.node._sensor = Steady(READING_CCEL + 25)
    assert [] == next_cycle(bench, 3)
    assert READING_CCEL == bench.node.mode._word


def test_who_is_asked_says_its_last_word_and_everything_again_once():
    bench = settled_bench()
    bench.node._sensor = Steady(READING_CCEL + 20)
    start(bench, 3)
    bench.hear(head_of(frame.REFRESH, (0, 1), 3), head_of(frame.REFRESH, (2, 2), 3))
    assert [(TO_HALO, reading_of(CENTRE, 3))] == bench.said
    assert ["activations", "member"] == kinds_of(finish(bench))
    assert [] == next_cycle(bench, 4)


def test_who_spoke_in_this_cycle_does_not_say_its_word_again():
    bench = settled_bench()
    bench.node._sensor = Steady(READING_CCEL + 100)
    start(bench, 3)
    bench.said.clear()
    assert [] == bench.hear(head_of(frame.REFRESH, (0, 1), 3))


def test_who_is_asked_after_its_units_were_computed_says_them_in_the_next_cycle():
    bench = settled_bench()
    finish(bench)
    assert [(TO_HALO, reading_of(CENTRE, 2))] == bench.hear(head_of(frame.REFRESH, (0, 1), 2))
    assert ["activations", "member"] == kinds_of(next_cycle(bench, 3))


def test_losing_and_regaining_a_reading_is_said_and_then_everything():
    bench = settled_bench()
    finish(bench)
    bench.node._sensor = Steady(None)
    assert [(TO_HALO, no_reading_of(CENTRE, 3))] == next_cycle(bench, 3)
    assert [] == next_cycle(bench, 4)
    bench.node._sensor = Steady()
    assert ["reading", "activations", "member"] == kinds_of(next_cycle(bench, 5))


def test_a_proof_is_the_last_word_and_comes_after_everything_else():
    bench = settled_bench(OWNER)
    bench.node._sensor = Steady(READING_CCEL + 20)
    finish(bench)
    bench.hear(beacon_of(3, flags=CHANGE | beacon.WANT_PROOF), member_of((0, 1), 3, (99,) * 5))
    said = finish(bench)
    assert ["report", "proof"] == kinds_of(said)
    assert frame.proof(head_of(frame.PROOF, OWNER, 3), 0, READING_CCEL) == said[-1][1]


def test_a_node_without_the_cycles_filters_says_and_proves_words_and_nothing_else():
    bench = settled_bench()
    bench.node._sensor = Steady(READING_CCEL + 100)
    said = bench.hear(beacon_of(3, flags=CHANGE | beacon.WANT_PROOF, version=7)) + finish(bench)
    assert ["reading", "proof"] == kinds_of(said)
    assert [(TO_HALO, frame.READING), (TO_GATEWAY, frame.PROOF)] == [(to, data[0] & 15) for to, data in said]


# What is known


def words_of(bench):
    """Slots with a reading, without one, and whose word is not known."""
    heard = bench.node.mode._heard
    return heard.around.arrived[0], heard.around.no_reading, bench.node.exists & ~heard._slots


def test_what_was_said_stays_known_until_it_is_too_old():
    bench = settled_bench()
    for cycle in range(3, 1 + GONE):
        next_cycle(bench, cycle)
    assert (255, 0, 0) == words_of(bench)
    next_cycle(bench, 1 + GONE)
    assert (0, 0, 255) == words_of(bench)
    assert bytes(2) == bytes(bench.node.mode._heard.around.arrived)
    assert 0 == bench.node.mode._heard._handed


def test_a_late_word_is_taken_and_does_not_replace_a_later_one():
    bench = settled_bench()
    finish(bench)
    start(bench, 5)
    bench.hear(reading_of((1, 2), 4, 3_000))
    assert 3_000 == bench.node.mode._heard._words_ccel[4]
    bench.hear(reading_of((1, 2), 3, 9_000), no_reading_of((1, 2), 2))
    assert 3_000 == bench.node.mode._heard._words_ccel[4]
    assert (255, 0, 0) == words_of(bench)
    assert 2 == bench.faults()["stale"]


def test_late_activations_and_members_do_not_replace_later_ones():
    bench = settled_bench()
    start(bench, 5)
    around = bench.node.mode._heard.around
    bench.hear(activations_of((0, 0), 4, (4,) * 5), member_of((0, 0), 4, (4,) * 5))
    bench.hear(activations_of((0, 0), 3, (3,) * 5), member_of((0, 0), 3, (3,) * 5))
    assert [4] * 5 == [around.inputs[1][channel * 9] for channel in range(5)]
    assert bytes([0, 0, 4, 4, 4, 4, 4]) == bench.node.mode._heard._members[:7]
    assert 2 == bench.faults()["stale"]


def test_who_has_no_reading_is_forgotten_and_what_it_said_before_comes_too_late():
    bench = settled_bench()
    start(bench, 3)
    bench.hear(no_reading_of((0, 0), 3), activations_of((0, 0), 2), member_of((0, 0), 2))
    heard = bench.node.mode._heard
    assert [254, 254] == list(heard.around.arrived)
    assert (1, 0) == (heard.around.no_reading, heard._handed & 1)
    bench.hear(reading_of((0, 0), 4), activations_of((0, 0), 4))
    assert [255, 255] == list(heard.around.arrived)
    assert 0 == heard.around.no_reading


def test_activations_of_other_filters_are_not_taken_and_asked_for_once_the_filters_are_the_same(tmp_path):
    bench = settled_bench()
    start(bench, 3)
    bench.hear(activations_of((0, 1), 3, (9,) * 5, version=2))
    assert 0 == bench.node.mode._heard.around.inputs[1][1]
    assert [] == start(bench, 4)
    bench.node.mode._filters = None  # as if others were active by now
    assert ["refresh", "reading"] == kinds_of(start(bench, 5))


def test_a_frame_of_another_shape_is_counted_and_changes_nothing():
    bench = settled_bench()
    before = bytes(bench.node.mode._heard._members)
    bench.hear(activations_of((0, 0), 2, (1,) * 4), activations_of((0, 0), 2, exchange=2))
    bench.hear(member_of((0, 0), 2, (1,) * 3))
    assert 3 == bench.faults()["other_shape"]
    assert before == bytes(bench.node.mode._heard._members)


def test_frames_of_mode_event_and_of_earlier_runs_are_counted_and_change_nothing():
    bench = settled_bench()
    bench.hear(frame.value(head_of(frame.VALUE, (0, 1), 2), 900), head_of(frame.STATE, (0, 1), 2) + b"\1")
    bench.hear(reading_of((0, 1), 2, 900, run=RUN - 1))
    assert 3 == bench.faults()["stale"]
    assert READING_CCEL == bench.node.mode._heard._words_ccel[1]


def test_a_word_of_the_next_run_is_taken_before_its_beacon():
    bench = settled_bench()
    bench.hear(reading_of((0, 1), 0, 900, run=RUN + 1))
    assert 900 == bench.node.mode._heard._words_ccel[1]
    assert 2 == bench.node.cycle


def test_a_neighbours_frame_opens_the_next_cycle():
    bench = settled_bench()
    finish(bench)
    bench.hear(reading_of((0, 1), 3))
    assert 3 == bench.node.cycle
    bench.hear(reading_of((0, 1), 30))
    assert 3 == bench.node.cycle


# The block


def reports_of(said):
    return [Report(data) for to, data in said if data[0] & 15 == frame.REPORT]


def test_the_owner_gathers_what_was_handed_over_last_and_reports_what_is_new():
    bench = settled_bench(OWNER)
    assert [] == reports_of(finish(bench))
    start(bench, 3, acked=[(0, 0)])
    bench.hear(member_of((0, 1), 3, (7, 0, 0, 0, 200)), member_of((1, 0), 3, (0,) * 5, absence=(0, 4)))
    (report,) = reports_of(finish(bench))
    assert 15 == report.pooled
    assert [7, 200] == [max(report.features[0], 7), report.features[4]]
    assert (0, 4) == report.absence[2]
    assert [None] * 4 == report.readings
    assert [] == reports_of(next_cycle(bench, 4))


def test_a_maximum_falls_when_the_member_that_held_it_says_less():
    bench = settled_bench(OWNER)
    finish(bench)
    start(bench, 3, acked=[(0, 0)])
    bench.hear(member_of((0, 1), 3, (255,) * 5))
    assert bytes([255] * 5) == reports_of(finish(bench))[0].features
    start(bench, 4, acked=[(0, 0)])
    bench.hear(member_of((0, 1), 4))
    assert bytes([255] * 5) > reports_of(finish(bench))[0].features


def test_a_report_is_said_again_with_every_beacon_that_could_acknowledge_it_and_does_not():
    bench = settled_bench(OWNER)
    bench.hear(member_of((0, 1), 2, (99,) * 5))
    (report,) = reports_of(finish(bench))
    for cycle in (4, 5):
        assert [report.seq] == [again.seq for again in reports_of(bench.hear(beacon_of(cycle, flags=CHANGE)))]
        assert [] == reports_of(finish(bench))
    bench.hear(beacon_of(6, flags=CHANGE, acked=[(0, 0)], acked_cycle=2))
    assert [] == reports_of(next_cycle(bench, 7))


def test_an_owner_without_a_reading_reports_the_others():
    bench = settled_bench(OWNER)
    finish(bench)
    bench.node._sensor = Steady(None)
    (report,) = reports_of(next_cycle(bench, 3))
    assert (14, 1) == (report.pooled, report.no_reading)


def test_the_next_corner_owns_the_block_while_the_first_is_not_heard_of_and_hands_over_when_it_is():
    bench = Bench((0, 1))
    start(bench)
    assert ["activations", "report"] == kinds_of(finish(bench))
    start(bench, 2, acked=[(0, 0)])
    bench.hear(reading_of(OWNER, 2))
    assert ["member"] == kinds_of(finish(bench))


def test_owners_of_other_filters_do_not_count():
    bench = Bench((0, 1))
    start(bench)
    bench.hear(reading_of(OWNER, 1, version=9))
    assert "report" in kinds_of(finish(bench))


@pytest.mark.parametrize("reading_ccel", [READING_CCEL, None])
def test_each_whole_cycle_counts_for_filters_on_trial(reading_ccel):
    bench = settled_bench(sensor=Steady(reading_ccel))
    bench.node.wave.phase, bench.node.wave.completed = TRIAL, 0
    for cycle in (3, 4):
        next_cycle(bench, cycle)
    assert 2 == bench.node.wave.completed
    assert DONE == bench.node.state


# The gateway


def report_frame(owner, cycle):
    bench = Bench(owner, make_site(2, 2), "lean")
    start(bench, cycle)
    return Report(next(data for _, data in finish(bench) if data[0] & 15 == frame.REPORT))


def test_of_two_reports_of_a_block_the_later_counts_and_two_of_one_cycle_both():
    reports, first, second = Reports(1), report_frame((0, 0), 1), report_frame((0, 1), 1)
    assert reports.take((0, 0), 5, first)
    assert reports.take((0, 1), 5, second)
    assert [((0, 0), first), ((0, 1), second)] == reports.by_owner()
    assert not reports.take((0, 0), 4, first)
    assert reports.take((0, 1), 6, second)
    assert [((0, 1), second)] == reports.by_owner()
