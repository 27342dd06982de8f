"""From one filter set to the next: held, on trial, confirmed or returned; and what a node offers meanwhile."""

import shutil

import pytest
from wave_bench import QUIET, RESTING, Bench, content
from wave_sets import KEY, flashed, good

from firmware import slots
from firmware.wave import EVERYBODY, PULL_MS, STRAY_CYCLES, TRIAL_CYCLES
from protocol import health
from protocol.filter_set import CONFIRMED, RETURNED, STAGED, TRIAL
from protocol.health import REFUSED_SIGNATURE, WAVE_BROKEN

SLOT = 4  # of the neighbour that has something newer
SET = good(2)


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "f").write_bytes(flashed())
    return Bench(str(tmp_path / "f"), KEY)


def test_only_the_cycle_that_names_the_staged_set_switches_to_it(bench):
    bench.take_in(SET)
    before = bench.files(), bench.computed()
    for version in (1, 3, 0, 0x8002):
        assert not bench.wave.take_staged(version)
    assert ((STAGED, 2), before) == (
        (bench.wave.phase, bench.wave.staged.version),
        (bench.files(), bench.computed()),
    )
    assert bench.wave.take_staged(2)
    assert (TRIAL, 2, None) == (bench.wave.phase, bench.wave.active.version, bench.wave.staged)


def test_a_node_that_rests_after_a_failure_switches_all_the_same(bench):
    bench.take_in(SET)
    bench.wave.notice(SLOT, 3, bench.now_ms)
    bench.wave.lose_link(bench.now_ms)
    assert (RESTING, STAGED) == (bench.wave.state, bench.wave.phase)
    assert bench.switch(2)
    bench.rest()
    assert (RESTING, TRIAL) == (bench.wave.state, bench.wave.phase)


def test_a_set_is_confirmed_by_its_third_completed_cycle(bench):
    bench.take_in(SET)
    bench.switch(2)
    phases = []
    for _ in range(TRIAL_CYCLES):
        bench.complete_cycle()
        phases.append((bench.wave.phase, bench.wave.state, slots.read_record(bench.path)[1]))
    assert [(TRIAL, RESTING, TRIAL)] * 2 + [(CONFIRMED, QUIET, CONFIRMED)] == phases


def test_a_node_on_trial_takes_no_set_and_its_predecessors_file_is_not_touched(bench):
    bench.take_in(SET)
    bench.switch(2)
    bench.wait(10 * PULL_MS)
    bench.wave.notice(SLOT, 3, bench.now_ms)
    bench.take_in(good(3))
    assert (RESTING, flashed(), {}) == (bench.wave.state, content(bench.path), bench.faults())


def test_a_node_that_is_reset_on_trial_is_back_at_the_set_before_and_says_so(bench):
    computed = bench.computed()
    bench.take_in(SET)
    bench.switch(2)
    bench.complete_cycle()
    for boots in range(2):
        bench.boot()
        assert (RETURNED, 1, 2, EVERYBODY) == (
            bench.wave.phase,
            bench.wave.active.version,
            bench.wave.highest,
            bench.wave.news,
        ), boots
        assert computed == bench.computed()


def test_a_reset_on_trial_is_counted(bench):
    bench.take_in(SET)
    bench.switch(2)
    bench.boot()
    assert {health.SET_RETURNED: 1} == bench.faults()


def test_a_node_that_is_reset_with_a_staged_set_holds_it_still(bench):
    bench.take_in(SET)
    bench.boot()
    assert (STAGED, 1, 2) == (bench.wave.phase, bench.wave.active.version, bench.wave.staged.version)
    assert SET == content(bench.wave.offers)
    assert bench.switch(2)


def test_a_confirmed_set_survives_a_reset_and_is_computed_with(bench):
    bench.take_in(SET)
    bench.switch(2)
    bench.confirm()
    computed = bench.computed()
    bench.boot()
    assert (CONFIRMED, 2, 0) == (bench.wave.phase, bench.wave.active.version, bench.wave.news)
    assert computed == bench.computed()


def test_ten_sets_one_after_the_other_change_slots_each_time(bench):
    for version in range(2, 12):
        bench.take_in(good(version))
        assert bench.switch(version)
        bench.confirm()
        assert (version, version & 1 ^ 1) == (bench.wave.active.version, slots.read_record(bench.path)[0])
    assert {} == bench.faults()


def test_a_newer_set_takes_the_place_of_one_that_waits_for_its_cycle(bench):
    bench.take_in(SET)
    bench.feed(good(3), end=100)
    assert (None, CONFIRMED) == (bench.wave.staged, bench.wave.phase)
    bench.feed(good(3), start=100)
    bench.work()
    assert (STAGED, 3) == (bench.wave.phase, bench.wave.staged.version)


