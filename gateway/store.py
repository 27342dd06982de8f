"""The store: what a gateway keeps - cycles, decisions with all that recomputes them, models, an operator's labels.

One SQLite file. A call that changes something is one transaction, on the disk when it returns (WAL, synchronous=FULL),
so a cycle that was added may be acknowledged. There is no clock here: callers say when. A `Store` belongs to the thread
that opened it; others open their own: readers never wait for the writer, nor the writer for them.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from gateway import rule, store_reports
from gateway.cycles import Record
from gateway.decision import Decision, Limits, State
from gateway.exactness import Comparison
from gateway.gateway import Outcome
from gateway.model import Model
from gateway.received import Arrivals, Gap, Key, Late, Reporter
from gateway.samples import Samples
from gateway.site import Cell, Site
from gateway.store_blobs import Plain, inflate, pack_cycle, pack_head, record_of, unpack_filters, unpack_head
from gateway.store_chunks import CHUNK, unpack_chunk
from gateway.store_schema import FILE, StoreError, close_database, damaged, errors_named, open_database, transaction

CANDIDATE, REFUSED, PUSHED, ACTIVE, RETIRED = STATUSES = ("candidate", "refused", "pushed", "active", "retired")
NOTE_LEN_MAX = 200
# One takes half a MB on the largest site of simulated rooms; they are there to be looked at.
REFUSED_MAX = 20
# SQLite's pages, of 4 KB, that are copied in one go.
_COPY_PAGES = 2_048
NOTHING_CAME = Arrivals()
# A beacon has four bytes for it.
CYCLE_MAX = 0xFFFFFFFF

_MODELS = """SELECT filter_version, head_revision, spec, filter_set, head, status, created_s, accuracy_before,
    accuracy_after, note FROM models"""
# The record that stands alone, else the chunk and the cycle's place in it: in one query, or it could move in between.
_RECORD = "ifnull(records.data, chunks.data), iif(records.data IS NULL, id - first_id, 0)"
_RECORDS = """LEFT JOIN records ON records.cycle_id = id
    LEFT JOIN chunks ON first_id = (SELECT max(first_id) FROM chunks WHERE first_id <= id)"""
_CYCLES = f"""SELECT run, cycle, {_RECORD}, cycles.at_s, was_abnormal, threshold, band, score_normal, score_abnormal,
    decisions.abnormal, block_row, block_col, filter_version, head_revision, compared, equal, beyond,
    labels.abnormal, labels.note
    FROM cycles JOIN decisions ON decisions.cycle_id = id LEFT JOIN labels ON labels.cycle_id = id {_RECORDS}"""
_BROKEN = {
    "SQLITE_CONSTRAINT_UNIQUE": "is stored already",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "was decided by a model that is not stored",
}
_LATEST = "id IN (SELECT id FROM cycles ORDER BY id DESC LIMIT ?) ORDER BY id"
_FORGET_REFUSED = f"""DELETE FROM models WHERE rowid IN
    (SELECT rowid FROM models WHERE status = '{REFUSED}' ORDER BY rowid DESC LIMIT -1 OFFSET ?)"""


class StoredModel(NamedTuple):
    """A model and what became of it.

    Attributes:
        model: filters and head.
        filter_set: the filters in bytes, as they were signed.
        status: one of STATUSES; one model at most is active.
        created_s: UTC seconds.
        accuracy_before, accuracy_after: share of held-out cycles decided right, 0..1, by the model before and by this
            one; None where nothing was held out.
        note: where it comes from, or why it was refused, NOTE_LEN_MAX characters at most.
    """

    model: Model
    filter_set: bytes
    status: str
    created_s: float
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    note: str = ""


class Basis(NamedTuple):
    """What a decision rests on besides its features and its model.

    Attributes:
        state: of the hysteresis, as it was before.
        limits: in force.
        cells: of the site; its neighbour table belongs to the comparison with the twin.
    """

    state: State
    limits: Limits
    cells: tuple[Cell, ...]


class StoredCycle(NamedTuple):
    """A cycle as it was decided, and what an operator says of it.

    Attributes:
        run: the gateway's start that it belongs to.
        at_s: when it was decided, UTC seconds.
        outcome: record, decision, model and comparison.
        basis: what recomputes the decision.
        label: the operator's: abnormal, normal, or None for none.
        note: the operator's.
    """

    run: int
    at_s: float
    outcome: Outcome
    basis: Basis
    label: bool | None
    note: str


class Store:
    """A site's store; a context manager.

    Every method raises StoreError, one line, when the file cannot be used; then nothing of what it was to write is in
    the file.

    Attributes:
        path: the file.
        site: whose store it is.
    """

    def __init__(self, state: Path, site: Site, create: bool = False):
        """Open the store in a gateway's state folder.

        Args:
            state: the folder.
            site: whose store it is; its cells may have changed since, its name and grid not.
            create: make folder and file where there are none.

        Raises:
            StoreError: as `open_database`.
        """
        self.path = state / FILE
        self.site = site
        self._database = open_database(self.path, site, create)
        self._chunk: tuple[bytes, list[Plain]] = b"", []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close_database(self._database, self.path)

    def add_cycle(self, run: int, at_s: float, outcome: Outcome, basis: Basis) -> None:
        """Keep a cycle, its decision and the reports that came with it; all are on the disk when this returns.

        Raises:
            StoreError: it is stored already, or its model is not.
        """
        record, decided = outcome.record, outcome.decision
        mask = replace(self.site, cells=basis.cells).mask if basis.cells != self.site.cells else self.site.mask
        data = pack_cycle(record, mask)
        try:
            with transaction(self._database, self.path):
                cycle = self._database.execute(
                    "INSERT INTO cycles (run, cycle, at_s) VALUES (?, ?, ?)", (run, record.cycle, at_s)
                )
                self._database.execute("INSERT INTO records VALUES (?, ?)", (cycle.lastrowid, data))
                model = outcome.filter_version, outcome.head_revision
                meaning = *decided.scores, decided.abnormal, *(decided.where or (None, None))
                values = cycle.lastrowid, *model, basis.state.abnormal, *basis.limits, *meaning, *outcome.exact
                self._database.execute(f"INSERT INTO decisions VALUES ({', '.join('?' * len(values))})", values)
                if outcome.arrivals != NOTHING_CAME:
                    store_reports.add(self._database, values[0], outcome.arrivals)
        except sqlite3.IntegrityError as error:
            why = _BROKEN.get(error.sqlite_errorname, f"holds what cannot be stored ({error})")
            raise StoreError(f"{self.path}: run {run} cycle {record.cycle} {why}") from None

    def cycle(self, run: int, cycle: int) -> StoredCycle | None:
        """One cycle; None where it is not stored."""
        return next(self._select_cycles("run = ? AND cycle = ?", (run, cycle)), None)

    def latest_cycles(self, limit: int) -> Iterator[StoredCycle]:
        """The latest cycles in the order they were decided in, read one by one."""
        return self._select_cycles(_LATEST, (limit,))

    def reporters(self) -> dict[Cell, list[Reporter]]:
        """What came by now of each node's starts, the latest start at the end."""
        return store_reports.reporters_of(self._rows(store_reports.REPORTERS))

    def reports(self, run: int, cycle: int) -> list[Key]:
        """The reports that a cycle's record rests on; none where they were not kept yet when it was stored."""
        row = self._one(store_reports.CYCLE, (run, cycle))
        named = {id_: ((row, col), boot) for id_, row, col, boot in self._rows(store_reports.NAMED)}
        try:
            return store_reports.keys_of(row[0], named) if row else []
        except ValueError as error:
            raise damaged(self.path, f"run {run} cycle {cycle}: {error}") from None

    def late_reports(self) -> Iterator[Late]:
        """The reports that are in no cycle, read one by one."""
        return store_reports.late_of(self._rows(store_reports.LATE))

    def gaps(self) -> Iterator[Gap]:
        """What is known to be lost, in the order found out."""
        return store_reports.gaps_of(self._rows(store_reports.GAPS))

    def last_run(self) -> int | None:
        """The run of the latest cycle; None where none is stored."""
        row = self._one("SELECT run FROM cycles ORDER BY id DESC LIMIT 1")
        return row[0] if row else None

    def cycle_span(self, run: int, cycles: tuple[int, int] = (0, CYCLE_MAX)) -> tuple[int, int] | None:
        """The lowest and the highest stored cycle of a run, from the first to the last given; None without any."""
        query = "SELECT min(cycle), max(cycle) FROM cycles WHERE run = ? AND cycle BETWEEN ? AND ?"
        low, high = self._one(query, (run, *cycles))
        return None if low is None else (low, high)

    def samples(self, limit: int) -> Samples:
        """What the latest cycles teach, in the order they were decided in; those without any reading are left out.

        Returns:
            Readings, who had one, and whether the cycle was abnormal: the operator's label where there is one, else
            the site's rule. Read cycle by cycle, so nothing but the arrays grows with `limit`.
        """
        (stored,) = self._one("SELECT count(*) FROM (SELECT 1 FROM cycles LIMIT ?)", (limit,))
        shape = stored, self.site.rows, self.site.cols
        samples = Samples(np.zeros(shape, np.int16), np.zeros(shape, np.bool_), np.zeros(stored, np.bool_))
        query = f"""SELECT run, cycle, {_RECORD}, labels.abnormal FROM cycles
            LEFT JOIN labels ON labels.cycle_id = id {_RECORDS} WHERE {_LATEST}"""
        count = 0
        for run, cycle, data, place, label in self._rows(query, (stored,)):
            record, _ = self._unpack_cycle(run, cycle, data, place)
            if not record.has_reading.any():
                continue
            samples.readings_ccel[count], samples.present[count] = record.readings_ccel, record.has_reading
            by_rule = rule.abnormal(record.readings_ccel, record.has_reading)
            samples.abnormal[count] = by_rule if label is None else label
            count += 1
        return samples.part(slice(count))

    def cycles_since(self, at_s: float, limit: int) -> int:
        """How many of the latest cycles, so many at most, were decided after a time."""
        query = "SELECT count(*) FROM (SELECT at_s FROM cycles ORDER BY id DESC LIMIT ?) WHERE at_s > ?"
        (count,) = self._one(query, (limit, at_s))
        return int(count)

    def set_label(self, run: int, cycles: tuple[int, int], abnormal: bool, at_s: float, note: str = "") -> int:
        """Label all stored cycles from the first to the last of a run; returns how many there were.

        Raises:
            StoreError: the note is too long.
        """
        _check_note(note)
        query = """INSERT INTO labels SELECT id, ?, ?, ? FROM cycles WHERE run = ? AND cycle BETWEEN ? AND ?
            ON CONFLICT (cycle_id) DO UPDATE
            SET abnormal = excluded.abnormal, at_s = excluded.at_s, note = excluded.note"""
        return self._change(query, (abnormal, at_s, note, run, *cycles))

    def remove_label(self, run: int, cycles: tuple[int, int]) -> int:
        """Take the labels of a run's cycles away, the first to the last; returns how many there were."""
        query = "DELETE FROM labels WHERE cycle_id IN (SELECT id FROM cycles WHERE run = ? AND cycle BETWEEN ? AND ?)"
        return self._change(query, (run, *cycles))

    def add_model(self, stored: StoredModel) -> None:
        """Keep a model; one that is active retires the one before. Of those that were refused the latest are kept.

        Raises:
            StoreError: a model of its filter version and head revision is stored, or a field is out of range.
        """
        model = stored.model
        _check_status(stored.status)
        _check_note(stored.note)
        key = model.filters.version, model.head.revision
        values = *key, model.spec_name, stored.filter_set, pack_head(model.head), *stored[2:]
        try:
            with transaction(self._database, self.path):
                self._retire(stored.status)
                self._database.execute(f"INSERT INTO models VALUES ({', '.join('?' * len(values))})", values)
                self._database.execute(_FORGET_REFUSED, (REFUSED_MAX,))  # none of them ever decided a cycle
        except sqlite3.IntegrityError:
            raise StoreError(f"{self.path}: filters {key[0]} with head {key[1]} are stored already") from None

    def set_status(self, filter_version: int, head_revision: int, status: str, note: str | None = None) -> None:
        """Say what became of a model; one that becomes active retires the one before.

        Args:
            filter_version, head_revision: which one.
            status: a word of STATUSES.
            note: why; None leaves the note as it is.

        Raises:
            StoreError: no such status or model, or the note is too long.
        """
        _check_status(status)
        _check_note(note or "")
        query = "UPDATE models SET status = ?, note = ifnull(?, note) WHERE filter_version = ? AND head_revision = ?"
        with transaction(self._database, self.path):
            self._retire(status)
            if not self._database.execute(query, (status, note, filter_version, head_revision)).rowcount:
                raise StoreError(f"{self.path}: filters {filter_version} with head {head_revision} are not stored")

    def model(self, filter_version: int, head_revision: int) -> StoredModel | None:
        """One model; None where it is not stored."""
        row = self._one(f"{_MODELS} WHERE filter_version = ? AND head_revision = ?", (filter_version, head_revision))
        return self._model_of_row(row) if row else None

    def active_model(self) -> StoredModel | None:
        """The model that decides; None before the first."""
        return self.latest_model(ACTIVE)

    def latest_model(self, status: str) -> StoredModel | None:
        """The one with the highest version of those with a status; None where there is none."""
        query = f"{_MODELS} WHERE status = ? ORDER BY filter_version DESC, head_revision DESC LIMIT 1"
        row = self._one(query, (status,))
        return self._model_of_row(row) if row else None

    def model_keys(self, status: str | None = None) -> list[tuple[int, int]]:
        """Filter version and head revision of all models, or of those with a status; the highest at the end."""
        query = "SELECT filter_version, head_revision FROM models WHERE status = ifnull(?, status) ORDER BY 1, 2"
        return list(self._rows(query, (status,)))

    def models(self) -> Iterator[StoredModel]:
        """All models, the oldest first, read one by one."""
        return map(self._model_of_row, self._rows(f"{_MODELS} ORDER BY rowid"))

    def highest_model(self) -> tuple[int, int]:
        """The highest filter version and the highest head revision ever stored; 0 where there is none."""
        query = "SELECT ifnull(max(filter_version), 0), ifnull(max(head_revision), 0) FROM models"
        version, revision = self._one(query)
        return version, revision

    def last_model_s(self) -> float:
        """When the latest model was made, UTC seconds; 0 before the first."""
        (at_s,) = self._one("SELECT ifnull(max(created_s), 0.0) FROM models")
        return float(at_s)

    def copy_to(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Copy all that is in the store at one instant into another file; whoever writes goes on meanwhile.

        Args:
            target: an empty file.
            progress: called with (pages copied, of how many).

        Raises:
            StoreError: the store cannot be read, or the file not be written.
        """
        with errors_named(target), closing(sqlite3.connect(target)) as copy:
            # A reader's view does not change; without one every commit of a writer would make the copy start anew.
            self._database.execute("BEGIN")
            try:
                self._one("SELECT count(*) FROM site")
                self._database.backup(
                    copy, pages=_COPY_PAGES, progress=lambda _, left, pages: progress(pages - left, pages)
                )
            finally:
                self._database.execute("ROLLBACK")
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it

    def check_whole(self) -> None:
        """Read all of the file.

        Raises:
            StoreError: it is damaged.
        """
        (found,) = self._one("PRAGMA integrity_check(1)")
        if found != "ok":
            raise damaged(self.path, found)

    def _retire(self, status: str) -> None:
        if status == ACTIVE:
            self._database.execute(f"UPDATE models SET status = '{RETIRED}' WHERE status = '{ACTIVE}'")

    def _select_cycles(self, where: str, values: tuple[int, ...]) -> Iterator[StoredCycle]:
        for run, cycle, data, place, at_s, was_abnormal, *rest in self._rows(f"{_CYCLES} WHERE {where}", values):
            threshold, band, normal, score, abnormal, row, col, version, revision, *exact, label, note = rest
            record, cells = self._unpack_cycle(run, cycle, data, place)
            decided = Decision((normal, score), bool(abnormal), None if row is None else (row, col))
            outcome = Outcome(record, decided, version, revision, Comparison(*exact))
            basis = Basis(State(bool(was_abnormal)), Limits(threshold, band), cells)
            yield StoredCycle(run, at_s, outcome, basis, None if label is None else bool(label), note or "")

    def _unpack_cycle(self, run: int, cycle: int, data: bytes | None, place: int) -> tuple[Record, tuple[Cell, ...]]:
        try:
            cycles = self._inflate(data or b"")
            if place >= len(cycles):
                raise ValueError(f"is not among the {len(cycles)} cycles of its chunk")
            record, mask = record_of(cycle, cycles[place])
        except ValueError as error:
            raise damaged(self.path, f"run {run} cycle {cycle}: {error}") from None
        same = np.array_equal(mask, self.site.mask)
        return record, self.site.cells if same else tuple((int(row), int(col)) for row, col in np.argwhere(mask))

    def _inflate(self, data: bytes) -> list[Plain]:
        """The cycles of a record or a chunk; those of a chunk are read one after the other, so the last one is kept."""
        shape = self.site.rows, self.site.cols
        if data[:1] != bytes((CHUNK,)):
            return [inflate(data, shape)]
        if self._chunk[0] != data:
            self._chunk = data, unpack_chunk(data, shape)
        return self._chunk[1]

    def _model_of_row(self, row: tuple[Any, ...]) -> StoredModel:
        version, revision, spec, filter_set, head, *rest = row
        try:
            model = Model(spec, unpack_filters(filter_set), unpack_head(revision, head))
            if model.filters.version != version:
                raise ValueError(f"its filter set is version {model.filters.version}")
        except ValueError as error:
            raise damaged(self.path, f"filters {version} with head {revision}: {error}") from None
        return StoredModel(model, filter_set, *rest)

    def _change(self, query: str, values: tuple[Any, ...]) -> int:
        try:
            with transaction(self._database, self.path):
                return self._database.execute(query, values).rowcount
        except sqlite3.IntegrityError as error:  # no value that is given can break a constraint
            raise damaged(self.path, str(error)) from None

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        with errors_named(self.path):
            return self._database.execute(query, values).fetchone()

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with errors_named(self.path):
            yield from self._database.execute(query, values)


def _check_status(status: str) -> None:
    if status not in STATUSES:
        raise StoreError(f"status: {status[:40]!r} is none; write {', '.join(STATUSES)}")


def _check_note(note: str) -> None:
    if len(note) > NOTE_LEN_MAX:
        raise StoreError(f"note: has {len(note)} characters; write {NOTE_LEN_MAX} at most")
    if not note.isprintable():
        raise StoreError(f"note: {note[:40]!r} cannot be printed; leave out line breaks and the like")
