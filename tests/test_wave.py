"""The wave machine of one node: its states, its times over the wrap of the ticks, its way from one set to the next."""

import itertools

import pytest
from wave_bench import (
    ALLOWED,
    BEFORE_WRAP,
    PROVEN,
    PROVING,
    PULLING,
    QUIET,
    READ,
    RECEIVED,
    RECEIVING,
    RESTING,
    Bench,
    content,
)
from wave_sets import KEY, flashed, good

from firmware import slots
from firmware.wave import PASSED_OVER, PULL_MS, RETRY_MS, RETRY_SHIFT_MAX
from protocol.compat import TICKS_PERIOD, ticks_diff
from protocol.filter_set import CONFIRMED, STAGED
from protocol.health import REFUSED_SIGNATURE, WAVE_BROKEN

SLOT = 4  # of the neighbour that has something newer
SET = good(2)


def fresh(folder):
    """A node that has nothing but the set that it was flashed with."""
    for file in folder.iterdir():
        file.unlink()
    (folder / "f").write_bytes(flashed())
    return Bench(str(folder / "f"), KEY)


@pytest.fixture
def bench(tmp_path):
    return fresh(tmp_path)


def bring(bench, state):
    """Bring a fresh wave into a state by what happens to nodes."""
    if state == RESTING:
        bench.feed(SET, end=100)
        bench.wave.lose_link(bench.now_ms)
    if state in (PULLING, RECEIVING, RECEIVED, PROVING, PROVEN, READ):
        bench.wave.notice(SLOT, 2, bench.now_ms)
    if state == RECEIVING:
        bench.feed(SET, end=100)
    if state in (RECEIVED, PROVING, PROVEN, READ):
        bench.feed(SET)
        while bench.wave.state != state:
            assert bench.wave.step(bench.now_ms)
    assert state == bench.wave.state


# The way to a set


def test_from_noticing_to_holding_a_set_there_is_one_way(bench):
    bring(bench, READ)
    assert not bench.wave.step(bench.now_ms)
    states = [QUIET, PULLING, RECEIVING, RECEIVED, PROVING, PROVEN, READ, QUIET]
    assert list(itertools.pairwise(states)) == bench.wave.changes
    assert (STAGED, 2, 2, -1) == (bench.wave.phase, bench.wave.staged.version, bench.wave.highest, bench.wave.slot)
    assert {} == bench.faults()


def test_a_set_that_comes_unasked_needs_no_pull(bench):
    bench.take_in(SET)
    assert (QUIET, RECEIVING) == bench.wave.changes[0]
    assert STAGED == bench.wave.phase


def test_a_step_in_a_state_without_work_changes_nothing(bench):
    for state in (QUIET, PULLING, RECEIVING):
        bring(bench, state)
        before = list(bench.wave.changes)
        assert not bench.wave.step(bench.now_ms)
        assert before == bench.wave.changes


def test_there_is_more_to_do_at_once_from_received_to_read(bench):
    bench.feed(SET)
    more = []
    while bench.wave.state != QUIET:
        more.append(bench.wave.step(bench.now_ms))
    assert [True] * (len(more) - 1) + [False] == more
    assert 500 < len(more)


# What is noticed


@pytest.mark.parametrize("version", [1, 0, 0xFFFF, 0x8002])
def test_a_version_that_is_not_ahead_is_not_pulled(version, bench):
    bench.wave.notice(SLOT, version, bench.now_ms)
    assert (QUIET, -1) == (bench.wave.state, bench.wave.slot)


@pytest.mark.parametrize("version", [2, 3, 0x8001])
def test_a_version_that_is_ahead_is_pulled_from_that_neighbour(version, bench):
    bench.wave.notice(SLOT, version, bench.now_ms)
    assert (PULLING, SLOT) == (bench.wave.state, bench.wave.slot)


def test_the_low_half_of_a_version_is_enough_over_its_own_wrap(tmp_path):
    (tmp_path / "f").write_bytes(flashed(0xFFFF))
    bench = Bench(str(tmp_path / "f"), KEY)
    bench.wave.notice(SLOT, 0x10000 & 0xFFFF, bench.now_ms)
    assert PULLING == bench.wave.state
    bench.take_in(good(0x10000))
    assert 0x10000 == bench.wave.staged.version
    assert not bench.wave.take_staged(0xFFFF)
    assert bench.wave.take_staged(0x20000), "the low half is the same"


