"""Cycles for tests of the store: made up without a mesh, calm ones, random ones, and ones that are exact."""

import sqlite3
from contextlib import contextmanager

import numpy as np
from mesh_in_memory import make_model, make_site

from gateway import decision, twin
from gateway.cycles import Record
from gateway.decision import LIMITS_DEFAULT, Decision, State
from gateway.exactness import Comparison, compare
from gateway.gateway import Outcome
from gateway.received import Arrivals, Gap, Key, Late, Reporter
from gateway.store import ACTIVE, NOTHING_CAME, Basis, Store, StoredModel
from gateway.store_blobs import inflate, record_of
from gateway.store_schema import FILE

SITE = make_site(3, 4, {(0, 3)})
MODEL = make_model("lean", SITE)
NOON_S = 1_700_000_000.25
BASIS = Basis(State(False), LIMITS_DEFAULT, SITE.cells)


def active(model, site=SITE):
    """A model that decides, unsigned."""
    return StoredModel(model, model.filters.pack(site.name), ACTIVE, NOON_S)


@contextmanager
def new_store(folder, model=MODEL, site=SITE):
    """A store that was made just now, in which a model decides."""
    with Store(folder, site, create=True) as opened:
        opened.add_model(active(model, site))
        yield opened


def unpack_cycle(cycle, data, shape):
    """The record that was packed, and its mask."""
    return record_of(cycle, inflate(data, shape))


def calm(cycle, readings_ccel=None, site=SITE):
    """A record in which no node noticed anything."""
    shape = site.mask.shape
    readings = np.full(shape, 2200, np.int16) if readings_ccel is None else readings_ccel
    features = np.zeros((*site.block_shape, 1), np.int16)
    no_absence, no = np.zeros((1, *shape), np.uint8), np.zeros(shape, np.bool_)
    carried = np.zeros(site.block_shape, np.bool_)
    return Record(cycle, features, readings, site.mask, site.mask, no_absence, no, 0, carried)


def random_record(rng, cycle=0, site=SITE, channels=1, exchanges=1):
    """Anything that a record can hold, extremes included."""
    shape = site.mask.shape
    bits = [rng.random(shape) < 0.5 for _ in range(3)]
    readings_ccel = rng.integers(-32_768, 32_768, shape).astype(np.int16)
    features = rng.integers(-1, 256, (*site.block_shape, channels)).astype(np.int16)
    absence = rng.integers(0, 256, (exchanges, *shape)).astype(np.uint8)
    late, carried = int(rng.integers(0, 1_000)), rng.random(site.block_shape) < 0.5
    return Record(cycle, features, readings_ccel, bits[0], bits[1], absence, bits[2], late, carried)


def exact_record(rng, cycle, model, site=SITE):
    """What a mesh that lost a tenth of its frames would have reported."""
    shape, masks = site.mask.shape, site.neighbour_masks
    readings_ccel = (2_100 + 100 * rng.integers(0, 9, shape)).astype(np.int16)
    pooled = site.mask & (rng.random(shape) < 0.9)
    lost = np.packbits(rng.random((model.filters.exchanges, *shape, 8)) < 0.1, axis=-1)[..., 0]
    units = twin.units(model.filters, readings_ccel, site.mask, masks, lost & masks)
    late = int((site.mask & ~pooled).sum())
    features = twin.pool(units, pooled)
    no, carried = np.zeros(shape, np.bool_), np.zeros(site.block_shape, np.bool_)
    return Record(cycle, features, readings_ccel, pooled, pooled, lost & masks, no, late, carried)


def decide(state, record, model, head, site=SITE):
    """What the gateway makes of a record: the next state of the hysteresis, and the outcome."""
    state, decided = decision.update(state, record.features, head)
    exact = compare(record, model.filters, site)
    return state, Outcome(record, decided, model.filters.version, model.head.revision, exact)


def outcome_of(record, abnormal=False, where=None, arrivals=NOTHING_CAME):
    """A record with a decision out of thin air, by the model 1 / 1."""
    return Outcome(record, Decision((0.75, 0.25), abnormal, where), 1, 1, Comparison(5, 4, 3), arrivals)


def arrived(cycle, boot=0xFFFFFFFF):
    """A report of each of two nodes in a cycle, a late one, and a gap."""
    first, second = Key((0, 0), boot, 3 * cycle + 2), Key((2, 3), boot, 3 * cycle + 3)
    late = Late(Key((0, 0), boot, 3 * cycle + 3), b"late %d" % cycle)
    gap = Gap((2, 3), boot, 3 * cycle + 1, 3 * cycle + 1 if cycle % 2 else None)
    last = 3 * cycle + 3
    reporters = ((0, 0), Reporter(boot, last, frozenset({last - 2}))), ((2, 3), Reporter(boot, last))
    return Arrivals((second, first), (late,), (gap,), reporters)


def stored_model(version=1, revision=1, status=ACTIVE, **fields):
    """The model under another version and revision."""
    model = MODEL.numbered(version, revision)
    return StoredModel(model, model.filters.pack(SITE.name), status, NOON_S, **fields)


def add(store, *cycles, run=1):
    """Store calm cycles."""
    for cycle in cycles:
        store.add_cycle(run, NOON_S + cycle, outcome_of(calm(cycle)), BASIS)


def same(record, other):
    """Whether two records hold the same numbers of the same types."""
    return all(
        np.array_equal(left, right) and getattr(left, "dtype", int) == getattr(right, "dtype", int)
        for left, right in zip(record, other, strict=True)
    )


def rows_of(folder, table):
    """Rows that another program sees in a table."""
    database = sqlite3.connect(folder / FILE)
    try:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        database.close()
