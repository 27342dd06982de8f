"""The gateway learns beside its service: in time, from what is stored, and whatever happens there ends nothing."""

import logging
import sys
import threading
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from store_bench import BASIS, MODEL, NOON_S, SITE, add, calm, new_store, outcome_of, rows_of

from gateway import running, service
from gateway.acceptance import Trained
from gateway.decision import LIMITS_DEFAULT
from gateway.gateway import Gateway, Timing
from gateway.learning import Learner, Learning, Plan
from gateway.rollouts import Order, Rollouts
from gateway.store import ACTIVE, PUSHED, REFUSED
from gateway.store_age import CHUNK_CYCLES, Ageing, Keeping
from gateway.store_schema import StoreError
from gateway.upkeep import Chores, Upkeep

EVERY = 4
# Far longer than any test that holds a training back; it bounds one that fails.
GO_S_MAX = 10
PLAN = Plan(EVERY, 100)
KEY = Ed25519PrivateKey.generate()
THRESHOLD = 0.625
BETTER = replace(MODEL, filters=replace(MODEL.filters, reference_ccel=1_234))


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


class Lessons:
    """Takes the place of the training: `steps` of them, then `result`, an error or a Trained. `go` lets it run."""

    def __init__(self, result, steps=3):
        self.given, self.done = [], 0
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self._result, self._steps = result, steps

    def __call__(self, model, site, samples, version, seed, threshold):
        self.given.append((model, site, samples, version, seed, threshold))
        self.begun.set()
        for step in range(self._steps):
            self.go.wait(GO_S_MAX)
            self.done = step + 1
            yield self.done, self._steps
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class Bench:
    """A gateway that has just started on a store, with what learns beside it."""

    def __init__(self, store, plan=PLAN):
        active = store.active_model()
        self.store, self.published, self.stored = store, [], 0
        self.gateway = Gateway(SITE, active.model, Timing(60_000, 1, 1, 1), 1)
        self.rollouts = Rollouts(store, self.gateway, self.published.append, KEY, lambda: NOON_S)
        self.rollouts.start(active)
        self.learner = Learner(store.path.parent, SITE, plan.cycles_max, THRESHOLD)
        self.learning = Learning(plan, self.learner, store, self.rollouts, lambda: NOON_S)

    def cycles(self, count):
        """Cycles that are stored, each with its look."""
        for _ in range(count):
            add(self.store, 1 + len(list(self.store.latest_cycles(999))))
            self.stored += 1
            self.look()

    def look(self):
        self.learning.look(self.gateway.model, self.stored)

    def finish(self):
        """The training comes to its end, and is taken in."""
        self.learner._thread.join()
        self.look()


@pytest.fixture
def teach(monkeypatch):
    def replace_training(*arguments, **keywords):
        lessons = Lessons(*arguments, **keywords)
        monkeypatch.setattr("gateway.learning.training", lessons)
        return lessons

    return replace_training


def test_a_training_begins_after_so_many_stored_cycles_from_the_latest_of_them(store, teach):
    lessons, bench = teach(Trained(BETTER, 0.5, 0.5, False)), Bench(store, Plan(EVERY, 3))
    bench.cycles(EVERY - 1)
    assert not bench.learner.busy
    bench.cycles(1)
    bench.finish()
    bench.cycles(EVERY)
    bench.finish()
    for model, site, samples, version, *_ in lessons.given:
        assert (bench.gateway.model, SITE, 3) == (model, site, samples.cycles)
        assert version > model.filters.version
    assert 2 == len(lessons.given)


def test_cycles_before_a_restart_count(store, teach):
    lessons = teach(Trained(BETTER, 0.5, 0.5, False))
    Bench(store).cycles(EVERY - 1)
    bench = Bench(store)
    bench.cycles(1)
    bench.finish()
    assert 1 == len(lessons.given)


def test_learning_can_be_switched_off(store, teach):
    lessons, bench = teach(Trained(BETTER, 0.5, 0.5, False)), Bench(store, Plan(0, 100))
    bench.cycles(10)
    assert (False, [], "off") == (bench.learner.busy, lessons.given, bench.learning.facts()["state"])


def test_what_is_better_is_ordered_with_both_accuracies(store, teach):
    teach(Trained(BETTER, 0.75, 0.875, True))
    bench = Bench(store)
    bench.cycles(EVERY)
    bench.finish()
    (key,) = store.model_keys(PUSHED)
    found = store.model(*key)
    assert (2, 2, 1_234) == (*key, found.model.filters.reference_ccel)
    assert (0.75, 0.875, "learned from 4 cycles, 0 abnormal") == found[4:]
    assert "75.00 % -> 87.50 % of the held-out ones right, accepted as filters 2" in bench.learning.last
    bench.rollouts.look()
    assert found.filter_set == bench.published[-1]


