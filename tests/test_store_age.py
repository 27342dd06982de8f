"""Old cycles: put together they read as before, in the end they are deleted, and neither clock nor kill loses one."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from mesh_in_memory import make_model, make_site
from store_bench import (
    BASIS,
    NOON_S,
    SITE,
    add,
    arrived,
    calm,
    decide,
    exact_record,
    new_store,
    outcome_of,
    random_record,
    rows_of,
    same,
    stored_model,
)

from gateway import store_age
from gateway.decision import LIMITS_DEFAULT, State
from gateway.head import HeadRunner
from gateway.model import SPECS
from gateway.recompute import recompute
from gateway.store import RETIRED, Basis, Store
from gateway.store_age import CHUNK_CYCLES, YOUNG_S, Ageing, Keeping
from gateway.store_schema import StoreError
from tools.rig.interpreter import SOURCES

DAY_S, YEAR_S = 86_400, 365 * 86_400
# A cycle in half an hour: 48 a day.
DAY = DAY_S // SITE.cycle_s
FOR_EVER = Keeping(0)


class Clock:
    def __init__(self, now_s):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def clock():
    """Two hours after noon: what was stored at noon is old."""
    return Clock(NOON_S + 2 * YOUNG_S)


@pytest.fixture
def ageing(store, tmp_path, clock):
    with Ageing(tmp_path, SITE, FOR_EVER, clock) as opened:
        yield opened


@pytest.fixture
def aged(store, tmp_path, clock):
    """Something that ages the store, keeping a day."""
    with Ageing(tmp_path, SITE, Keeping(1), clock) as opened:
        yield opened


def in_turn(step):
    """How many cycles each step took, until none is due."""
    return list(iter(step, 0))


def kept(folder):
    """Rows that stand alone, and chunks."""
    return rows_of(folder, "records"), rows_of(folder, "chunks")


def cycles_of(store):
    return [stored.outcome.record.cycle for stored in store.latest_cycles(100_000)]


def everything(store):
    """All that can be read of every cycle; records as bytes, so that they compare."""
    found = []
    for stored in store.latest_cycles(100_000):
        numbers = [np.asarray(part).tobytes() for part in stored.outcome.record if part is not None]
        found.append((*stored[:2], *stored.outcome[1:], *stored[3:], numbers))
    return found, [part.tobytes() for part in store.samples(100_000)]


# Put together


def test_what_was_put_together_is_read_as_before_by_every_way_to_read_it(store, ageing, tmp_path, seed):
    rng = np.random.default_rng(seed)
    carried = np.ones(SITE.block_shape, np.bool_)
    records = [random_record(rng, cycle)._replace(carried=carried) for cycle in range(150)]
    for record in records:
        store.add_cycle(1, NOON_S + record.cycle, outcome_of(record, True, (0, 1)), BASIS)
    store.set_label(1, (50, 70), True, NOON_S, "a fire drill")
    before = everything(store)
    assert [CHUNK_CYCLES] * 2 == in_turn(ageing.compact)
    assert (30, 2) == kept(tmp_path)
    assert before == everything(store)
    assert [True] * 150 == [same(store.cycle(1, record.cycle).outcome.record, record) for record in records]
    assert 2 == store.set_label(1, (10, 11), False, NOON_S)
    assert [None, False, False, None] == [store.cycle(1, cycle).label for cycle in range(9, 13)]


@pytest.mark.parametrize("spec", SPECS)
def test_every_decision_can_be_recomputed_from_a_chunk(tmp_path, clock, spec, seed):
    """P5, bit for bit as from the record that stood alone; a node more stands there since."""
    rng, model = np.random.default_rng(seed), make_model(spec, SITE)
    head, state = HeadRunner(SPECS[spec], model.head), State(False)
    with new_store(tmp_path, model) as store:
        for cycle in range(CHUNK_CYCLES):
            basis = Basis(state, LIMITS_DEFAULT, SITE.cells)
            state, outcome = decide(state, exact_record(rng, cycle, model), model, head)
            store.add_cycle(1, NOON_S, outcome, basis)
    grown = replace(SITE, cells=tuple(sorted((*SITE.cells, (0, 3)))))
    with Store(tmp_path, grown) as store, Ageing(tmp_path, grown, FOR_EVER, clock) as ageing:
        before = [recompute(store, stored)[1:] for stored in store.latest_cycles(100)]
        assert CHUNK_CYCLES == ageing.compact()
        assert before == [recompute(store, stored)[1:] for stored in store.latest_cycles(100)]
        assert {SITE.cells} == {stored.basis.cells for stored in store.latest_cycles(100)}


def test_cycles_younger_than_an_hour_stand_alone(store, ageing, clock, tmp_path):
    clock.now_s = NOON_S + CHUNK_CYCLES - 1 + YOUNG_S - 1
    add(store, *range(CHUNK_CYCLES))
    assert (0, (CHUNK_CYCLES, 0)) == (ageing.compact(), kept(tmp_path))
    clock.now_s += 1
    assert (CHUNK_CYCLES, (0, 1)) == (ageing.compact(), kept(tmp_path))


def test_what_does_not_fill_a_chunk_waits_for_more(store, ageing, tmp_path):
    assert 0 == ageing.compact()
    add(store, *range(CHUNK_CYCLES - 1))
    assert (0, (CHUNK_CYCLES - 1, 0)) == (ageing.compact(), kept(tmp_path))
    add(store, CHUNK_CYCLES)
    assert (CHUNK_CYCLES, (0, 1)) == (ageing.compact(), kept(tmp_path))


def test_cycles_of_another_kind_begin_a_chunk_of_their_own(store, ageing, seed):
    """Another spec, or another mode: their parts differ in number and size."""
    rng, specs = np.random.default_rng(seed), ("lean", "seed", "lean")
    for cycle in range(30):
        spec = SPECS[specs[cycle // 10]]
        record = random_record(rng, cycle, SITE, spec.channels, spec.exchanges)
        store.add_cycle(1, NOON_S, outcome_of(record._replace(carried=np.ones(SITE.block_shape, np.bool_))), BASIS)
    before = everything(store)
    assert [10, 10] == in_turn(ageing.compact)
    assert before == everything(store)


def test_the_larger_a_site_the_fewer_cycles_in_a_chunk_one_at_least(store, ageing, monkeypatch):
    add(store, *range(12))
    monkeypatch.setattr(store_age, "CHUNK_BYTES", 300)  # a cycle has 60
    first = ageing.compact()
    assert 1 < first < 8
    monkeypatch.setattr(store_age, "CHUNK_BYTES", 1)
    assert [1] * (12 - first) == in_turn(ageing.compact)
    assert list(range(12)) == cycles_of(store)


@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
def test_a_clock_that_jumps_keeps_no_cycle_from_being_put_together(store, ageing, clock, jump_s):
    add(store, *range(CHUNK_CYCLES))
    clock.now_s += jump_s
    assert (CHUNK_CYCLES, list(range(CHUNK_CYCLES))) == (ageing.compact(), cycles_of(store))


def test_a_reader_in_the_middle_of_all_cycles_misses_none_when_they_are_put_together(store, ageing):
    add(store, *range(2 * CHUNK_CYCLES))
    reading = store.latest_cycles(1_000)
    first = next(reading).outcome.record.cycle
    assert [CHUNK_CYCLES] * 2 == in_turn(ageing.compact)
    assert list(range(2 * CHUNK_CYCLES)) == [first, *(stored.outcome.record.cycle for stored in reading)]


def test_a_chunk_or_record_that_is_damaged_or_gone_is_named(store, ageing):
    add(store, *range(CHUNK_CYCLES + 1))
    store._database.execute("UPDATE records SET data = x'0109' WHERE cycle_id = 1")
    with pytest.raises(StoreError, match=r"thermesh\.db: is damaged; .*\(row 1 of records: no record of version"):
        ageing.compact()
    store._database.execute("UPDATE records SET data = substr(data, 1, 3) WHERE cycle_id = 1")
    with pytest.raises(StoreError, match=r"is damaged; .*\(row 1 of records: no record of version"):
        ageing.compact()
    store._database.execute("UPDATE records SET data = (SELECT substr(data, 1, 20) FROM records WHERE cycle_id = 2)")
    with pytest.raises(StoreError, match=r"is damaged; .*\(rows 1 to 60 of records: a record of a wrong length"):
        ageing.compact()
    store._database.execute("DELETE FROM records WHERE cycle_id = 1")
    with pytest.raises(StoreError, match=r"is damaged; .*\(run 1 cycle 0: no record of version"):
        store.cycle(1, 0)
    store._database.execute("INSERT INTO chunks VALUES (1, 1, x'8001')")
    with pytest.raises(StoreError, match=r"is damaged; .*\(run 1 cycle 0: no chunk of cycles"):
        store.cycle(1, 0)


def test_a_cycle_that_its_chunk_does_not_hold_is_damage(store, ageing):
    add(store, *range(CHUNK_CYCLES + 1))
    ageing.compact()
    store._database.execute("DELETE FROM records")
    line = rf"is damaged; .*\(run 1 cycle {CHUNK_CYCLES}: is not among the {CHUNK_CYCLES} cycles of its chunk"
    with pytest.raises(StoreError, match=line):
        store.cycle(1, CHUNK_CYCLES)


# Deleted


def add_days(store, first, days, start_s=NOON_S):
    """Cycles of some days, each with a label."""
    cycles = range(first * DAY, (first + days) * DAY)
    for cycle in cycles:
        store.add_cycle(1, start_s + cycle * SITE.cycle_s, outcome_of(calm(cycle)), BASIS)
    store.set_label(1, (cycles[0], cycles[-1]), True, NOON_S)
    return start_s + cycles[-1] * SITE.cycle_s


def test_the_oldest_cycles_are_deleted_with_all_that_belongs_to_them_and_models_stay(store, aged, clock, tmp_path):
    store.add_model(stored_model(2, 2, RETIRED))
    clock.now_s = add_days(store, 0, 5) + YOUNG_S
    in_turn(aged.compact)
    assert [CHUNK_CYCLES] * 3 == in_turn(aged.forget)
    left = list(range(3 * CHUNK_CYCLES, 5 * DAY))
    assert left == cycles_of(store)
    assert {len(left)} == {rows_of(tmp_path, table) for table in ("cycles", "decisions", "labels")}
    assert [(1, 1), (2, 2)] == store.model_keys()
    assert [] == store._database.execute("PRAGMA foreign_key_check").fetchall()
    add(store, 5 * DAY)
    assert [*left, 5 * DAY] == cycles_of(store)


def test_starts_of_nodes_that_no_cycle_speaks_of_any_more_are_deleted_too(store, aged):
    for cycle in range(DAY + 2):
        store.add_cycle(1, NOON_S - 3 * DAY_S, outcome_of(calm(cycle), arrivals=arrived(cycle, boot=cycle + 1)), BASIS)
    assert 1 == aged.forget()
    assert [2, DAY + 2] == [store.reporters()[0, 0][place].boot for place in (0, -1)]


def test_cycles_that_stand_alone_are_deleted_one_by_one(store, aged, clock):
    clock.now_s = add_days(store, 0, 2)
    assert [1] * DAY == in_turn(aged.forget)
    assert list(range(DAY, 2 * DAY)) == cycles_of(store)


def test_zero_days_are_for_ever(store, ageing, clock):
    clock.now_s = add_days(store, 0, 2) + 100 * YEAR_S
    assert (0, 2 * DAY) == (ageing.forget(), len(cycles_of(store)))


def test_an_empty_store_has_nothing_to_delete(aged):
    assert 0 == aged.forget()


@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
def test_a_clock_that_jumps_deletes_nothing_that_need_not_go_by_number(store, aged, clock, jump_s):
    """As many cycles as a day has stay whatever they are dated; those that come go on in their order."""
    last_s = add_days(store, 0, 3)
    clock.now_s = last_s + jump_s
    in_turn(aged.forget)
    assert list(range(2 * DAY, 3 * DAY)) == cycles_of(store)
    clock.now_s = add_days(store, 3, 1, NOON_S + jump_s)
    in_turn(aged.forget)
    assert list(range(3 * DAY, 4 * DAY)) == cycles_of(store)


def test_cycles_of_the_kept_days_stay_though_cycles_have_become_longer(store, tmp_path, clock):
    clock.now_s = add_days(store, 0, 1)
    with Ageing(tmp_path, replace(SITE, cycle_s=DAY_S), Keeping(1), clock) as ageing:
        assert (0, DAY) == (ageing.forget(), len(cycles_of(store)))


def test_the_latest_cycle_is_never_deleted(store, tmp_path, clock):
    """Ids rise above it."""
    clock.now_s = add_days(store, 0, 1) + YEAR_S
    with Ageing(tmp_path, replace(SITE, cycle_s=DAY_S), Keeping(1), clock) as ageing:
        in_turn(ageing.forget)
    assert [DAY - 1] == cycles_of(store)


def test_the_file_of_a_store_that_forgets_does_not_grow(store, aged, clock, tmp_path, seed):
    """New cycles take the pages of those that are gone."""
    rng, sizes = np.random.default_rng(seed), []
    for day in range(12):
        for cycle in range(day * DAY, (day + 1) * DAY):
            clock.now_s = NOON_S + cycle * SITE.cycle_s
            store.add_cycle(1, clock.now_s, outcome_of(random_record(rng, cycle)), BASIS)
            aged.look()
        sizes.append(store._database.execute("PRAGMA page_count").fetchone()[0])
    assert max(sizes[:6]) >= max(sizes[6:])
    assert DAY <= len(cycles_of(store)) < DAY + 2 * CHUNK_CYCLES




# Killed


def kill(folder, mistake=""):
    """What store_kills.py says."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCES}{os.pathsep}{SOURCES / 'tests'}"}
    source = f"from pathlib import Path\nimport store_kills\n{mistake}\nstore_kills.main(Path({str(folder)!r}))"
    return subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=120)


