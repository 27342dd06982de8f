"""The store's file: its tables, how an older one becomes a new one, and what is said when it cannot be used.

SQLite keeps two numbers in the file's header: the application's id, and `user_version`, which counts the steps below
that the file has been through. A new version of the tables is one more step at the end; a step is never changed. The
header is read before SQLite opens the file, so that a file that is not ours to use is left as it is.

Rule: while a process has a connection, nothing in it but SQLite opens the file. POSIX drops all locks that a process
holds on a file as soon as it closes it anywhere, and another program would then take SQLite's log away from under us.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway import store_reports
from gateway.site import Site

FILE = "thermesh.db"
# Longer than any write of ours takes; a cycle's outcome waits no longer for another program that writes.
BUSY_S_MAX = 2.0

# The first with STRICT tables.
_SQLITE_OLDEST = (3, 37)
# "tmsh"; SQLite's header has a place for it.
APPLICATION_ID = 0x746D7368
_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100
_SCHEMA_COOKIE, _USER_VERSION, _APPLICATION_ID = slice(40, 44), slice(60, 64), slice(68, 72)

# STRICT: a value is of its column's type or is refused, so what is read needs no further look. Times are UTC seconds.
STEPS = (
    (
        """CREATE TABLE site (name TEXT NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL) STRICT""",
        """CREATE TABLE models (
            filter_version INTEGER NOT NULL,
            head_revision INTEGER NOT NULL,
            spec TEXT NOT NULL,
            filter_set BLOB NOT NULL,
            head BLOB NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('candidate', 'refused', 'pushed', 'active', 'retired')),
            created_s REAL NOT NULL,
            accuracy_before REAL,
            accuracy_after REAL,
            note TEXT NOT NULL,
            PRIMARY KEY (filter_version, head_revision)
        ) STRICT""",
        "CREATE UNIQUE INDEX one_active_model ON models (status) WHERE status = 'active'",
        # Rows are deleted from the oldest on, and never the latest: ids rise in the order of time and none is missing
        # between two, whatever the clock or the number of the run does.
        """CREATE TABLE cycles (
            id INTEGER PRIMARY KEY,
            run INTEGER NOT NULL,
            cycle INTEGER NOT NULL,
            at_s REAL NOT NULL,
            record BLOB NOT NULL,
            UNIQUE (run, cycle)
        ) STRICT""",
        """CREATE TABLE decisions (
            cycle_id INTEGER PRIMARY KEY REFERENCES cycles (id),
            filter_version INTEGER NOT NULL,
            head_revision INTEGER NOT NULL,
            was_abnormal INTEGER NOT NULL,
            threshold REAL NOT NULL,
            band REAL NOT NULL,
            score_normal REAL NOT NULL,
            score_abnormal REAL NOT NULL,
            abnormal INTEGER NOT NULL,
            block_row INTEGER,
            block_col INTEGER,
            compared INTEGER NOT NULL,
            equal INTEGER NOT NULL,
            beyond INTEGER NOT NULL,
            FOREIGN KEY (filter_version, head_revision) REFERENCES models (filter_version, head_revision)
        ) STRICT""",
    ),
    (
        """CREATE TABLE labels (
            cycle_id INTEGER PRIMARY KEY REFERENCES cycles (id),
            abnormal INTEGER NOT NULL,
            at_s REAL NOT NULL,
            note TEXT NOT NULL
        ) STRICT""",
    ),
    store_reports.STEP,
    (
        # What was reported of a cycle: alone while it is young, then in a chunk with those next to it. Tables of their
        # own, for SQLite joins half-empty pages when rows go, and does not when they shrink.
        """CREATE TABLE records (cycle_id INTEGER PRIMARY KEY REFERENCES cycles (id), data BLOB NOT NULL) STRICT""",
        """CREATE TABLE chunks (
            first_id INTEGER PRIMARY KEY REFERENCES cycles (id),
            last_id INTEGER NOT NULL,
            data BLOB NOT NULL
        ) STRICT""",
        "INSERT INTO records SELECT id, record FROM cycles",
        "ALTER TABLE cycles DROP COLUMN record",
    ),
)
VERSION = len(STEPS)

# By SQLite's primary result code.
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_BUSY: "is in use by another program; try again, or stop the other one",
    sqlite3.SQLITE_LOCKED: "is in use by another program; try again, or stop the other one",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; make the folder and the file readable and writable",
    sqlite3.SQLITE_PERM: "cannot be opened; make the folder and the file readable and writable",
    sqlite3.SQLITE_READONLY: "cannot be written; make the folder and the file writable",
    sqlite3.SQLITE_NOMEM: "does not fit into this machine's free memory; free some",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk and its free space",
}
# SQLite quotes whole tables.
_QUOTE_LEN_MAX = 120
_connections: Counter[Path] = Counter()
# Of each file that is open, what it is: (device, inode).
_opened: dict[Path, tuple[int, int]] = {}
# Files in which some connection found damage. The others may not see it for long: SQLite keeps pages in memory.
_found_damaged: dict[Path, str] = {}
_DAMAGE = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB
_opening = threading.Lock()
_DAMAGED = "is damaged; put a backup in its place, or move it away to start a new one"


class StoreError(ValueError):
    """The store cannot be used, or does not take this; one line that names file and remedy, or field and value."""


def open_database(path: Path, site: Site, create: bool) -> sqlite3.Connection:
    """Open a store's file, bring it to the newest version, and check that it is this site's.

    Args:
        path: the file.
        site: whose store it is.
        create: make the file, and its folder, where there is none.

    Returns:
        A connection whose transactions are opened by `transaction`, and are on the disk when that returns; it is closed
        by `close_database`.

    Raises:
        StoreError: no file, none of ours, damaged, of a newer version or another site: then it stays as it is; or
            SQLite is too old.
    """
    _check_sqlite()
    with _opening:
        if not _connections[path.resolve()]:
            _check_header(path, create)
        database = _connect(path, site)
        if not _connections[path.resolve()]:
            _opened[path.resolve()] = _identity(path)
        _connections[path.resolve()] += 1
    return database


def close_database(database: sqlite3.Connection, path: Path) -> None:
    """Close what `open_database` opened."""
    with _opening:
        database.close()
        _connections[path.resolve()] -= 1
        if not _connections[path.resolve()]:
            _opened.pop(path.resolve(), None)
            _found_damaged.pop(path.resolve(), None)


@contextmanager
def transaction(database: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All of a block's changes, or none; they are on the disk when it ends.

    Raises:
        StoreError: as `errors_named`; or another file is in its place, and what SQLite wrote would be gone in the end;
            or this program has found damage in it before, and nothing more shall depend on it.
    """
    found, resolved = _identity(path), path.resolve()
    if resolved in _found_damaged:
        raise StoreError(_found_damaged[resolved])
    if found != _opened.get(resolved, found):
        raise StoreError(f"{path}: was deleted or replaced while it was in use; start this program anew")
    with errors_named(path):
        try:
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    database.execute("ROLLBACK")
            raise


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line with file and remedy; what breaks a constraint is the caller's to explain.

    Raises:
        StoreError: the file cannot be used.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except UnicodeDecodeError:  # the module reads SQLite's own message, which quotes a damaged schema
        raise damaged(path, "its tables cannot be read") from None
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None and not isinstance(error, sqlite3.OperationalError):  # wrong use of the module: our bug
            raise
        reason = _REASONS.get(code & 0xFF) if code is not None else None  # the module's own: a text that is no UTF-8
        if reason is None:
            found = damaged(path, " ".join(str(error).split())[:_QUOTE_LEN_MAX])
            if code is not None and code & 0xFF in _DAMAGE and _connections[path.resolve()]:
                _found_damaged[path.resolve()] = str(found)
            raise found from None
        raise StoreError(f"{path}: {reason}") from None


