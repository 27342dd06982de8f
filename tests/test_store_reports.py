"""Reports in the store: what each cycle rests on, what came late, what is lost, and what a gateway starts from."""

import sqlite3
import zlib

import pytest
from store_bench import BASIS, NOON_S, arrived, calm, new_store, outcome_of, rows_of

from gateway import store_reports
from gateway.received import Key, Late, Received, Reporter
from gateway.store import Store
from gateway.store_schema import StoreError
from protocol import report

BOOT = 0xFFFFFFFF


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as made:
        yield made


def add(store, cycle, **options):
    arrivals = arrived(cycle, **options)
    store.add_cycle(1, NOON_S, outcome_of(calm(cycle), arrivals=arrivals), BASIS)
    return arrivals


def test_what_came_with_each_cycle_is_given_back(store):
    added = [add(store, cycle) for cycle in range(3)]
    assert [sorted(arrivals.in_cycle) for arrivals in added] == [store.reports(1, cycle) for cycle in range(3)]
    assert [late for arrivals in added for late in arrivals.late] == list(store.late_reports())
    assert [gap for arrivals in added for gap in arrivals.gaps] == list(store.gaps())


def test_a_cycle_without_reports_or_of_an_older_release_has_none(store):
    store.add_cycle(1, NOON_S, outcome_of(calm(0)), BASIS)
    assert [] == store.reports(1, 0)
    assert [] == store.reports(1, 1)


def test_each_start_of_a_node_is_one_row_in_the_order_of_their_first_reports(store, tmp_path):
    for cycle, boot in enumerate((BOOT, BOOT, 5, 5)):
        add(store, cycle, boot=boot)
    assert 4 == rows_of(tmp_path, "reporters")
    first, second = Reporter(BOOT, 6, frozenset({4})), Reporter(5, 12, frozenset({10}))
    assert {(0, 0): [first, second], (2, 3): [Reporter(BOOT, 6), Reporter(5, 12)]} == store.reporters()


@pytest.mark.parametrize("missing", [{1}, {31}, {31, 30, 1}, set(range(32))])
def test_what_is_still_to_come_is_known_after_a_restart(store, missing):
    known = ((0, 0), Reporter(BOOT, 32, frozenset(missing))), arrived(0).reporters[1]
    arrivals = arrived(0)._replace(reporters=known)
    store.add_cycle(1, NOON_S, outcome_of(calm(0), arrivals=arrivals), BASIS)
    received = Received(store.reporters())
    assert missing == {seq for seq in range(33) if received.is_news(Key((0, 0), BOOT, seq))}


def test_a_cycle_that_cannot_be_stored_leaves_no_report_behind(store, tmp_path):
    add(store, 0)
    before = [rows_of(tmp_path, table) for table in ("reporters", "cycle_reports", "late_reports", "gaps")]
    kept = store.reporters()
    with pytest.raises(StoreError, match="is stored already"):
        store.add_cycle(1, NOON_S, outcome_of(calm(0), arrivals=arrived(1, boot=5)), BASIS)
    assert before == [rows_of(tmp_path, table) for table in ("reporters", "cycle_reports", "late_reports", "gaps")]
    assert kept == store.reporters()


def test_a_late_report_is_there_once_whoever_hands_it_over_again(store):
    add(store, 0)
    again = arrived(0)._replace(in_cycle=(), gaps=())
    store.add_cycle(1, NOON_S, outcome_of(calm(1), arrivals=again), BASIS)
    assert [Late(Key((0, 0), BOOT, 3), b"late 0")] == list(store.late_reports())