@pytest.mark.parametrize("state", [state for state in ALLOWED if state != QUIET])
def test_only_a_quiet_node_notices(state, bench):
    bring(bench, state)
    slot = bench.wave.slot
    bench.wave.notice(SLOT + 1, 9, bench.now_ms)
    assert (state, slot) == (bench.wave.state, bench.wave.slot)


def test_one_neighbour_is_pulled_from_at_a_time_and_none_once_its_set_is_judged(bench):
    bring(bench, PROVEN)
    assert SLOT == bench.wave.slot
    bench.wave.step(bench.now_ms)
    assert -1 == bench.wave.slot


def test_after_a_pull_that_failed_another_neighbour_goes_first(bench):
    """One that holds the set but does not give it may be the first to speak in every cycle."""
    bench.wave.notice(SLOT, 2, bench.now_ms)
    bench.wait(PULL_MS)
    bench.rest()
    bench.wave.notice(SLOT, 2, bench.now_ms)
    bench.wave.notice(SLOT, 2, bench.now_ms)
    assert QUIET == bench.wave.state
    bench.wave.notice(SLOT + 1, 2, bench.now_ms)
    assert (PULLING, SLOT + 1) == (bench.wave.state, bench.wave.slot)


def test_a_neighbour_whose_set_was_refused_is_not_the_first_that_is_asked_again(bench):
    bench.wave.notice(SLOT, 2, bench.now_ms)
    bench.take_in(SET[:-1] + bytes((SET[-1] ^ 1,)))
    assert {REFUSED_SIGNATURE: 1} == bench.faults()
    bench.rest()
    for slot in (SLOT, SLOT + 1):
        bench.wave.notice(slot, 2, bench.now_ms)
    assert SLOT + 1 == bench.wave.slot


def test_a_neighbour_that_failed_is_asked_again_where_no_other_speaks(bench):
    for _ in range(3):
        heard = 0
        while bench.wave.state == QUIET:
            bench.wave.notice(SLOT, 2, bench.now_ms)
            heard += 1
        assert heard <= 1 + PASSED_OVER
        assert SLOT == bench.wave.slot
        bench.wait(PULL_MS)
        bench.rest()
    assert 1 + PASSED_OVER == heard


def test_of_two_neighbours_the_one_that_gives_is_asked_before_long_whoever_speaks_first(bench):
    asked = []
    for _ in range(4):
        for slot in (SLOT, SLOT + 1):
            bench.wave.notice(slot, 2, bench.now_ms)
        asked.append(bench.wave.slot)
        bench.wait(PULL_MS)
        bench.rest()
    assert [SLOT, SLOT + 1] * 2 == asked


# What comes to nothing

BREAKABLE = (PULLING, RECEIVING)


@pytest.mark.parametrize("state", ALLOWED)
def test_a_lost_link_breaks_what_was_coming_in_and_nothing_else(state, bench):
    bring(bench, state)
    before = bench.faults()
    bench.wave.lose_link(bench.now_ms)
    if state in BREAKABLE:
        assert (RESTING, -1) == (bench.wave.state, bench.wave.slot)
        assert {WAVE_BROKEN: 1} == bench.faults()
    else:
        assert (state, before) == (bench.wave.state, bench.faults())
        bench.rest()
        assert state == RESTING or bench.work()
    assert 1 == bench.wave.active.version


@pytest.mark.parametrize("state", BREAKABLE)
def test_what_does_not_come_in_time_is_given_up(state, bench):
    """The time begins anew when the first byte is there."""
    assert 0 < TICKS_PERIOD - BEFORE_WRAP < PULL_MS == 15_000
    bring(bench, state)
    bench.wait(PULL_MS - 1)
    assert (state, {}) == (bench.wave.state, bench.faults())
    bench.wait(1)
    assert (RESTING, -1, {WAVE_BROKEN: 1}) == (bench.wave.state, bench.wave.slot, bench.faults())
    assert bench.now_ms < BEFORE_WRAP, "the ticks wrapped meanwhile"


def test_what_comes_after_its_time_is_passed_over(bench):
    bring(bench, RECEIVING)
    bench.wait(PULL_MS)
    bench.feed(SET, start=100)
    assert (RESTING, {WAVE_BROKEN: 1}) == (bench.wave.state, bench.faults())
    bench.rest()
    bench.feed(SET, start=100)
    assert QUIET == bench.wave.state


def test_a_set_that_broke_off_is_taken_when_it_comes_again_from_its_beginning(bench):
    bring(bench, RESTING)
    bench.rest()
    bench.take_in(SET)
    assert (STAGED, {WAVE_BROKEN: 1}, SET) == (bench.wave.phase, bench.faults(), content(bench.wave.offers))


