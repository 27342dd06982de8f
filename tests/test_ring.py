"""The report ring: what is held, in which order it goes, and what acknowledgements take from it."""

import itertools

import pytest

from firmware import ring
from protocol import frame, report

HEAD = frame.header(frame.REPORT, 0, 0, 1, 1, 1)
BOOT = 0xFFFFFFFF


class Gathered:
    pooled, no_reading, exchanges, absence, readings, with_readings = 0b0001, 0, 1, bytes(4), (2200,) * 4, True


def report_of(seq, boot=BOOT, features=b"\x01"):
    return report.pack(HEAD, boot, seq, Gathered(), features)


def test_the_latest_frames_wait_in_order():
    held = []
    said = [report_of(seq) for seq in range(1, 100)]
    for data in said:
        ring.hold(held, data)
    assert said[-ring.FRAMES_MAX :] == held


def test_an_acknowledgement_can_speak_of_all_that_a_ring_holds():
    assert ring.FRAMES_MAX <= report.ACK_WINDOW


def test_a_ring_knows_which_kinds_it_holds():
    held = [report_of(1)]
    assert [True, False] == [ring.holds(held, kind) for kind in (frame.REPORT, frame.STATE)]
    ring.hold(held, frame.header(frame.STATE, 0, 0, 1, 1, 1) + b"\x01")
    assert [True, True] == [ring.holds(held, kind) for kind in (frame.REPORT, frame.STATE)]


def test_of_states_only_the_latest_is_held_and_reports_are_left_alone():
    held, said = [], report_of(1)
    states = [frame.header(frame.STATE, 0, 0, 1, cycle, 1) + b"\x01" for cycle in (1, 2)]
    for data in (states[0], said, states[1]):
        ring.hold(held, data)
    assert [said, states[1]] == held


@pytest.mark.parametrize("seq", [1, 5, 32, 33, 34, 1 << 30, 0xFFFFFFFF])
def test_an_acknowledgement_speaks_of_a_report_and_of_those_before_it_that_do_not_lack(seq):
    missing = {number for number in (seq - 1, seq - 3, seq - 32) if number > 0}
    ack = report.pack_ack(BOOT, seq, missing)
    assert report.is_ack(ack)
    for number in range(max(1, seq - 40), min(seq + 3, 0xFFFFFFFF)):
        expected = seq - report.ACK_WINDOW < number <= seq and number not in missing
        assert expected == report.is_acknowledged(ack, report_of(number)), number
    assert not report.is_acknowledged(ack, report_of(seq, boot=BOOT - 1))


def test_nothing_else_is_an_acknowledgement():
    ack = report.pack_ack(BOOT, 1, ())
    others = [ack[:-1], ack + b"\0", b"", b"\x20" + ack[1:], b"\x16" + ack[1:]]
    assert not any(map(report.is_ack, others))
    assert not any(map(report.is_ack, (report_of(1), *itertools.repeat(HEAD, 1))))


@pytest.mark.parametrize(("mark", "name"), [(report.HAS_OLDER, "has_older"), (report.NO_BEACON, "no_beacon")])
def test_a_report_bears_a_mark_and_is_else_the_same(mark, name):
    data = report.marked(report_of(7), mark, True)
    plain, marked = report.Report(report_of(7)), report.Report(data)
    assert (False, True) == (getattr(plain, name), getattr(marked, name))
    assert (False, True) == (report.has_mark(report_of(7), mark), report.has_mark(data, mark))
    assert report_of(7) == report.marked(data, mark, False)
    others = [[getattr(found, other) for other in found.__slots__ if other != name] for found in (plain, marked)]
    assert others[0] == others[1]
