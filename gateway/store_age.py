"""What becomes of stored cycles as they age: after an hour they are put together, at last the oldest are deleted.

Done by the service between two cycles, in steps of some milliseconds, each one transaction: a reader sees a cycle as it
stood alone or as it stands in its chunk, and never both or neither, whenever the service is killed.

Clocks jump. A cycle is young when its time lies in the last hour, or the last `keep_days`; one from the future is not.
And no cycle is deleted, whatever its time says, before as many were stored after it as `keep_days` have.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from gateway import store_reports
from gateway.site import Site
from gateway.store_blobs import SIZES_LEN, inflate, sizes_of
from gateway.store_chunks import pack_chunk
from gateway.store_schema import FILE, close_database, damaged, errors_named, open_database, transaction

YOUNG_S = 3_600
# More save little, and all are unpacked to read one: 120 take 3 to 4 % less than 60.
CHUNK_CYCLES = 60
# Of cycles that are not compressed: a few ms on a PC. Sites of thousands of nodes get fewer in a chunk.
CHUNK_BYTES = 1 << 18
KEEP_DAYS_MAX = 36_500
_DAY_S = 86_400
# What is deleted with a cycle, in this order: the column that names the cycle, of each table.
_OF_CYCLES = {
    "records": "cycle_id",
    "chunks": "first_id",
    "cycle_reports": "cycle_id",
    "late_reports": "cycle_id",
    "gaps": "cycle_id",
    "labels": "cycle_id",
    "decisions": "cycle_id",
    "cycles": "id",
}


class Keeping(NamedTuple):
    """How long cycles are kept.

    Attributes:
        keep_days: so long at least, 0..KEEP_DAYS_MAX; 0 for ever.
    """

    keep_days: int = 400


def check_keeping(keeping: Keeping) -> Keeping:
    """The value itself.

    Raises:
        ValueError: a field is out of range.
    """
    if not 0 <= keeping.keep_days <= KEEP_DAYS_MAX:
        raise ValueError(f"keep_days: {keeping.keep_days} is not in 0..{KEEP_DAYS_MAX}; write 0 to keep all for ever")
    return keeping


class Ageing:
    """Of one store that a service writes; a context manager. It belongs to the thread that opened it.

    Every method raises StoreError, one line, when the file cannot be used; the store is then as it was.
    """

    def __init__(self, state: Path, site: Site, keeping: Keeping, now_s: Callable[[], float] = time.time):
        """Open the store in a gateway's state folder, which is there.

        Args:
            state: the folder.
            site: whose store it is; a day has as many cycles as its cycle_s gives.
            keeping: how long cycles are kept.
            now_s: UTC seconds.
        """
        self._path, self._site, self._now_s = state / FILE, site, now_s
        self._keep_s = keeping.keep_days * _DAY_S
        self._keep_cycles = self._keep_s // site.cycle_s
        self._database = open_database(self._path, site, create=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close_database(self._database, self._path)

    def look(self) -> None:
        """Take the steps that are due, one of each kind."""
        self.forget()
        self.compact()

    def compact(self) -> int:
        """Put the oldest cycles that stand alone into a chunk, once it is full, or the next cycle does not fit in.

        Returns:
            How many cycles; 0 where none was due.
        """
        found = self._oldest_alone()
        if not found:
            return 0
        kind, first = found[0][1], found[0][0]
        wanted = self._chunk_cycles(kind, first)
        alike = 0
        while alike < min(wanted, len(found)) and found[alike][:2] == (first + alike, kind):
            alike += 1
        ended = alike == wanted or alike < len(found)
        if not ended or self._is_within(YOUNG_S, found[alike - 1][2]):
            return 0
        self._put_together(first, first + alike - 1)
        return alike

    def forget(self) -> int:
        """Delete the oldest cycle or chunk, with all that belongs to it, if it need not be kept any longer.

        Returns:
            How many cycles; 0 where none was due.
        """
        if not self._keep_s:
            return 0
        ((first, highest),) = self._all("SELECT (SELECT min(id) FROM cycles), (SELECT max(id) FROM cycles)")
        if first is None:
            return 0
        ((last,),) = self._all("SELECT ifnull((SELECT last_id FROM chunks WHERE first_id = ?), ?)", (first, first))
        ((at_s,),) = self._all("SELECT ifnull((SELECT at_s FROM cycles WHERE id = ?), 0.0)", (last,))
        if highest - last < self._keep_cycles or self._is_within(self._keep_s, at_s):
            return 0
        with self._write():
            for table, column in _OF_CYCLES.items():
                deleted = self._database.execute(f"DELETE FROM {table} WHERE {column} <= ?", (last,)).rowcount
            store_reports.forget(self._database, last)
        return deleted

    def _oldest_alone(self) -> list[tuple[int, bytes, float]]:
        """Id, version with sizes, and time of the oldest cycles that stand alone, one more than a chunk has."""
        query = f"""SELECT cycle_id, substr(data, 1, {SIZES_LEN}), at_s FROM records JOIN cycles ON id = cycle_id
            ORDER BY cycle_id LIMIT ?"""
        return self._all(query, (CHUNK_CYCLES + 1,))

    def _chunk_cycles(self, kind: bytes, first: int) -> int:
        """How many cycles of a kind go into a chunk."""
        try:
            sizes = sizes_of(kind[0], kind[1:], (self._site.rows, self._site.cols))
        except (IndexError, ValueError) as error:
            raise damaged(self._path, f"row {first} of records: {error}") from None
        return max(1, min(CHUNK_CYCLES, CHUNK_BYTES // sizes.body(kind[0])))

    def _put_together(self, first: int, last: int) -> None:
        rows = self._all("SELECT data FROM records WHERE cycle_id BETWEEN ? AND ? ORDER BY cycle_id", (first, last))
        try:
            chunk = pack_chunk([inflate(data, (self._site.rows, self._site.cols)) for (data,) in rows])
        except ValueError as error:
            raise damaged(self._path, f"rows {first} to {last} of records: {error}") from None
        with self._write():
            self._database.execute("INSERT INTO chunks VALUES (?, ?, ?)", (first, last, chunk))
            self._database.execute("DELETE FROM records WHERE cycle_id BETWEEN ? AND ?", (first, last))

    def _is_within(self, seconds: float, at_s: float) -> bool:
        """Whether a time lies in the last seconds."""
        now_s = self._now_s()
        return now_s - seconds < at_s <= now_s

    @contextmanager
    def _write(self) -> Iterator[None]:
        """A transaction; a row that breaks a constraint does not belong there."""
        try:
            with transaction(self._database, self._path):
                yield
        except sqlite3.IntegrityError as error:
            raise damaged(self._path, str(error)) from None

    def _all(self, query: str, values: tuple[int, ...] = ()) -> list[Any]:
        with errors_named(self._path):
            return self._database.execute(query, values).fetchall()