@pytest.mark.parametrize("error", [OSError(30, "read-only"), MemoryError()])
@pytest.mark.parametrize("write", ["switch", "confirm"])
def test_a_flash_that_cannot_be_written_or_a_full_heap_costs_no_set(write, error, bench, monkeypatch):
    """A switch that cannot be recorded is not made; a confirmation is tried again in the next cycle."""
    bench.take_in(SET)

    def fail(*_):
        raise error

    if write == "switch":
        with monkeypatch.context() as patch:
            patch.setattr(slots, "mark", fail)
            assert not bench.switch(2)
        assert (STAGED, {WAVE_BROKEN: 1}, 1) == (bench.wave.phase, bench.faults(), bench.wave.active.version)
        assert bench.switch(2)
        return
    bench.switch(2)
    with monkeypatch.context() as patch:
        patch.setattr(slots, "mark", fail)
        bench.confirm()
    assert (TRIAL, {WAVE_BROKEN: 1}) == (bench.wave.phase, bench.faults())
    bench.complete_cycle()
    assert CONFIRMED == bench.wave.phase


def stray(bench, cycles, version=1):
    """Beacons of so many cycles in a row name another version than the one on trial."""
    went_back = []
    for _ in range(cycles):
        bench.wave.told(version)
        went_back.append(bench.wave.stray >= STRAY_CYCLES and bench.wave.go_back())
    return went_back


def test_a_trial_that_no_beacon_asks_for_ends_after_ten_cycles_with_the_set_before(bench):
    computed = bench.computed()
    bench.take_in(SET)
    bench.switch(2)
    assert [False] * (STRAY_CYCLES - 1) + [True] == stray(bench, STRAY_CYCLES)
    wave = bench.wave
    assert 10 == STRAY_CYCLES
    assert (RETURNED, QUIET, 1, 2, "") == (wave.phase, wave.state, wave.active.version, wave.highest, wave.offers)
    assert ({health.SET_RETURNED: 1}, computed, EVERYBODY) == (bench.faults(), bench.computed(), wave.news)
    assert (0, RETURNED) == slots.read_record(bench.path)[:2]
    bench.take_in(good(3))
    assert bench.switch(3)
    bench.confirm()
    assert (CONFIRMED, 3) == (wave.phase, wave.active.version)


def test_a_node_that_went_back_by_itself_is_the_same_after_a_reset(bench):
    for version in (2, 3):
        bench.take_in(good(version))
        bench.switch(version)
        bench.confirm()
    bench.take_in(good(4))
    bench.switch(4)
    stray(bench, STRAY_CYCLES, 3)
    before = [bench.wave.active.version, bench.wave.phase, bench.wave.highest, bench.wave.offers, bench.computed()]
    assert [3, RETURNED, 4] == before[:3]
    assert good(3) == content(bench.wave.offers)
    bench.boot()
    assert before == [
        bench.wave.active.version,
        bench.wave.phase,
        bench.wave.highest,
        bench.wave.offers,
        bench.computed(),
    ]


def test_cycles_of_the_set_on_trial_between_others_let_the_trial_go_on(bench):
    bench.take_in(SET)
    bench.switch(2)
    for _ in range(3):
        assert not any(stray(bench, STRAY_CYCLES - 1))
        bench.wave.told(2)
    assert (TRIAL, 2) == (bench.wave.phase, bench.wave.active.version)


def test_only_a_trial_ends_because_beacons_name_another_set(bench):
    bench.take_in(SET)
    assert not any(stray(bench, 30, 7))
    assert STAGED == bench.wave.phase
    bench.switch(2)
    bench.confirm()
    assert not any(stray(bench, 30, 7))
    assert (CONFIRMED, 2) == (bench.wave.phase, bench.wave.active.version)


