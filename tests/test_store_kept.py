"""What older releases wrote is read for ever; and a file with any bytes wrong is named or read, never a traceback."""

import hashlib
import random
import sqlite3

import numpy as np
import pytest
from store_bench import SITE, arrived, calm, new_store, outcome_of, unpack_cycle

from gateway.cycles import Record
from gateway.decision import LIMITS_DEFAULT, State
from gateway.recompute import recompute
from gateway.store import Basis, Store
from gateway.store_blobs import unpack_head
from gateway.store_schema import FILE, STEPS, StoreError, errors_named

BASIS = Basis(State(False), LIMITS_DEFAULT, SITE.cells)

# A cycle of 2 x 3 cells, 1 channel, 1 exchange as version 1 wrote it; cell (1, 2) is a hole.
RECORD_1 = bytes.fromhex("01020301012c010000789c33b8c0f8978959f01dc37f0620626462e1106868f8f1624500006c1108f8")
HEAD_1 = bytes.fromhex("010102000000020000000000803f000000c00000003f0000000000004040000080bf")


def test_a_cycle_that_version_1_wrote_is_read_as_it_was():
    record, cells = unpack_cycle(7, RECORD_1, (2, 3))
    assert isinstance(record, Record)
    assert (7, 300) == (record.cycle, record.late)
    assert [[[255], [-1]]] == record.features.tolist()
    assert [[2200, -32768, 32767], [0, 1, -1]] == record.readings_ccel.tolist()
    assert [[True, True, True], [False, True, False]] == record.has_reading.tolist()
    assert [[True, False, True], [False, True, False]] == record.pooled.tolist()
    assert [[False, True, False], [True, False, False]] == record.no_reading.tolist()
    assert [[[1, 2, 4], [8, 16, 128]]] == record.absence.tolist()
    assert [[True, True, True], [True, True, False]] == cells.tolist()


def test_a_head_that_version_1_wrote_is_read_as_it_was():
    ((weights, bias),) = unpack_head(5, HEAD_1).layers
    assert [[1.0, -2.0], [0.5, 0.0]] == weights.tolist()
    assert [3.0, -1.0] == bias.tolist()


# A new version is one more line here.
DIGESTS = (
    "0252af0e2a97e4d7",
    "1317f7d8c19e8d11",
    "97da25037a6009e7",
    "7ca7bd6c157ff860",
)


def test_a_step_that_was_released_never_changes():
    """Files have been through it: what is different goes into a step of its own."""
    assert DIGESTS == tuple(hashlib.sha256("\0".join(step).encode()).hexdigest()[:16] for step in STEPS)


def test_a_reader_opens_beside_a_writer_and_does_not_wait(tmp_path):
    with new_store(tmp_path):
        pass
    writer = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with Store(tmp_path, SITE) as reader:
        assert reader.active_model() is not None
    writer.execute("ROLLBACK")
    writer.close()


def use(folder):
    """All that is done with a store."""
    with Store(folder, SITE) as store:
        found = list(store.latest_cycles(99))
        store.samples(99)
        list(store.models())
        store.active_model()
        for stored in found[-2:]:
            recompute(store, stored)
        store.add_cycle(2, 0.0, outcome_of(calm(0), arrivals=arrived(0, boot=7)), BASIS)
        store.set_label(1, (1, 2), False, 0.0)
        store.reports(1, 12)
        for kept in (store.reporters(), store.late_reports(), store.gaps()):
            list(kept)


@pytest.fixture
def whole(tmp_path):
    """The bytes of a store that holds something of everything."""
    with new_store(tmp_path) as store:
        for cycle in range(30):
            store.add_cycle(1, 0.0, outcome_of(calm(cycle), arrivals=arrived(cycle)), BASIS)
        store.set_label(1, (3, 9), True, 0.0, "Übung")
    return (tmp_path / FILE).read_bytes()


def test_a_store_with_any_bytes_wrong_is_read_or_named_in_one_line(tmp_path, whole, seed):
    rng, named = random.Random(seed), []
    for _ in range(300):
        wrong = bytearray(whole)
        for _ in range(rng.choice((1, 3, 40))):
            wrong[rng.randrange(len(wrong))] = rng.randrange(256)
        for left in tmp_path.glob(FILE + "*"):
            left.unlink()
        (tmp_path / FILE).write_bytes(wrong)
        try:
            use(tmp_path)
        except StoreError as error:
            named.append(str(error))
    assert 30 < len(named) < 300
    assert not [line for line in named if "\n" in line]


def test_a_note_that_is_no_text_is_damage(tmp_path):
    with new_store(tmp_path) as store:
        store._database.execute("UPDATE models SET note = CAST(x'c3' AS TEXT)")
        with pytest.raises(StoreError, match=r"is damaged; put a backup in its place.*decode to UTF-8 column 'note'"):
            store.active_model()


def test_a_lack_of_memory_is_not_called_damage(tmp_path):
    error = sqlite3.OperationalError("out of memory")
    error.sqlite_errorcode = sqlite3.SQLITE_NOMEM
    line = "does not fit into this machine's free memory; free some"
    with pytest.raises(StoreError, match=line), errors_named(tmp_path / FILE):
        raise error


def test_scores_that_are_no_numbers_are_named(tmp_path):
    with new_store(tmp_path) as store:
        outcome = outcome_of(calm(0))
        nothing = outcome.decision._replace(scores=(np.nan, np.nan))
        with pytest.raises(StoreError, match=r"run 1 cycle 0 holds what cannot be stored \(.*score_normal\)"):
            store.add_cycle(1, 0.0, outcome._replace(decision=nothing), BASIS)
