"""Cycle assembly: reports of one cycle, in any order and number, become one record; what is due and missing is late."""

import itertools

import numpy as np
import pytest

from gateway.cycles import GONE_CYCLES, Assembly, Presence
from gateway.site import site_of_cells
from gateway.twin import NOTHING
from protocol import frame, grid
from protocol.report import Report, pack

CYCLE, CHANNELS, EXCHANGES = 7, 2, 2
# Two blocks, the second of a single column: (0, 0) (0, 1) (0, 2) over (1, 0) (1, 1) (1, 2).
SITE = site_of_cells("two-blocks", {(row, col) for row in range(2) for col in range(3)})
NOBODY = np.zeros(SITE.mask.shape, np.bool_)


class Gathered:
    """What an owner gathered, as protocol.report.pack wants it."""

    exchanges = EXCHANGES

    def __init__(self, pooled=0, no_reading=0, absence=(), readings=None):
        self.pooled, self.no_reading = pooled, no_reading
        self.absence = [byte for corner in range(4) for byte in dict(absence).get(corner, (0,) * self.exchanges)]
        self.with_readings, self.readings = readings is not None, readings or [0] * 4


def report(features, owner=(0, 0), **gathered):
    return Report(pack(frame.header(frame.REPORT, *owner, 1, CYCLE, 1), 9, 1, Gathered(**gathered), features))


def assembly(absent=NOBODY):
    return Assembly(SITE, CYCLE, CHANNELS, EXCHANGES, absent)


def full(presence=None, absence=()):
    """Both blocks reported, nothing lost but what `absence` says of the first block."""
    made = assembly()
    assert made.take((0, 0), report((3, 4), pooled=0b1111, absence=absence, readings=[2000, 2001, 2010, 2011]))
    assert made.take((0, 2), report((5, 6), (0, 2), pooled=0b0101, readings=[2002, 0, 2012, 0]))
    return made


def close(made, presence=None):
    return made.close(presence or Presence(SITE))


def test_the_reports_of_all_blocks_make_a_whole_record():
    made = full()
    assert made.is_complete(SITE.mask)
    record = close(made)
    assert (CYCLE, 0) == (record.cycle, record.late)
    assert [[[3, 4], [5, 6]]] == record.features.tolist()
    assert [[2000, 2001, 2002], [2010, 2011, 2012]] == record.readings_ccel.tolist()
    assert record.has_reading.all()
    assert record.pooled.all()
    assert not record.no_reading.any()


def test_a_cycle_without_a_report_is_all_late_and_has_no_features():
    record = close(assembly())
    assert [NOTHING] * 4 == record.features.ravel().tolist()
    assert 6 == record.late


def test_a_report_said_twice_is_counted_once_more_and_changes_nothing():
    made = full()
    assert not made.take((0, 0), report((255, 255), pooled=0b1111))
    assert not made.take((0, 1), report((255, 255), pooled=0b0011))
    assert (2, 0) == (made.doubles, made.misfits)
    assert [3, 4] == close(made).features[0, 0].tolist()


def test_the_order_of_reports_does_not_matter():
    told = [
        ((0, 0), report((9, 0), pooled=0b0001, no_reading=0b1000)),
        ((0, 1), report((0, 8), (0, 1), pooled=0b0110)),
        ((0, 2), report((5, 6), (0, 2), pooled=0b0001, no_reading=0b0100)),
    ]
    records = []
    for order in itertools.permutations(told):
        made = assembly()
        taken = [made.take(*each) for each in order]
        assert all(taken)
        records.append(close(made))
    for name in ("features", "pooled", "no_reading"):
        assert all(np.array_equal(getattr(records[0], name), getattr(record, name)) for record in records), name
    assert [9, 8] == records[0].features[0, 0].tolist()


@pytest.mark.parametrize(
    ("owner", "told"),
    {
        "a member outside the grid": ((0, 2), report((5, 6), (0, 2), pooled=0b0011)),
        "silence outside the grid": ((0, 2), report((5, 6), (0, 2), pooled=0b0001, no_reading=0b0010)),
        "too many channels": ((0, 0), report((1, 2, 3), pooled=0b0001)),
        "too few channels": ((0, 0), report((1,), pooled=0b0001)),
    }.values(),
)
def test_a_report_that_does_not_fit_is_counted_and_changes_nothing(owner, told):
    made = assembly()
    assert not made.take(owner, told)
    assert (0, 1) == (made.doubles, made.misfits)
    assert not made.accounted.any()
    assert NOTHING == close(made).features.max()


def test_a_report_of_other_exchanges_does_not_fit():
    made = assembly()
    told = report((1, 2), pooled=0b0001)
    told.exchanges = 1
    assert not made.take((0, 0), told)
    assert 1 == made.misfits


def test_a_report_that_speaks_of_a_hole_does_not_fit():
    holed = site_of_cells("holed", {(0, 0), (0, 1), (1, 0), (2, 2)})
    made = Assembly(holed, CYCLE, CHANNELS, EXCHANGES, np.zeros(holed.mask.shape, np.bool_))
    assert not made.take((0, 0), report((1, 2), pooled=0b1111))
    assert made.take((0, 0), report((1, 2), pooled=0b0111))


def test_a_block_is_settled_when_none_of_its_members_can_have_made_another_report():
    made = assembly()
    assert [[False, False]] == made.settled_blocks.tolist()
    made.take((0, 2), report((), (0, 2), no_reading=0b0101))
    assert [[False, False]] == made.settled_blocks.tolist(), "(1, 2) has no reading, yet may own the block"
    made.take((1, 2), report((), (1, 2), no_reading=0b0100))
    assert [[False, False]] == made.settled_blocks.tolist(), "that it says nothing new is no report taken"
    made.take((0, 0), report((1, 2), pooled=0b0111))
    assert [[False, False]] == made.settled_blocks.tolist(), "(1, 1) is missing"
    made.take((0, 1), report((1, 2), (0, 1), pooled=0b1110))
    assert [[True, False]] == made.settled_blocks.tolist()