def damaged(path: Path, what: str) -> StoreError:
    """The error for what lies in the file and cannot be: "run 1 cycle 7: the record is cut short"."""
    return StoreError(f"{path}: {_DAMAGED} ({what})")


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _connect(path: Path, site: Site) -> sqlite3.Connection:
    database = None
    try:
        with errors_named(path):
            database = sqlite3.connect(path, timeout=BUSY_S_MAX, isolation_level=None)
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
            _migrate(database, path, site)
            database.execute("PRAGMA journal_mode = WAL")
            _check_site(database, path, site)
    except BaseException:
        if database:
            database.close()
        raise
    return database


def _check_sqlite() -> None:
    if sqlite3.sqlite_version_info < _SQLITE_OLDEST:
        found = sqlite3.sqlite_version
        raise StoreError(f"SQLite: {found} is older than 3.37; use a Python that comes with a newer one")


def _check_header(path: Path, create: bool) -> None:
    """Refuse a file that is not ours to open. An empty one is what a crash in the first moment leaves behind."""
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise StoreError(f"{path}: there is no store yet; run `thermesh gateway` with this configuration first")
        if not path.exists():
            return
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; name another folder as state") from None
    if not header:
        return
    if not header.startswith(_MAGIC) or len(header) < _HEADER_SIZE:
        raise damaged(path, "it is no SQLite file")
    application, version, cookie = (
        int.from_bytes(header[place], "big") for place in (_APPLICATION_ID, _USER_VERSION, _SCHEMA_COOKIE)
    )
    if application != APPLICATION_ID and (version or cookie):
        raise StoreError(f"{path}: is the database of another program; move it away")
    _check_version(path, version)


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise StoreError(f"{path}: has version {version}, this thermesh knows {VERSION} at most; install a newer one")


def _migrate(database: sqlite3.Connection, path: Path, site: Site) -> None:
    """Take the steps that the file has not been through, all or none; a file of this version is not even locked."""
    if _version_of(database, path) == VERSION:
        return
    with transaction(database, path):
        version = _version_of(database, path)  # again: another program may have been faster
        for step in STEPS[version:]:
            for statement in step:
                database.execute(statement)
        if version == 0:
            database.execute("INSERT INTO site VALUES (?, ?, ?)", (site.name, site.rows, site.cols))
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {VERSION}")


def _version_of(database: sqlite3.Connection, path: Path) -> int:
    """The version, also when only the write-ahead log that a crash left has it and the header is older."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    _check_version(path, version)
    return version


def _check_site(database: sqlite3.Connection, path: Path, site: Site) -> None:
    """Cells may come and go within a site; its name and the shape of its grid stay."""
    found = database.execute("SELECT name, rows, cols FROM site").fetchone()
    if found is None:
        raise damaged(path, "it names no site")
    name, rows, cols = found
    if (name, rows, cols) != (site.name, site.rows, site.cols):
        raise StoreError(
            f"{path}: is the store of site {name} ({rows} x {cols}), not of {site.name} ({site.rows} x {site.cols}); "
            f"name another folder as state"
        )