@pytest.mark.parametrize("state", [RECEIVED, PROVING, PROVEN, READ])
def test_what_is_there_as_a_whole_has_no_time_limit(state, bench):
    """A node may have many cycles to compute meanwhile."""
    bring(bench, state)
    bench.wait(10 * PULL_MS)
    bench.work()
    assert (STAGED, {}) == (bench.wave.phase, bench.faults())


def test_after_each_failure_the_next_try_waits_twice_as_long_up_to_64_seconds(bench):
    waits_ms = []
    for _ in range(RETRY_SHIFT_MAX + 3):
        while bench.wave.state != PULLING:
            bench.wave.notice(SLOT, 2, bench.now_ms)
        bench.wave.lose_link(bench.now_ms)
        waits_ms.append(ticks_diff(bench.wave._due_ms, bench.now_ms))
        bench.wait(waits_ms[-1] - 1)
        bench.wave.notice(SLOT, 2, bench.now_ms)
        assert RESTING == bench.wave.state
        bench.wait(1)
    assert [1_000 * 2**k for k in (0, 1, 2, 3, 4, 5, 6, 6, 6)] == waits_ms
    assert RETRY_MS == waits_ms[0]


def test_after_a_success_the_waits_begin_anew(bench):
    for _ in range(3):
        bring(bench, RESTING)
        bench.rest()
    bench.take_in(SET)
    bench.wave.notice(SLOT, 3, bench.now_ms)
    bench.wave.lose_link(bench.now_ms)
    assert RETRY_MS == ticks_diff(bench.wave._due_ms, bench.now_ms)


def test_a_flash_that_cannot_be_opened_is_counted_and_tried_again(bench, monkeypatch):
    def fail(_path, _highest):
        raise OSError(30, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(slots, "free_slot", fail)
        bench.take_in(SET)
        assert (RESTING, {WAVE_BROKEN: 1}) == (bench.wave.state, bench.faults())
    bench.rest()
    bench.take_in(SET)
    assert STAGED == bench.wave.phase


WORK = {RECEIVED: "_begin_proof", PROVEN: "_read_back", READ: "_hold"}


def fail_in(bench, state, error, monkeypatch):
    """The next step in a state fails."""

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        if state == PROVING:
            bench.wave._work = map(fail, [None])
        else:
            patch.setattr(bench.wave, WORK[state], fail)
        assert not bench.wave.step(bench.now_ms)


@pytest.mark.parametrize("error", [OSError(28, "no space"), MemoryError()])
@pytest.mark.parametrize("state", [RECEIVED, PROVING, PROVEN, READ])
def test_a_full_flash_or_heap_at_any_step_costs_this_try_only(state, error, bench, monkeypatch):
    bring(bench, state)
    fail_in(bench, state, error, monkeypatch)
    assert (RESTING, {WAVE_BROKEN: 1}, CONFIRMED) == (bench.wave.state, bench.faults(), bench.wave.phase)
    bench.rest()
    bench.take_in(SET)
    assert (STAGED, 2) == (bench.wave.phase, bench.wave.staged.version)


def test_bytes_that_the_flash_did_not_take_show_when_the_set_is_read_back(bench):
    bring(bench, PROVEN)
    data = content(bench.wave._slot_path)
    with open(bench.wave._slot_path, "wb") as file:
        file.write(data[:50] + bytes((data[50] ^ 1,)) + data[51:])
    bench.work()
    assert (RESTING, {WAVE_BROKEN: 1}, None) == (bench.wave.state, bench.faults(), bench.wave.staged)


# The table


def test_events_make_every_change_of_state_that_the_table_allows_and_no_other(tmp_path, monkeypatch):
    """The bench itself raises at any other, in every test."""
    made = set()
    for state in ALLOWED:
        bench = fresh(tmp_path)
        bring(bench, state)
        if state in BREAKABLE:
            bench.wave.lose_link(bench.now_ms)
        elif state == QUIET:
            bench.take_in(b"")
        elif state != RESTING:
            fail_in(bench, state, MemoryError(), monkeypatch)
        bench.rest()
        made.update(bench.wave.changes)
    bench = fresh(tmp_path)
    bench.take_in(SET)
    bench.wave.notice(SLOT, 3, bench.now_ms)
    bench.wave.lose_link(bench.now_ms)
    assert bench.switch(2)
    bench.confirm()
    made.update(bench.wave.changes)
    assert {(state, after) for state in ALLOWED for after in ALLOWED[state]} == made