def test_a_whole_lounge_reports_in_few_bytes(store):
    """117 nodes that started together, each with a random boot: what a report adds to a cycle is next to nothing."""
    keys = [Key((row, col), 7 * row + col, 40) for row in range(0, 18, 2) for col in range(0, 26, 2)]
    reporters = tuple((key.cell, Reporter(key.boot, key.seq)) for key in keys)
    arrivals = arrived(0)._replace(in_cycle=tuple(keys), late=(), gaps=(), reporters=reporters)
    store.add_cycle(1, NOON_S, outcome_of(calm(0), arrivals=arrivals), BASIS)
    (size,) = store._one("SELECT length(keys) FROM cycle_reports")
    assert size < len(keys)
    assert sorted(keys) == store.reports(1, 0)


def test_a_cycle_may_rest_on_no_reports(store):
    store.add_cycle(1, NOON_S, outcome_of(calm(0), arrivals=arrived(0)._replace(in_cycle=())), BASIS)
    assert [] == store.reports(1, 0)


@pytest.mark.parametrize("keys", [b"", b"\0", b"x\x9c", zlib.compress(bytes(8) * 9), zlib.compress(b"\1" * 8)])
def test_damaged_reports_of_a_cycle_are_named(store, keys):
    add(store, 0)
    store._database.execute("UPDATE cycle_reports SET keys = ?", (keys,))
    with pytest.raises(StoreError, match=r"is damaged; put a backup.*run 1 cycle 0"):
        store.reports(1, 0)


def test_a_reporter_that_is_gone_is_named(store):
    add(store, 0)
    store._database.execute("PRAGMA foreign_keys = OFF")
    store._database.execute("DELETE FROM reporters")
    without = arrived(1)._replace(reporters=())
    with pytest.raises(StoreError, match=r"is damaged; put a backup"):
        store.add_cycle(1, NOON_S, outcome_of(calm(1), arrivals=without), BASIS)


def test_a_gateway_that_starts_again_knows_what_it_acknowledged(tmp_path):
    with new_store(tmp_path) as store:
        add(store, 4)
        site = store.site
    with Store(tmp_path, site) as store:
        received = Received(store.reporters())
    assert not received.is_news(Key((2, 3), BOOT, 15))
    assert report.pack_ack(BOOT, 15, {13}) == received.acknowledgement((0, 0), BOOT)


def test_without_any_reporter_nothing_large_is_unpacked(store):
    add(store, 0)
    store._database.execute("PRAGMA foreign_keys = OFF")
    store._database.execute("DELETE FROM reporters")
    store._database.execute("UPDATE cycle_reports SET keys = ?", (zlib.compress(bytes(1 << 24)),))
    with pytest.raises(StoreError, match="of a wrong length"):
        store.reports(1, 0)


def test_starts_that_no_later_cycle_speaks_of_are_forgotten_but_for_each_nodes_latest(store):
    for cycle, boot in enumerate((1, 2, 3)):
        add(store, cycle, boot=boot)
    for table in ("gaps", "late_reports"):
        store._database.execute(f"DELETE FROM {table} WHERE cycle_id <= 2")
    store_reports.forget(store._database, 2)
    assert {(0, 0): [3], (2, 3): [3]} == boots(store)
    store._database.execute("DELETE FROM gaps")
    store._database.execute("DELETE FROM late_reports")
    store_reports.forget(store._database, 3)
    assert {(0, 0): [3], (2, 3): [3]} == boots(store)


def test_a_start_that_a_gap_or_a_late_report_speaks_of_is_kept(store):
    for cycle, boot in enumerate((1, 2, 3)):
        add(store, cycle, boot=boot)
    store._database.execute("DELETE FROM late_reports WHERE cycle_id = 1")
    store_reports.forget(store._database, 3)
    assert {(0, 0): [2, 3], (2, 3): [1, 2, 3]} == boots(store)


def boots(store):
    return {cell: [reporter.boot for reporter in found] for cell, found in store.reporters().items()}


def test_the_tables_refuse_what_is_no_number(store):
    add(store, 0)
    with pytest.raises(sqlite3.IntegrityError):
        store._database.execute("UPDATE gaps SET first = 'x'")