def test_what_is_not_better_is_kept_with_both_accuracies_and_not_sent(store, teach):
    teach(Trained(BETTER, 0.75, 0.5, False))
    bench = Bench(store)
    bench.cycles(EVERY)
    bench.finish()
    (key,) = store.model_keys(REFUSED)
    assert (0.75, 0.5, "learned from 4 cycles, 0 abnormal; not better") == store.model(*key)[4:]
    bench.rollouts.look()
    assert 1 == len(bench.published)


@pytest.mark.parametrize(
    ("accuracy", "why"),
    [(None, "too few cycles"), (1.0, "all held-out ones are decided right"), (0.5, "all that could be learned")],
)
def test_where_there_is_nothing_to_learn_no_model_is_kept(store, teach, accuracy, why):
    teach(Trained(MODEL, accuracy, accuracy, False), steps=0)
    bench = Bench(store)
    bench.cycles(EVERY)
    bench.finish()
    assert [(1, 1)] == store.model_keys()
    assert bench.learning.last.startswith(f"nothing to learn from 4 cycles, 0 abnormal: {why}")


def test_what_was_learned_from_a_model_that_decides_no_more_is_refused(store, teach):
    lessons = teach(Trained(BETTER, 0.75, 0.875, True))
    lessons.go.clear()
    bench = Bench(store)
    bench.cycles(EVERY)
    bench.gateway.model = MODEL.numbered(9, MODEL.head.revision)
    lessons.go.set()
    bench.finish()
    (key,) = store.model_keys(REFUSED)
    assert store.model(*key).note.endswith("another model decides by now")


def test_what_is_better_is_not_lost_when_the_store_takes_no_order(store, teach):
    teach(Trained(BETTER, 0.75, 0.875, True))
    bench = Bench(store)
    store._database.execute("PRAGMA query_only = ON")
    bench.learning.look(bench.gateway.model, EVERY)
    bench.learner._thread.join()
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be written"):
            bench.learning.look(bench.gateway.model, EVERY)
    store._database.execute("PRAGMA query_only = OFF")
    bench.learning.look(bench.gateway.model, EVERY)
    assert [(2, 2)] == store.model_keys(PUSHED)
    assert bench.learning.last.endswith("accepted as filters 2")


def test_a_training_is_never_more_urgent_than_the_service(store, teach, monkeypatch):
    lessons, wanted = teach(Trained(BETTER, 0.5, 0.5, False)), []
    monkeypatch.setattr("gateway.learning.getpriority", lambda *_: 15)
    monkeypatch.setattr("gateway.learning.setpriority", lambda _which, _who, niceness: wanted.append(niceness))
    Bench(store).cycles(EVERY)
    lessons.begun.wait(GO_S_MAX)
    assert wanted == ([15] if sys.platform == "linux" else [])


def test_a_candidate_is_judged_by_the_score_that_decisions_turn_at(store, teach):
    lessons, bench = teach(Trained(BETTER, 0.5, 0.5, False)), Bench(store)
    bench.cycles(EVERY)
    bench.finish()
    assert [THRESHOLD] == [given[-1] for given in lessons.given]


def test_nothing_is_learned_while_a_model_is_on_its_way(store, teach):
    lessons, bench = teach(Trained(BETTER, 0.5, 0.5, False)), Bench(store)
    bench.rollouts.order(Order(MODEL, ""))
    bench.rollouts.look()
    bench.cycles(EVERY + 3)
    assert [] == lessons.given
    bench.gateway.rollout.gave_up = True
    bench.look()
    bench.finish()
    assert 1 == len(lessons.given)


@pytest.mark.parametrize("error", [ValueError("no\nsense"), MemoryError(), RuntimeError("[ONNX] broken")])
def test_whatever_ends_a_training_is_logged_and_the_next_one_begins(store, teach, caplog, error):
    lessons, bench = teach(error), Bench(store)
    bench.cycles(EVERY)
    bench.finish()
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith(f"learning failed: {type(error).__name__}")
    assert "\n" not in said
    bench.cycles(EVERY)
    bench.finish()
    assert 2 == len(lessons.given)


def test_a_store_that_cannot_be_read_fails_the_training_only(store, teach):
    teach(Trained(BETTER, 0.5, 0.5, False))
    bench = Bench(store)
    store._database.execute("UPDATE site SET name = 'elsewhere'")
    bench.cycles(EVERY)
    bench.finish()
    assert bench.learning.last.startswith("failed: StoreError: ")


def test_a_training_ends_with_the_service(store, teach):
    lessons = teach(Trained(BETTER, 0.5, 0.5, False), steps=1_000_000)
    with Bench(store).learning as learning:
        for cycle in range(EVERY):
            add(store, cycle)
            learning.look(MODEL, cycle + 1)
        assert lessons.begun.wait(30)
    assert lessons.done < 1_000_000


def test_progress_is_told_at_every_quarter(store, teach, caplog):
    caplog.set_level(logging.INFO)
    lessons, bench = teach(Trained(BETTER, 0.5, 0.5, False)), Bench(store)
    lessons.go.clear()
    bench.cycles(EVERY)
    for done in range(0, 241, 10):
        bench.learner.progress = done, 240
        bench.look()
    assert ("running", 240, 240) == tuple(bench.learning.facts()[key] for key in ("state", "done", "steps"))
    lessons.go.set()
    bench.finish()
    said = [record.getMessage() for record in caplog.records if " steps" in record.getMessage()]
    assert [f"learning: {done} of 240 steps" for done in (60, 120, 180, 240)] == said