@pytest.mark.parametrize("how", ["damaged", "gone", "read-only", "no room"])
def test_a_trial_goes_on_where_the_set_before_cannot_be_had(how, bench, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError if how == "no room" else OSError(30, "read-only")

    bench.take_in(SET)
    bench.switch(2)
    computed = bench.computed()
    if how == "damaged":
        (tmp_path / "f").write_bytes(flashed()[:50])
    elif how == "gone":
        (tmp_path / "f").rename(tmp_path / "elsewhere")
    else:
        monkeypatch.setattr(slots, "mark" if how == "read-only" else "load", fail)
    assert not any(stray(bench, 3 * STRAY_CYCLES))
    assert (TRIAL, RESTING, 2, computed) == (bench.wave.phase, bench.wave.state, 2, bench.computed())
    assert TRIAL == slots.read_record(bench.path)[1]
    assert {WAVE_BROKEN: 3} == bench.faults()
    monkeypatch.undo()
    bench.confirm()
    assert CONFIRMED == bench.wave.phase


def test_a_set_whose_signature_is_damaged_is_offered_to_nobody(bench):
    """Every neighbour would refuse it, again and again."""
    bench.take_in(SET)
    with open(bench.wave.offers, "wb") as file:
        file.write(SET[:-1] + bytes((SET[-1] ^ 1,)))
    bench.boot()
    assert ("", None, CONFIRMED) == (bench.wave.offers, bench.wave.staged, bench.wave.phase)


# What a node says and offers


def test_every_change_of_phase_and_every_refusal_is_news(bench):
    assert not bench.wave.news
    for act in (
        lambda: bench.take_in(SET),
        lambda: bench.switch(2),
        bench.confirm,
        lambda: bench.take_in(good(3)[:-1]),
    ):
        act()
        assert bench.wave.news
        bench.wave.news = 0
    bench.rest()
    bench.feed(good(3), end=100)
    bench.wave.lose_link(bench.now_ms)
    assert not bench.wave.news, "what broke off concerns nobody else"


def test_a_node_offers_the_newest_set_that_it_proved(bench):
    assert "" == bench.wave.offers
    bench.take_in(SET)
    assert SET == content(bench.wave.offers)
    bench.switch(2)
    bench.confirm()
    assert SET == content(bench.wave.offers)


def test_a_node_offers_nothing_while_its_slot_is_written(bench):
    bench.take_in(SET)
    bench.feed(good(3), end=100)
    assert "" == bench.wave.offers


@pytest.mark.parametrize("how", ["refused", "broken"])
def test_a_node_offers_its_active_set_still_after_another_came_to_nothing(how, bench):
    bench.take_in(SET)
    bench.switch(2)
    bench.confirm()
    if how == "refused":
        bench.take_in(good(3)[:-1])
        assert {REFUSED_SIGNATURE: 1} == bench.faults()
    else:
        bench.feed(good(3), end=100)
        bench.wave.lose_link(bench.now_ms)
    assert SET == content(bench.wave.offers)


def test_a_set_that_is_refused_costs_no_set_that_waits_for_its_cycle(bench):
    """Whoever can publish could keep a node from every set otherwise: held or taken again, but not lost."""
    bench.take_in(SET)
    bench.take_in(good(3)[:-1])
    assert {REFUSED_SIGNATURE: 1} == bench.faults()
    bench.rest()
    if bench.wave.staged is None:
        bench.wave.notice(SLOT, 2, bench.now_ms)
        assert SLOT == bench.wave.slot
        bench.take_in(SET)
    assert bench.wave.staged.version == 2
    assert bench.switch(2)


def test_a_node_that_switches_pulls_from_nobody_any_more(bench):
    bench.take_in(SET)
    bench.wave.notice(SLOT, 3, bench.now_ms)
    assert SLOT == bench.wave.slot
    assert bench.switch(2)
    assert -1 == bench.wave.slot


def test_a_staged_set_that_is_not_whole_any_more_is_not_said_to_be_held(bench):
    bench.take_in(SET)
    with open(bench.wave.offers, "wb") as file:
        file.write(SET[:50])
    bench.boot()
    assert (None, CONFIRMED) == (bench.wave.staged, bench.wave.phase)


def test_a_damaged_active_set_is_replaced_by_the_one_before(bench, tmp_path):
    bench.take_in(SET)
    bench.switch(2)
    bench.confirm()
    with open(bench.wave.offers, "wb") as file:
        file.write(SET[:50])
    bench.boot()
    assert (1, RETURNED) == (bench.wave.active.version, bench.wave.phase)
    assert str(tmp_path / "f.1") == slots.free_slot(bench.path, 2)  # the next set does not overwrite the last whole one
    shutil.copy(tmp_path / "f.1", tmp_path / "f")
    with pytest.raises(ValueError, match="filter"):
        bench.boot()


def test_flashed_filters_that_are_damaged_are_replaced_by_a_set_that_waits_for_its_cycle(bench, tmp_path):
    bench.take_in(SET)
    for spoil in (lambda: (tmp_path / "f").write_bytes(SET[:50]), (tmp_path / "f").unlink):
        spoil()
        bench.boot()
        assert (2, None) == (bench.wave.active.version, bench.wave.staged)


def test_a_set_that_was_refused_is_never_computed_with_whatever_becomes_of_the_active_one(bench, tmp_path):
    """It lies in slot 0, whole and forged, when slot 1 or the record is found damaged: none is better than that one."""
    bench.take_in(SET)
    bench.switch(2)
    bench.confirm()
    bench.take_in(good(9, secret_key=bytes(32)))
    assert {REFUSED_SIGNATURE: 1} == bench.faults()
    record = (tmp_path / "f.slots").read_bytes()
    (tmp_path / "f.slots").write_bytes(record[:-1])
    with pytest.raises(ValueError, match=r"f\.slots is damaged; write the filters again"):
        bench.boot()
    (tmp_path / "f.slots").write_bytes(record)
    (tmp_path / "f.1").write_bytes(SET[:50])
    with pytest.raises(ValueError, match=r"both slots of .* are damaged"):
        bench.boot()