def test_an_owner_without_a_reading_settles_its_block():
    made = assembly()
    made.take((0, 2), report((1, 2), (0, 2), pooled=0b0100, no_reading=0b0001))
    assert [[False, True]] == made.settled_blocks.tolist()


def test_nobody_settles_a_block_of_which_nothing_came_or_of_which_somebody_is_absent():
    absent = NOBODY.copy()
    absent[:, 2] = absent[1, 1] = True
    made = assembly(absent)
    made.take((0, 0), report((1, 2), pooled=0b0111))
    assert [[False, False]] == made.settled_blocks.tolist()


def test_only_cells_worth_waiting_for_hold_a_cycle_open():
    made = assembly()
    made.take((0, 0), report((1, 2), pooled=0b0111, no_reading=0b1000))
    assert not made.is_complete(SITE.mask)
    awaited = SITE.mask.copy()
    awaited[:, 2] = False
    assert made.is_complete(awaited)


def test_readings_that_were_not_carried_along_are_not_there():
    made = assembly()
    made.take((0, 0), report((1, 2), pooled=0b1111))
    assert not close(made).has_reading.any()


# Late


def test_each_unit_that_was_not_pooled_is_late():
    made = assembly()
    made.take((0, 0), report((3, 4), pooled=0b0111))
    made.take((0, 2), report((5, 6), (0, 2), pooled=0b0101))
    assert 1 == close(made).late


def test_a_cell_that_said_it_has_no_reading_is_not_late():
    made = assembly()
    made.take((0, 0), report((3, 4), pooled=0b0111, no_reading=0b1000))
    made.take((0, 2), report((5, 6), (0, 2), pooled=0b0101))
    record = close(made)
    assert 0 == record.late
    assert [(1, 1)] == [tuple(cell) for cell in np.argwhere(record.no_reading)]


def test_a_cell_of_which_two_owners_say_different_things_was_there():
    made = assembly()
    made.take((0, 0), report((3, 4), pooled=0b0001, no_reading=0b1000))
    made.take((0, 1), report((3, 9), (0, 1), pooled=0b1110))
    record = close(made)
    assert ([3, 9], False) == (record.features[0, 0].tolist(), bool(record.no_reading[1, 1]))


def bit(cell, other):
    return 1 << grid.slot_of(*cell, *other)


def test_each_replaced_value_of_a_neighbour_that_was_due_is_late():
    """(0, 0) did without (0, 1) in both exchanges, and without (1, 1) in the second."""
    absence = {0: (bit((0, 0), (0, 1)), bit((0, 0), (0, 1)) | bit((0, 0), (1, 1)))}
    assert 3 == close(full(absence=absence.items())).late


def test_a_replaced_value_of_a_neighbour_without_a_reading_is_not_late():
    made = assembly()
    absence = {0: (bit((0, 0), (1, 1)),) * 2, 1: (bit((0, 1), (1, 1)),) * 2}
    made.take((0, 0), report((3, 4), pooled=0b0111, no_reading=0b1000, absence=absence.items()))
    made.take((0, 2), report((5, 6), (0, 2), pooled=0b0101, absence={0: (bit((0, 2), (1, 1)), 0)}.items()))
    assert 0 == close(made).late


# Gone


def cycles_without(cell, count, presence):
    """So many cycles in which everybody but one cell is accounted for."""
    accounted = SITE.mask.copy()
    accounted[cell] = False
    for _ in range(count):
        presence.close_cycle(accounted)


def test_a_cell_unaccounted_for_in_three_whole_cycles_is_gone():
    assert 3 == GONE_CYCLES
    presence = Presence(SITE)
    cycles_without((1, 1), 2, presence)
    assert not presence.gone.any()
    cycles_without((1, 1), 1, presence)
    assert [(1, 1)] == [tuple(cell) for cell in np.argwhere(presence.gone)]


def test_one_report_brings_a_gone_cell_back():
    presence = Presence(SITE)
    cycles_without((1, 1), 5, presence)
    presence.close_cycle(SITE.mask)
    assert not presence.gone.any()


def test_holes_are_never_gone_for_they_were_never_there():
    holed = site_of_cells("holed", {(0, 0), (2, 2)})
    presence = Presence(holed)
    for _ in range(10):
        presence.close_cycle(np.zeros(holed.mask.shape, np.bool_))
    assert 2 == presence.gone.sum()


def test_a_closed_cycle_teaches_presence():
    presence = Presence(SITE)
    for _ in range(3):
        made = assembly()
        made.take((0, 0), report((3, 4), pooled=0b0111))
        made.take((0, 2), report((5, 6), (0, 2), pooled=0b0101))
        made.close(presence)
    assert [(1, 1)] == [tuple(cell) for cell in np.argwhere(presence.gone)]


@pytest.mark.parametrize("speaks", [False, True])
def test_an_absent_cell_is_without_a_reading_unless_a_report_speaks_of_it(speaks):
    absent = NOBODY.copy()
    absent[1, 1] = True
    made = assembly(absent)
    made.take((0, 0), report((3, 4), pooled=0b1111 if speaks else 0b0111))
    made.take((0, 2), report((5, 6), (0, 2), pooled=0b0101))
    record = close(made)
    assert (not speaks, 0) == (bool(record.no_reading[1, 1]), record.late)
