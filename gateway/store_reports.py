"""Reports in the store: which of them each cycle rests on, those in no cycle, and the gaps between them.

A start of a node is a row of `reporters`, its boot is written there once. A cycle's reports are one BLOB: zlib of the
rows' numbers as differences u32, then of the reports' numbers u32, little-endian; most are equal, and cost nothing.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from gateway.received import WINDOW, Arrivals, Gap, Key, Late, Reporter
from gateway.site import Cell
from protocol.grid import CORNERS

_BYTES_EACH = 8
# So many reports of one node fit a cycle, each of which names one more member; nothing much larger is unpacked.
_EACH_MAX = CORNERS

STEP = (
    """CREATE TABLE reporters (
        id INTEGER PRIMARY KEY,
        row INTEGER NOT NULL,
        col INTEGER NOT NULL,
        boot INTEGER NOT NULL,
        last INTEGER NOT NULL,
        missing INTEGER NOT NULL,
        cycle_id INTEGER NOT NULL,
        UNIQUE (row, col, boot)
    ) STRICT""",
    """CREATE TABLE cycle_reports (
        cycle_id INTEGER PRIMARY KEY REFERENCES cycles (id),
        keys BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE late_reports (
        reporter_id INTEGER NOT NULL REFERENCES reporters (id),
        seq INTEGER NOT NULL,
        cycle_id INTEGER NOT NULL REFERENCES cycles (id),
        frame BLOB NOT NULL,
        PRIMARY KEY (reporter_id, seq)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE gaps (
        id INTEGER PRIMARY KEY,
        reporter_id INTEGER NOT NULL REFERENCES reporters (id),
        first INTEGER NOT NULL,
        last INTEGER,
        cycle_id INTEGER NOT NULL REFERENCES cycles (id)
    ) STRICT""",
)
"""The tables, a step of gateway/store_schema.py. `missing`: bit k, report last - 1 - k may still come.

The cycle of a late report or of a gap is the one that it was stored with, that of a reporter the last one with which
something of it was.
"""


def add(database: sqlite3.Connection, cycle_id: int, arrivals: Arrivals) -> None:
    """Keep what came with a cycle, within the transaction that keeps the cycle."""
    ids = {(cell, reporter.boot): _keep(database, cycle_id, cell, reporter) for cell, reporter in arrivals.reporters}

    def id_of(cell: Cell, boot: int) -> int:
        return ids.get((cell, boot)) or _find(database, cell, boot)

    pairs = sorted((id_of(key.cell, key.boot), key.seq) for key in arrivals.in_cycle)
    database.execute("INSERT INTO cycle_reports VALUES (?, ?)", (cycle_id, _pack(pairs)))
    late = [(id_of(key.cell, key.boot), key.seq, cycle_id, frame) for key, frame in arrivals.late]
    database.executemany("INSERT OR IGNORE INTO late_reports VALUES (?, ?, ?, ?)", late)
    gaps = [(id_of(cell, boot), first, last, cycle_id) for cell, boot, first, last in arrivals.gaps]
    database.executemany("INSERT INTO gaps (reporter_id, first, last, cycle_id) VALUES (?, ?, ?, ?)", gaps)


REPORTERS = "SELECT row, col, boot, last, missing FROM reporters ORDER BY id"
CYCLE = """SELECT cycle_reports.keys FROM cycle_reports JOIN cycles ON id = cycle_id
    WHERE run = ? AND cycle = ?"""
NAMED = "SELECT id, row, col, boot FROM reporters"
LATE = """SELECT row, col, boot, seq, frame FROM late_reports JOIN reporters ON id = reporter_id
    ORDER BY late_reports.cycle_id, reporter_id, seq"""
GAPS = """SELECT row, col, boot, first, gaps.last FROM gaps JOIN reporters ON reporters.id = reporter_id
    ORDER BY gaps.id"""


def reporters_of(rows: Iterable[tuple[int, ...]]) -> dict[Cell, list[Reporter]]:
    """Rows of REPORTERS by node, the latest start at the end."""
    found: dict[Cell, list[Reporter]] = {}
    for row, col, boot, last, mask in rows:
        missing = frozenset(last - 1 - k for k in range(WINDOW - 1) if mask >> k & 1)
        found.setdefault((row, col), []).append(Reporter(boot, last, missing))
    return found


def keys_of(data: bytes, named: dict[int, tuple[Cell, int]]) -> list[Key]:
    """A cycle's reports; `named`: cell and boot by a reporter's row.

    Raises:
        ValueError: it is damaged.
    """
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, max(1, _EACH_MAX * _BYTES_EACH * len(named)))
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(body) % _BYTES_EACH or not stream.eof:
        raise ValueError("reports of a wrong length")
    numbers = np.frombuffer(body, "<u4").reshape(2, -1)
    ids = np.cumsum(numbers[0], dtype=np.uint32)
    try:
        return sorted(Key(*named[int(id_)], int(seq)) for id_, seq in zip(ids, numbers[1], strict=True))
    except KeyError as error:
        raise ValueError(f"no reporter {error}") from None


def late_of(rows: Iterable[tuple[int, int, int, int, bytes]]) -> Iterator[Late]:
    """Rows of LATE."""
    return (Late(Key((row, col), boot, seq), frame) for row, col, boot, seq, frame in rows)


def gaps_of(rows: Iterable[tuple[int, int, int, int, int | None]]) -> Iterator[Gap]:
    """Rows of GAPS."""
    return (Gap((row, col), boot, first, last) for row, col, boot, first, last in rows)


def forget(database: sqlite3.Connection, cycle_id: int) -> None:
    """Delete starts of nodes that no later cycle speaks of, but for the latest of each node."""
    database.execute(
        """DELETE FROM reporters WHERE cycle_id <= ? AND id NOT IN (SELECT max(id) FROM reporters GROUP BY row, col)
        AND id NOT IN (SELECT reporter_id FROM gaps) AND id NOT IN (SELECT reporter_id FROM late_reports)""",
        (cycle_id,),
    )


def _keep(database: sqlite3.Connection, cycle_id: int, cell: Cell, reporter: Reporter) -> int:
    missing = sum(1 << (reporter.last - 1 - seq) for seq in reporter.missing)
    (id_,) = database.execute(
        """INSERT INTO reporters (row, col, boot, last, missing, cycle_id) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (row, col, boot) DO UPDATE
        SET last = excluded.last, missing = excluded.missing, cycle_id = excluded.cycle_id RETURNING id""",
        (*cell, reporter.boot, reporter.last, missing, cycle_id),
    ).fetchone()
    return int(id_)


def _find(database: sqlite3.Connection, cell: Cell, boot: int) -> int:
    query = "SELECT id FROM reporters WHERE row = ? AND col = ? AND boot = ?"
    found = database.execute(query, (*cell, boot)).fetchone()
    if found is None:  # it was there when the gateway started
        raise sqlite3.OperationalError(f"reporter {cell} {boot} is gone")
    return int(found[0])


def _pack(pairs: list[tuple[int, int]]) -> bytes:
    numbers = np.array(pairs, np.uint32).reshape(-1, 2)
    ids = np.diff(numbers[:, 0], prepend=np.uint32(0))
    return zlib.compress(np.concatenate([ids, numbers[:, 1]]).astype("<u4").tobytes())
