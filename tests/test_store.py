"""The store: what goes in comes out, all or nothing, exactly once, and recomputes what was decided."""

from dataclasses import replace

import numpy as np
import pytest
from mesh_in_memory import make_model, make_site
from store_bench import (
    BASIS,
    MODEL,
    NOON_S,
    SITE,
    add,
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

from gateway import rule
from gateway.decision import LIMITS_DEFAULT, Decision, Limits, State
from gateway.exactness import Comparison
from gateway.gateway import Outcome
from gateway.head import HeadRunner
from gateway.model import SPECS, Head
from gateway.recompute import SCORE_TOLERANCE, agrees, recompute
from gateway.samples import Samples
from gateway.store import (
    ACTIVE,
    CANDIDATE,
    NOTE_LEN_MAX,
    PUSHED,
    REFUSED,
    REFUSED_MAX,
    RETIRED,
    Basis,
    Store,
    StoredModel,
)
from gateway.store_blobs import pack_cycle
from gateway.store_schema import StoreError

every_spec = pytest.mark.parametrize("spec", SPECS)


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


# Cycles and decisions


def test_a_cycle_comes_back_with_all_that_was_decided(store, seed):
    record = random_record(np.random.default_rng(seed), 7)
    scores = tuple(float(score) for score in np.array([0.1, 0.9], np.float32))
    outcome = Outcome(record, Decision(scores, True, (1, 0)), 1, 1, Comparison(9, 8, 7))
    basis = Basis(State(True), Limits(0.4, 0.2), SITE.cells[1:])
    store.add_cycle(3, NOON_S, outcome, basis)
    stored = store.cycle(3, 7)
    assert same(record, stored.outcome.record)
    assert outcome[1:] == stored.outcome[1:]
    assert (3, NOON_S, basis, None, "") == (stored.run, stored.at_s, stored.basis, stored.label, stored.note)


def test_nowhere_is_not_the_first_block(store):
    store.add_cycle(1, NOON_S, outcome_of(calm(0)), BASIS)
    store.add_cycle(1, NOON_S, outcome_of(calm(1), True, (0, 0)), BASIS)
    assert [None, (0, 0)] == [stored.outcome.decision.where for stored in store.latest_cycles(2)]


@every_spec
def test_every_decision_can_be_recomputed_from_what_is_stored(tmp_path, spec, seed):
    """P5: scores within 1e-5, decision, where and counts equal; the store is closed and opened in between."""
    rng = np.random.default_rng(seed)
    model = make_model(spec, SITE)
    layers = tuple(tuple(rng.normal(0, 1, x.shape).astype(np.float32) for x in layer) for layer in model.head.layers)
    model = replace(model, head=Head(5, layers))
    head, outcomes, state = HeadRunner(SPECS[spec], model.head), [], State(False)
    with new_store(tmp_path, model) as store:
        for cycle in range(40):
            basis = Basis(state, LIMITS_DEFAULT, SITE.cells)
            state, outcome = decide(state, exact_record(rng, cycle, model), model, head)
            store.add_cycle(1, NOON_S, outcome, basis)
            outcomes.append(outcome)
    grown = replace(SITE, cells=tuple(sorted((*SITE.cells, (0, 3)))))  # a node more since then
    with Store(tmp_path, grown) as store:
        again = [recompute(store, stored) for stored in store.latest_cycles(40)]
    if not SPECS[spec].has_sign:  # features of 0 and 1 hardly move such a head
        assert {False, True} == {outcome.decision.abnormal for outcome in outcomes}
    assert all(sum(outcome.exact[part] for outcome in outcomes) for part in range(3))
    for outcome, recomputed in zip(outcomes, again, strict=True):
        assert agrees(recomputed, outcome)


def test_a_decision_made_anew_agrees_when_all_is_equal_but_for_little_of_the_scores():
    outcome = outcome_of(calm(0), True, (0, 0))
    normal, abnormal = outcome.decision.scores

    def decided(by):
        return outcome.decision._replace(scores=(normal - by, abnormal + by))

    assert agrees(outcome._replace(decision=decided(SCORE_TOLERANCE / 2)), outcome)
    for other in (
        {"decision": decided(2 * SCORE_TOLERANCE)},
        {"decision": decided(np.nan)},
        {"decision": outcome.decision._replace(abnormal=False)},
        {"decision": outcome.decision._replace(where=(0, 1))},
        {"filter_version": outcome.filter_version + 1},
        {"head_revision": outcome.head_revision + 1},
        {"exact": outcome.exact._replace(equal=outcome.exact.equal + 1)},
    ):
        assert not agrees(outcome._replace(**other), outcome), other


def test_a_decision_is_recomputed_from_the_state_and_the_limits_that_were(store):
    """A head that always says 0.5: nothing else tells the decisions from each other."""
    high, low = Limits(0.6, 0.1), Limits(0.4, 0.1)
    bases = [(False, LIMITS_DEFAULT), (True, LIMITS_DEFAULT), (True, high), (False, low)]
    for cycle, (before, limits) in enumerate(bases):
        basis = Basis(State(before), limits, SITE.cells)
        store.add_cycle(1, NOON_S, outcome_of(calm(cycle)), basis)
    recomputed = [recompute(store, stored).decision.abnormal for stored in store.latest_cycles(4)]
    assert [False, True, False, True] == recomputed


def test_a_cycle_is_stored_once_and_the_first_stays(store):
    add(store, 4)
    with pytest.raises(StoreError, match="run 1 cycle 4 is stored already"):
        store.add_cycle(1, 0.0, outcome_of(calm(4), True, (0, 0)), BASIS)
    assert (NOON_S + 4, False) == (store.cycle(1, 4).at_s, store.cycle(1, 4).outcome.decision.abnormal)
    add(store, 4, run=2)
    assert 2 == len(list(store.latest_cycles(9)))


def test_a_cycle_of_a_model_that_is_not_stored_leaves_nothing_behind(store, tmp_path):
    with pytest.raises(StoreError, match="run 1 cycle 0 was decided by a model that is not stored"):
        store.add_cycle(1, NOON_S, outcome_of(calm(0))._replace(head_revision=2), BASIS)
    assert (0, 0) == (rows_of(tmp_path, "cycles"), rows_of(tmp_path, "decisions"))


def test_the_latest_cycles_come_in_the_order_they_were_decided_in(store):
    """Though the run's number wrapped and the clock was set back."""
    for run, cycle, at_s in ((9, 5, 300.0), (9, 6, 400.0), (1, 0, 100.0), (1, 1, 200.0)):
        store.add_cycle(run, at_s, outcome_of(calm(cycle)), BASIS)
    assert [(9, 6), (1, 0), (1, 1)] == [(x.run, x.outcome.record.cycle) for x in store.latest_cycles(3)]
    assert 1 == store.last_run()
    assert (5, 6) == store.cycle_span(9)
    assert (6, 6) == store.cycle_span(9, (6, 100))
    assert store.cycle_span(9, (7, 100)) is None


def test_an_empty_store_has_nothing(tmp_path):
    with Store(tmp_path, SITE, create=True) as store:
        assert [None] * 3 == [store.last_run(), store.active_model(), store.cycle(1, 1)]
        assert ([], [], (0, 0)) == (list(store.latest_cycles(9)), list(store.models()), store.highest_model())
        assert (0, 3, 4) == store.samples(9).readings_ccel.shape


# Learning


def test_samples_carry_the_operators_label_where_there_is_one_else_the_rules(store, seed):
    rng = np.random.default_rng(seed)
    records = [random_record(rng, cycle)._replace(has_reading=SITE.mask) for cycle in range(12)]
    for cycle in range(0, 12, 2):
        records[cycle] = calm(cycle)
    for record in records:
        store.add_cycle(1, NOON_S, outcome_of(record), BASIS)
    store.set_label(1, (4, 5), True, NOON_S)
    store.set_label(1, (8, 9), False, NOON_S)
    samples = store.samples(10)
    assert isinstance(samples, Samples)
    latest = records[2:]
    assert np.array_equal([record.readings_ccel for record in latest], samples.readings_ccel)
    assert np.array_equal([record.has_reading for record in latest], samples.present)
    expected = [bool(rule.abnormal(record.readings_ccel, record.has_reading)) for record in latest]
    assert {False, True} == set(expected)
    expected[2] = expected[3] = True
    expected[6] = expected[7] = False
    assert expected == samples.abnormal.tolist()
    assert (np.int16, np.bool_, np.bool_) == tuple(array.dtype for array in samples)


def test_a_cycle_in_which_no_node_was_heard_teaches_nothing_even_with_a_label(store):
    add(store, 0)
    for cycle in (1, 2):
        nobody = calm(cycle)._replace(has_reading=np.zeros(SITE.mask.shape, np.bool_))
        store.add_cycle(1, NOON_S, outcome_of(nobody), BASIS)
    add(store, 3)
    store.set_label(1, (2, 3), True, NOON_S)
    assert [False, True] == store.samples(9).abnormal.tolist()
    assert [True] == store.samples(2).abnormal.tolist()


def test_cycles_after_a_time_are_counted_up_to_a_limit(store):
    add(store, *range(6))
    assert [4, 3, 0] == [store.cycles_since(NOON_S + at, limit) for at, limit in ((1, 9), (1, 3), (9, 9))]


def test_learning_reads_while_the_gateway_writes(store, tmp_path):
    add(store, *range(5))
    with Store(tmp_path, SITE) as reader:
        reading = reader.latest_cycles(5)
        next(reading)
        add(store, 5)
        assert 4 == len(list(reading))
        assert 6 == len(reader.samples(9).abnormal)


def test_a_record_of_another_grid_is_damage(store):
    wide = make_site(4, 3)
    wrong = pack_cycle(random_record(np.random.default_rng(0), 0, wide), wide.mask)
    add(store, 0)
    store._database.execute("UPDATE records SET data = ?", (wrong,))
    for read in (lambda: store.samples(1), lambda: store.cycle(1, 0)):
        with pytest.raises(StoreError, match=r"thermesh\.db: is damaged.*run 1 cycle 0: a record of 4 x 3 cells"):
            read()


# Labels


def test_a_label_is_set_replaced_and_taken_away(store):
    add(store, *range(5))
    assert 3 == store.set_label(1, (1, 3), True, NOON_S, "a fire drill")
    assert 1 == store.set_label(1, (2, 2), False, NOON_S)
    found = [(stored.label, stored.note) for stored in store.latest_cycles(5)]
    assert [(None, ""), (True, "a fire drill"), (False, ""), (True, "a fire drill"), (None, "")] == found
    assert 2 == store.remove_label(1, (2, 4))
    assert [None, True, None, None, None] == [stored.label for stored in store.latest_cycles(5)]


def test_only_stored_cycles_of_the_run_get_a_label(store):
    add(store, 1, 2)
    add(store, 1, run=2)
    assert (0, 2) == (store.set_label(3, (0, 9), True, NOON_S), store.set_label(1, (0, 9), True, NOON_S))
    assert [True, True, None] == [stored.label for stored in store.latest_cycles(3)]


def test_a_note_of_any_length_is_taken_up_to_a_limit(store):
    add(store, 0)
    store.set_label(1, (0, 0), True, NOON_S, "ä" * NOTE_LEN_MAX)
    with pytest.raises(StoreError, match="note: has 201 characters; write 200 at most"):
        store.set_label(1, (0, 0), True, NOON_S, "x" * (NOTE_LEN_MAX + 1))
    assert "ä" * NOTE_LEN_MAX == store.cycle(1, 0).note


@pytest.mark.parametrize("note", ["two\nlines", "\x1b[31mred", "\ud800"])
def test_a_note_that_would_spoil_a_table_is_refused(store, note):
    add(store, 0)
    with pytest.raises(StoreError, match=r"note: .* cannot be printed; leave out line breaks"):
        store.set_label(1, (0, 0), True, NOON_S, note)


# Models


def test_a_model_comes_back_with_what_became_of_it(store):
    signed = MODEL.filters.pack(SITE.name)[:-64] + bytes(range(64))
    model = replace(MODEL, head=replace(MODEL.head, revision=2))
    store.add_model(StoredModel(model, signed, CANDIDATE, NOON_S, 0.875, 0.9375, "trained"))
    found = store.model(1, 2)
    assert (signed, CANDIDATE, NOON_S, 0.875, 0.9375, "trained") == found[1:]
    assert ("lean", 1, 2) == (found.model.spec_name, found.model.filters.version, found.model.head.revision)
    assert store.model(2, 1) is None
    assert [1, 2] == [stored.model.head.revision for stored in store.models()]


def test_one_model_is_active_and_the_one_before_is_retired(store):
    store.add_model(stored_model(2, 2, CANDIDATE))
    store.set_status(2, 2, PUSHED)
    assert (1, PUSHED) == (store.active_model().model.filters.version, store.model(2, 2).status)
    store.set_status(2, 2, ACTIVE)
    store.set_status(2, 2, ACTIVE)
    assert (2, RETIRED) == (store.active_model().model.filters.version, store.model(1, 1).status)
    store.add_model(stored_model(3, 3, ACTIVE))
    assert [RETIRED, RETIRED, ACTIVE] == [stored.status for stored in store.models()]


def test_the_highest_version_and_revision_count_refused_models_too(store):
    store.add_model(stored_model(9, 2, REFUSED))
    store.add_model(stored_model(3, 5, CANDIDATE))
    assert (9, 5) == store.highest_model()


def test_of_refused_models_the_latest_are_kept_and_the_numbers_go_on(store):
    store.add_model(stored_model(2, 2, PUSHED))
    for number in range(3, 6 + REFUSED_MAX):
        store.add_model(stored_model(number, number, REFUSED))
    kept = list(range(6, 6 + REFUSED_MAX))
    assert [(1, 1), (2, 2), *((number, number) for number in kept)] == store.model_keys()
    assert (kept[-1], kept[-1]) == store.highest_model()


def test_what_cannot_be_done_to_a_model_changes_nothing(store):
    with pytest.raises(StoreError, match="filters 1 with head 1 are stored already"):
        store.add_model(stored_model(1, 1, ACTIVE))
    with pytest.raises(StoreError, match="filters 2 with head 1 are not stored"):
        store.set_status(2, 1, ACTIVE)
    with pytest.raises(StoreError, match="status: 'good' is none; write candidate, refused"):
        store.set_status(1, 1, "good")
    assert 1 == store.active_model().model.filters.version


def test_a_model_whose_bytes_are_damaged_is_named(store):
    store._database.execute("UPDATE models SET head = x'0101'")
    with pytest.raises(StoreError, match=r"is damaged.*filters 1 with head 1: a head cut short"):
        store.active_model()