class LinkToNobody:
    def __init__(self):
        self.beacons = 0

    def publish_beacon(self, _data):
        self.beacons += 1

    def publish_wave(self, _data):
        pass

    def next_message(self, _timeout_s):
        return None


def test_the_service_decides_and_stores_while_a_training_runs(store, teach):
    """The training is held back until the last cycle is over: no cycle can have waited for it."""
    lessons, bench, busy = teach(Trained(BETTER, 0.75, 0.875, True)), Bench(store), []
    lessons.go.clear()
    recorder = service.Recorder(store, 7, LIMITS_DEFAULT, lambda: NOON_S + 1)
    upkeep = Upkeep(store.path.parent, bench.gateway, recorder, Chores(bench.rollouts, bench.learning, Mock()), "psk")
    beside = service.Beside(lambda _outcome: busy.append(bench.learner.busy), upkeep.look)
    service.serve(bench.gateway, LinkToNobody(), recorder, beside, 0, EVERY + 20)
    assert [False] * EVERY + [True] * 20 == busy
    assert EVERY + 20 == recorder.stored
    found = running.read(store.path.parent)
    assert ("running", {"gateway": "psk", "nodes": {}}) == (found["learning"]["state"], found["encryption"])
    lessons.go.set()
    bench.learner._thread.join()
    upkeep.look()
    assert [(2, 2)] == store.model_keys(PUSHED)


def test_the_service_counts_what_nodes_say_of_their_connection_whatever_that_is(store):
    bench = Bench(store)
    bench.gateway.about = {(0, col): {"encryption": word} for col, word in enumerate(["psk", "psk", [], "x"])}
    bench.gateway.about[1, 0] = {}
    upkeep = Upkeep(store.path.parent, bench.gateway, Mock(), Chores(bench.rollouts, bench.learning, Mock()), "none")
    assert {"gateway": "none", "nodes": {"psk": 2, "unknown": 3}} == upkeep.facts()["encryption"]


def test_a_fault_between_cycles_is_said_once_and_stops_nothing(store, caplog):
    bench, ageing = Bench(store), Mock()
    recorder = service.Recorder(store, 7, LIMITS_DEFAULT, lambda: NOON_S)
    chores = Chores(bench.rollouts, bench.learning, ageing)
    upkeep = Upkeep(store.path.parent / "gone", bench.gateway, recorder, chores, "psk")
    store._database.execute("ALTER TABLE models RENAME TO gone")
    ageing.look.side_effect = StoreError("thermesh.db: is damaged")
    for _ in range(3):
        upkeep.look()
    said = [record.getMessage() for record in caplog.records]
    waits = "filters and learning wait", "old cycles stay as they are", "other programs do not see how things stand"
    assert waits == tuple(line.partition(": ")[0] for line in said)
    assert said[2].endswith("service.json: No such file or directory; check the disk and its free space")
    assert 3 == ageing.look.call_count


def test_between_cycles_old_ones_are_put_together(store):
    bench = Bench(store)
    recorder = service.Recorder(store, 7, LIMITS_DEFAULT, lambda: NOON_S - 7_200)
    with Ageing(store.path.parent, SITE, Keeping(), lambda: NOON_S) as ageing:
        chores = Chores(bench.rollouts, bench.learning, ageing)
        upkeep = Upkeep(store.path.parent, bench.gateway, recorder, chores, "none")
        beside = service.Beside(lambda _outcome: None, upkeep.look)
        service.serve(bench.gateway, LinkToNobody(), recorder, beside, 0, CHUNK_CYCLES)
    assert (1, 0) == (rows_of(store.path.parent, "chunks"), rows_of(store.path.parent, "records"))


def test_a_gateway_learns_what_an_operator_labelled_and_orders_it(store, seed):
    """The real training, in its thread: warm cells are abnormal though the site's rule does not say so."""
    rng = np.random.default_rng(seed)
    for cycle in range(200):
        warm = cycle % 2 == 1
        readings = rng.normal(2200, 5, SITE.mask.shape)
        readings[1, 1] += 250 * warm
        record = calm(cycle, readings.astype(np.int16))
        store.add_cycle(1, NOON_S + 1, outcome_of(record), BASIS)
        store.set_label(1, (cycle, cycle), warm, NOON_S)
    bench = Bench(store, Plan(100, 200))
    bench.look()
    bench.finish()
    (key,) = store.model_keys(PUSHED)
    found = store.model(*key)
    assert 0.5 == found.accuracy_before or found.accuracy_before < found.accuracy_after
    assert found.accuracy_after > 0.9
    assert "learned from 200 cycles, 100 abnormal" == found.note
    assert [(1, 1)] == store.model_keys(ACTIVE)