def test_killed_at_any_instant_no_cycle_is_lost_or_doubled_or_deleted_in_part(tmp_path):
    done = kill(tmp_path)
    assert 0 == done.returncode, done.stderr[-2_000:]
    calls, sizes = map(int, done.stdout.split())
    assert (True, True) == (calls > 50, sizes > 20)


def test_the_kills_show_steps_that_are_no_transactions(tmp_path):
    done = kill(tmp_path, "from contextlib import nullcontext\nstore_kills.Ageing._write = lambda self: nullcontext()")
    assert (1, True) == (done.returncode, ": is damaged; " in done.stderr)


# What goes wrong


def test_a_full_disk_leaves_every_cycle_as_it_was(tmp_path, clock, seed):
    rng, site = np.random.default_rng(seed), make_site(8, 8)
    basis, carried = BASIS._replace(cells=site.cells), np.ones(site.block_shape, np.bool_)
    lean = make_model("lean", site)
    with new_store(tmp_path, lean, site) as store, Ageing(tmp_path, site, FOR_EVER, clock) as ageing:
        for cycle in range(CHUNK_CYCLES):
            record = random_record(rng, cycle, site)._replace(carried=carried)
            store.add_cycle(1, NOON_S, outcome_of(record), basis)
        before = everything(store)
        ageing._database.execute("PRAGMA max_page_count = 1")  # SQLite then takes the file for as large as it may be
        with pytest.raises(StoreError, match=r"thermesh\.db: the disk is full; free some space"):
            ageing.compact()
        assert ((CHUNK_CYCLES, 0), before) == (kept(tmp_path), everything(store))
        ageing._database.execute("PRAGMA max_page_count = 1000000")
        assert (CHUNK_CYCLES, before) == (ageing.compact(), everything(store))


def test_whatever_names_a_cycle_is_deleted_with_it(store):
    """A table that is new and refers to cycles has to be deleted from too, or nothing is."""
    tables = [name for (name,) in store._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    named = {
        name: column
        for name in tables
        for _, _, table, column, *_ in store._database.execute(f"PRAGMA foreign_key_list({name})")
        if table == "cycles"
    }
    assert store_age._OF_CYCLES == named | {"cycles": "id"}
