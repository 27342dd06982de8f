"""The store's file: old ones are taken over, unusable ones left alone, and no fault leaves half a cycle."""

import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from mesh_in_memory import make_site
from store_bench import (
    BASIS,
    MODEL,
    NOON_S,
    SITE,
    add,
    calm,
    new_store,
    outcome_of,
    rows_of,
    same,
    stored_model,
)

from gateway.decision import Decision
from gateway.exactness import Comparison
from gateway.store import ACTIVE, Store
from gateway.store_blobs import pack_cycle, pack_head
from gateway.store_schema import APPLICATION_ID, FILE, STEPS, VERSION, StoreError, errors_named


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


def test_the_file_is_written_through_to_the_disk(store):
    values = [store._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert ["wal", 2] == values


def make_old(path, version):
    """A file that has been through the first steps only."""
    database = sqlite3.connect(path)
    for number, step in enumerate(STEPS[:version], 1):
        for statement in step:
            database.execute(statement)
        FILLED.get(number, lambda _: None)(database)
    database.execute(f"PRAGMA user_version = {version}")
    database.commit()
    database.close()


def fill_1(database):
    """What version 1 wrote; later steps take it over."""
    database.execute("INSERT INTO site VALUES (?, ?, ?)", (SITE.name, SITE.rows, SITE.cols))
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    model = stored_model()
    values = (1, 1, "lean", model.filter_set, pack_head(MODEL.head), ACTIVE, NOON_S, None, None, "")
    database.execute("INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    for row, cycle in ((1, 6), (2, 7)):
        data = pack_cycle(CALM[cycle], SITE.mask)
        database.execute("INSERT INTO cycles VALUES (?, 1, ?, 2.5, ?)", (row, cycle, data))
        decision = 1, 1, 0, 0.5, 0.1, 0.75, 0.25, cycle == 7, 1, 0, 5, 4, 3
        database.execute(f"INSERT INTO decisions VALUES (?{', ?' * len(decision)})", (row, *decision))


def fill_2(database):
    database.execute("INSERT INTO labels VALUES (2, 1, 3.5, 'a fire drill')")


CALM = {cycle: calm(cycle, np.full(SITE.mask.shape, 2_000 + cycle, np.int16)) for cycle in (6, 7)}
FILLED = {1: fill_1, 2: fill_2}


@pytest.mark.parametrize("version", range(VERSION))
def test_a_file_of_every_older_version_is_taken_over_with_what_it_holds(tmp_path, version):
    make_old(tmp_path / FILE, version)
    with Store(tmp_path, SITE) as store:
        found = list(store.latest_cycles(9))
        assert ([6, 7] if version else []) == [stored.outcome.record.cycle for stored in found]
        for stored in found:
            cycle, label = stored.outcome.record.cycle, version > 1 and stored.outcome.decision.abnormal
            assert same(CALM[cycle], stored.outcome.record)
            decided = Decision((0.75, 0.25), cycle == 7, (1, 0))
            assert (1, 2.5, (decided, 1, 1, Comparison(5, 4, 3)), BASIS) == (
                stored.run,
                stored.at_s,
                stored.outcome[1:5],
                stored.basis,
            )
            assert ((True, "a fire drill") if label else (None, "")) == (stored.label, stored.note)
        assert ([(1, 1)] if version else []) == store.model_keys(ACTIVE)
        assert len(found[1:]) == store.set_label(1, (7, 7), True, NOON_S)
        assert (VERSION,) == store._database.execute("PRAGMA user_version").fetchone()


def test_a_step_that_fails_leaves_the_old_version_as_it_was(tmp_path, monkeypatch):
    make_old(tmp_path / FILE, 1)
    monkeypatch.setattr("gateway.store_schema.STEPS", (*STEPS, ("CREATE TABLE more (x)", "NO SQL")))
    with pytest.raises(StoreError, match=r"thermesh\.db: .*syntax error"):
        Store(tmp_path, SITE)
    monkeypatch.undo()
    database = sqlite3.connect(tmp_path / FILE)
    assert (1,) == database.execute("PRAGMA user_version").fetchone()
    assert not database.execute("SELECT 1 FROM sqlite_master WHERE name IN ('more', 'labels')").fetchall()
    database.close()


def newer(path):
    make_old(path, VERSION)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.commit()
    database.close()


def foreign(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE photos (x)")
    database.commit()
    database.close()


def cut(path):
    make_old(path, VERSION)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def scrambled(path):
    make_old(path, VERSION)
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xa5" * (len(data) - 100))


UNUSABLE = {
    "newer": (newer, rf"has version {VERSION + 1}, this thermesh knows {VERSION} at most; install a newer one"),
    "another program's": (foreign, "is the database of another program; move it away"),
    "text": (lambda path: path.write_text("hello\n" * 99), "is damaged; put a backup in its place, or move it away"),
    "one byte": (lambda path: path.write_bytes(b"S"), "is damaged; put a backup in its place, or move it away"),
    "cut": (cut, "is damaged; put a backup in its place, or move it away"),
    "scrambled": (scrambled, "is damaged; put a backup in its place, or move it away"),
    "another site's": (
        lambda path: Store(path.parent, make_site(4, 3), create=True).__exit__(None, None, None),
        r"is the store of site memory \(4 x 3\), not of memory \(3 x 4\); name another folder as state",
    ),
}


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize(("make", "line"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(tmp_path, make, line, create):
    path = tmp_path / FILE
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=line) as caught:
        Store(tmp_path, SITE, create)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert before == path.read_bytes()


def copy_of_newer(folder, version_in_file):
    """A file of a newer version whose last changes lie in the write-ahead log still, as after a power cut."""
    source = folder / "source.db"
    make_old(source, VERSION)
    database = sqlite3.connect(source, isolation_level=None)
    if version_in_file != VERSION:
        database.execute(f"PRAGMA user_version = {version_in_file}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("UPDATE cycles SET at_s = 3.5")
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    copies = folder / FILE, folder / (FILE + "-wal")
    for path, copy in zip((source, folder / "source.db-wal"), copies, strict=True):
        copy.write_bytes(path.read_bytes())
    database.close()
    return copies


def test_a_newer_files_write_ahead_log_is_left_as_it_is_too(tmp_path):
    copies = copy_of_newer(tmp_path, VERSION + 1)
    before = [path.read_bytes() for path in copies]
    with pytest.raises(StoreError, match=f"has version {VERSION + 1}"):
        Store(tmp_path, SITE)
    assert before == [path.read_bytes() for path in copies]


def test_a_newer_version_that_only_the_write_ahead_log_knows_is_refused(tmp_path):
    copy_of_newer(tmp_path, VERSION)
    with pytest.raises(StoreError, match=f"has version {VERSION + 1}"):
        Store(tmp_path, SITE)
    database = sqlite3.connect(tmp_path / FILE)
    assert [(VERSION + 1,), (3.5,)] == [
        database.execute(query).fetchone() for query in ("PRAGMA user_version", "SELECT at_s FROM cycles")
    ]
    database.close()


def test_damage_that_only_reading_finds_is_said(store, tmp_path):
    add(store, *range(300))
    store.__exit__(None, None, None)
    path = tmp_path / FILE
    data = path.read_bytes()
    middle = len(data) // 3 // 4096 * 4096
    path.write_bytes(data[:middle] + b"\xa5" * (len(data) - middle))
    with Store(tmp_path, SITE) as damaged, pytest.raises(StoreError, match=r"thermesh\.db: is damaged; put a backup"):
        damaged.samples(300)


def test_damage_that_one_connection_finds_stops_what_every_other_one_would_write(store, tmp_path):
    """The one that writes has all of it in memory, and would go on for long."""
    add(store, *range(300))
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / FILE).open("r+b") as file:
        pages = file.seek(0, 2) // 4_096
        file.seek(pages // 3 * 4_096)
        file.write(b"\xa5" * 4_096 * (pages // 3))
    damage = r"thermesh\.db: is damaged; put a backup"
    add(store, 300)
    with Store(tmp_path, SITE) as reader, pytest.raises(StoreError, match=damage):
        list(reader.latest_cycles(400))
    for _ in range(2):
        with pytest.raises(StoreError, match=damage):
            add(store, 301)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, "cannot be read or written; check the disk and its free space"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "is in use by another program; try again"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "is damaged; put a backup in its place"),
        (sqlite3.SQLITE_TOOBIG, r"is damaged; .* \(odd\)"),
    ],
)
def test_every_error_of_the_disk_is_one_line(tmp_path, code, line):
    error = sqlite3.OperationalError("odd")
    error.sqlite_errorcode = code
    with pytest.raises(StoreError, match=f"{FILE}: {line}"), errors_named(tmp_path / FILE):
        raise error


def test_an_sqlite_that_is_too_old_is_named_and_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    with pytest.raises(StoreError, match=r"SQLite: .* is older than 3\.37; use a Python that comes with a newer one"):
        Store(tmp_path, SITE, create=True)
    assert [] == list(tmp_path.iterdir())


def test_where_there_is_no_store_none_is_made_unasked(tmp_path):
    with pytest.raises(StoreError, match=r"thermesh\.db: there is no store yet; run `thermesh gateway`"):
        Store(tmp_path / "state", SITE)
    assert [] == list(tmp_path.iterdir())


def test_a_state_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match=r"thermesh\.db: .*; name another folder as state"):
        Store(tmp_path / "state", SITE, create=True)
    (tmp_path / FILE).mkdir()
    with pytest.raises(StoreError, match="Is a directory; name another folder"):
        Store(tmp_path, SITE, create=True)


def test_a_full_disk_is_said_and_nothing_half_written_stays(store, tmp_path):
    add(store, 0)
    store._database.execute("PRAGMA max_page_count = 1")  # SQLite then takes the file for as large as it may be
    with pytest.raises(StoreError, match=r"thermesh\.db: the disk is full; free some space"):
        add(store, *range(1, 1_000))
    stored = len(list(store.latest_cycles(1_000)))
    assert (stored, stored) == (rows_of(tmp_path, "cycles"), rows_of(tmp_path, "decisions"))
    store._database.execute("PRAGMA max_page_count = 1000000")
    add(store, stored)
    assert stored + 1 == rows_of(tmp_path, "decisions")


def test_a_locked_store_is_said_and_takes_cycles_again_afterwards(store, tmp_path):
    store._database.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"thermesh\.db: is in use by another program; try again"):
        add(store, 0)
    other.execute("ROLLBACK")
    other.close()
    add(store, 0)
    assert (1, 1) == (rows_of(tmp_path, "cycles"), rows_of(tmp_path, "decisions"))


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_was_deleted_or_replaced_while_in_use_takes_nothing_more(store, tmp_path, there):
    """SQLite goes on writing to the old one, which is gone when it is closed."""
    add(store, 0)
    (tmp_path / FILE).rename(tmp_path / "aside")
    if there:
        (tmp_path / FILE).write_bytes((tmp_path / "aside").read_bytes())
    for _ in range(2):
        with pytest.raises(StoreError, match=r"thermesh\.db: was deleted or replaced while it was in use; start this"):
            add(store, 1)
    (tmp_path / "aside").replace(tmp_path / FILE)
    add(store, 1)


def test_a_store_is_opened_and_read_while_another_program_writes(store, tmp_path):
    add(store, 0)
    store._database.execute("BEGIN IMMEDIATE")
    with Store(tmp_path, SITE) as reader:
        assert 1 == len(reader.samples(9).abnormal)
    store._database.execute("ROLLBACK")


def test_whatever_ends_a_write_in_the_middle_leaves_nothing_behind(store, tmp_path, monkeypatch):
    class Interrupted(list):
        def __iter__(self):
            raise KeyboardInterrupt

    basis = BASIS._replace(limits=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        store.add_cycle(1, NOON_S, outcome_of(calm(0)), basis)
    assert 0 == rows_of(tmp_path, "cycles")
    add(store, 0)


WRITE_FOR_EVER = """
import sys
sys.path.insert(0, "tests")
import itertools
from pathlib import Path
from store_bench import add, new_store

with new_store(Path(sys.argv[1])) as store:
    for cycle in itertools.count():
        add(store, cycle)
        print(cycle, flush=True)
"""


@pytest.mark.parametrize("cycles", [1, 2, 7, 50])
def test_no_cycle_that_was_said_to_be_stored_is_lost_when_the_gateway_is_killed(tmp_path, cycles, request):
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=request.config.rootpath, text=True) as gateway:
        said = [int(gateway.stdout.readline()) for _ in range(cycles)]
        gateway.send_signal(signal.SIGKILL)
        said += [int(line) for line in gateway.stdout if line.endswith("\n")]
    with Store(tmp_path, SITE) as store:
        stored = [one.outcome.record.cycle for one in store.latest_cycles(10_000_000)]
        assert list(range(len(stored))) == stored
        assert len(said) <= len(stored) <= len(said) + 1
        add(store, len(stored))


READ_ONCE = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from store_bench import SITE

from gateway.store import Store

with Store(Path(sys.argv[1]), SITE) as store:
    print([stored.outcome.record.cycle for stored in store.latest_cycles(99)])
"""


def read_in_another_process(folder, root):
    command = [sys.executable, "-c", READ_ONCE, str(folder)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_a_store_opened_twice_by_one_program_keeps_its_locks_towards_others(store, tmp_path, request):
    """POSIX drops all of a process's locks on a file with any close of it; another program then takes the log away."""
    add(store, 0)
    with Store(tmp_path, SITE):
        pass
    assert "[0]\n" == read_in_another_process(tmp_path, request.config.rootpath)
    add(store, 1)
    assert "[0, 1]\n" == read_in_another_process(tmp_path, request.config.rootpath)
    with Store(tmp_path, SITE) as second:
        assert 2 == len(list(second.latest_cycles(9)))
