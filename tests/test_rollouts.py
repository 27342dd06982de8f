"""Orders in the store are carried out, what becomes of them is written down, and a restart interrupts nothing."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from store_bench import MODEL, NOON_S, SITE, new_store

from gateway.gateway import Gateway, Timing
from gateway.model import ModelError
from gateway.rollouts import AGAIN_MAX, Order, Rollouts, place
from gateway.store import ACTIVE, PUSHED, REFUSED, RETIRED, Store
from gateway.wave import PATIENCE_CYCLES
from protocol import filter_set, frame, topic

KEY = Ed25519PrivateKey.generate()
ORDER = Order(MODEL, "for the test", 0.75, 0.875)


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


class Bench:
    """A gateway that has just started on a store; `hear` says what every node holds."""

    def __init__(self, store):
        active = store.active_model()
        self.store, self.published, self.now_ms = store, [], 0
        self.gateway = Gateway(SITE, active.model, Timing(1_000), 1)
        self.rollouts = Rollouts(store, self.gateway, self.published.append, KEY, lambda: NOON_S)
        self.rollouts.start(active)

    def hear(self, version, highest, phase):
        for cell in SITE.cells:
            self.hear_one(cell, version, highest, phase)

    def hear_one(self, cell, version, highest, phase):
        header = frame.header(frame.FILTERS, *cell, 1, 0, version)
        self.gateway.on_message(topic.of_node(SITE.name, *cell, "up"), frame.filters(header, highest, phase, 0))

    def run_cycle(self, there=True, others=()):
        """A cycle in which all nodes are connected, or none is, but for some in other states; which filters it used."""
        states = dict.fromkeys(SITE.cells, "ready" if there else "lost") | dict(others)
        for cell, state in states.items():
            self.gateway.on_message(topic.of_node(SITE.name, *cell, "state"), state.encode())
        self.gateway.start_cycle(self.now_ms)
        self.now_ms += 100_000
        outcome = self.gateway.poll(self.now_ms)
        self.rollouts.look()
        return outcome.filter_version

    def statuses(self):
        return {stored.model.filters.version: stored.status for stored in self.store.models()}


def held_by_all(store):
    """A bench on which every node holds filters 2, and the next cycle could be computed with them."""
    bench = Bench(store)
    bench.rollouts.order(ORDER)
    bench.run_cycle()
    bench.hear(1, 2, filter_set.STAGED)
    return bench


def test_an_order_is_signed_under_the_next_version_with_what_is_known_of_it(store):
    placed = place(store, KEY, ORDER, 0, NOON_S)
    assert (2, 2) == (placed.model.filters.version, placed.model.head.revision)
    data = placed.filter_set
    KEY.public_key().verify(data[-64:], hashlib.sha256(data[:-64]).digest())
    assert (2, "memory") == filter_set.unpack(data)[:2]
    kept = store.model(2, 2)
    assert (PUSHED, NOON_S, 0.75, 0.875, "for the test") == kept[2:]


def test_an_order_is_numbered_above_what_nodes_were_heard_to_hold(store):
    placed = place(store, KEY, ORDER, 41, NOON_S)
    assert (42, 2) == (placed.model.filters.version, placed.model.head.revision)


def test_the_filters_in_use_are_published_at_the_start_and_nodes_asked_what_they_hold(store):
    bench = Bench(store)
    assert [store.active_model().filter_set] == bench.published
    assert bench.gateway.rollout.switched
    assert 1 == bench.run_cycle()
    assert {1: ACTIVE} == bench.statuses()


def test_an_order_of_another_process_is_rolled_out_between_two_cycles_and_active_with_its_first_cycle(store, tmp_path):
    bench = Bench(store)
    with Store(tmp_path, SITE) as other:
        placed = place(other, KEY, ORDER, 0, NOON_S)
    assert 1 == bench.run_cycle()
    assert placed.filter_set == bench.published[-1]
    assert bench.rollouts.under_way
    assert {1: ACTIVE, 2: PUSHED} == bench.statuses()
    bench.hear(1, 2, filter_set.STAGED)
    assert 2 == bench.run_cycle()
    assert {1: RETIRED, 2: ACTIVE} == bench.statuses()
    assert not bench.rollouts.under_way
    assert 2 == len(bench.published)


def test_a_restart_goes_on_with_a_roll_out_though_nodes_hold_its_version_already(store):
    first = Bench(store)
    placed = first.rollouts.order(ORDER)
    first.run_cycle()
    again = Bench(store)
    assert [placed.filter_set] == again.published
    again.hear(1, 2, filter_set.STAGED)
    assert 2 == again.run_cycle()
    assert {1: RETIRED, 2: ACTIVE} == again.statuses()


def test_a_restart_right_after_the_first_beacon_that_names_filters_goes_on_with_them(store):
    first = Bench(store)
    first.rollouts.order(ORDER)
    first.rollouts.look()
    first.hear(1, 2, filter_set.STAGED)
    first.gateway.start_cycle(0)  # the beacon names version 2; then the power fails
    again = Bench(store)
    again.hear(2, 2, filter_set.TRIAL)
    assert 2 == again.run_cycle()
    assert {1: RETIRED, 2: ACTIVE} == again.statuses()


def test_what_too_few_nodes_take_is_refused_and_not_tried_again(store, caplog):
    bench = Bench(store)
    bench.rollouts.order(ORDER)
    for _ in range(PATIENCE_CYCLES + 3):
        assert 1 == bench.run_cycle()
    assert {1: ACTIVE, 2: REFUSED} == bench.statuses()
    assert "given up: too few nodes took it" == store.model(2, 2).note
    assert 1 == sum("filters 2 are given up" in record.getMessage() for record in caplog.records)
    assert [store.active_model().filter_set] == Bench(store).published


def test_a_node_that_comes_and_goes_neither_holds_a_roll_out_up_nor_counts_as_progress(store):
    bench = held_by_all(store)
    bench.hear_one(SITE.cells[0], 1, 1, filter_set.CONFIRMED)
    used = []
    for cycle in range(3 * PATIENCE_CYCLES):
        state = "lost" if cycle % (PATIENCE_CYCLES // 2) == 0 else "ready"
        used.append(bench.run_cycle(others={SITE.cells[1]: state}))
    assert {1, 2} == set(used)
    assert used.index(2) <= PATIENCE_CYCLES + 1


def test_an_order_waits_as_long_as_no_node_is_there(store):
    bench = Bench(store)
    bench.rollouts.order(ORDER)
    for _ in range(3 * PATIENCE_CYCLES):
        assert 1 == bench.run_cycle(there=False)
    assert {1: ACTIVE, 2: PUSHED} == bench.statuses()
    bench.hear(1, 2, filter_set.STAGED)
    assert 2 == bench.run_cycle()


def test_of_several_orders_the_newest_counts(store):
    bench = Bench(store)
    for _ in range(3):
        bench.rollouts.order(ORDER)
    bench.run_cycle()
    bench.rollouts.order(ORDER)
    bench.run_cycle()
    assert {1: ACTIVE, 2: REFUSED, 3: REFUSED, 4: REFUSED, 5: PUSHED} == bench.statuses()
    assert ["overtaken by filters 4", "overtaken by filters 5"] == [store.model(k, k).note for k in (2, 4)]
    assert [1, 4, 5] == [filter_set.unpack(data).version for data in bench.published]


def test_an_order_that_nodes_would_take_for_old_is_sent_under_a_higher_version(store):
    """As after a backup: nodes know of more than the store does."""
    bench = Bench(store)
    bench.hear(1, 9, filter_set.STAGED)
    place(store, KEY, ORDER, 0, NOON_S)
    bench.run_cycle()
    assert {1: ACTIVE, 2: REFUSED, 10: PUSHED} == bench.statuses()
    assert "nodes knew of its version or a higher one already" == store.model(2, 2).note
    assert [1, 10] == [filter_set.unpack(data).version for data in bench.published]


def test_versions_that_are_used_up_are_named_and_the_order_waits(store):
    last = 0xFFFFFFFF
    placed = place(store, KEY, ORDER, last - 3, NOON_S)
    store.set_status(placed.model.filters.version, placed.model.head.revision, ACTIVE)
    bench = Bench(store)
    bench.hear(last - 2, last, filter_set.STAGED)
    place(store, KEY, ORDER, 0, NOON_S)
    with pytest.raises(ModelError, match=r"version: 4294967296 is not in 0\.\.4294967295"):
        bench.run_cycle()
    assert {1: RETIRED, last - 2: ACTIVE, last - 1: PUSHED} == bench.statuses()


def test_no_cycle_is_computed_with_filters_before_the_store_knows_that_they_decide(store, caplog):
    """Else a gateway that is restarted names older ones to nodes that try these, and none of them can go on."""
    bench = held_by_all(store)
    store._database.execute("PRAGMA query_only = ON")
    assert [1, 1, 1] == [bench.run_cycle() for _ in range(3)]
    assert 1 == sum("filters 2 wait for the store" in record.getMessage() for record in caplog.records)
    store._database.execute("PRAGMA query_only = OFF")
    assert 2 == bench.run_cycle()
    assert {1: RETIRED, 2: ACTIVE} == bench.statuses()


# Nodes that lost power while filters were on trial


def in_use(store):
    """A bench on which filters 2 decide, and nodes try them."""
    bench = held_by_all(store)
    assert 2 == bench.run_cycle()
    bench.hear(2, 2, filter_set.TRIAL)
    return bench


def test_nodes_that_were_reset_in_a_trial_get_the_same_weights_under_the_next_version_once_the_others_are_done(store):
    bench = in_use(store)
    bench.hear_one(SITE.cells[0], 1, 2, filter_set.RETURNED)
    bench.run_cycle()
    assert {1: RETIRED, 2: ACTIVE} == bench.statuses()
    bench.hear(2, 2, filter_set.CONFIRMED)
    bench.hear_one(SITE.cells[0], 1, 2, filter_set.RETURNED)
    bench.run_cycle()
    assert {1: RETIRED, 2: ACTIVE, 3: PUSHED} == bench.statuses()
    assert "again: 1 nodes cannot come to filters 2 any more" == store.model(3, 3).note
    assert store.model(3, 3).filter_set == bench.published[-1]
    bench.run_cycle()
    assert 3 == len(bench.published)
    bench.hear(2, 3, filter_set.STAGED)
    assert 3 == bench.run_cycle()


def test_weights_that_reset_nodes_again_and_again_are_sent_no_more_and_that_is_said_once(store, caplog):
    bench = in_use(store)
    for version in range(2, 2 + AGAIN_MAX):
        bench.hear(1, version, filter_set.RETURNED)
        bench.run_cycle()
        bench.hear(1, version + 1, filter_set.STAGED)
        assert version + 1 == bench.run_cycle()
    bench.hear(1, 2 + AGAIN_MAX, filter_set.RETURNED)
    for _ in range(3):
        bench.run_cycle()
    assert (2 + AGAIN_MAX, 2 + AGAIN_MAX) == store.highest_model()
    assert 1 == sum("thermesh filters rollback" in record.getMessage() for record in caplog.records)


def test_weights_that_all_nodes_confirmed_meanwhile_may_be_sent_again_as_often_as_before(store):
    bench = in_use(store)
    for version in range(2, 3 + 2 * AGAIN_MAX):
        bench.hear(1, version, filter_set.RETURNED)
        bench.run_cycle()
        bench.hear(1, version + 1, filter_set.STAGED)
        assert version + 1 == bench.run_cycle()
        bench.hear(version + 1, version + 1, filter_set.CONFIRMED)
        bench.run_cycle()


def test_nodes_that_hold_newer_filters_than_the_store_knows_of_come_back_to_the_gateway(store):
    """As after a store that was put back from a copy: the nodes are connected, and report nothing that fits."""
    bench = Bench(store)
    for _ in range(5):
        bench.hear(7, 7, filter_set.CONFIRMED)
        bench.run_cycle()
    assert {1: ACTIVE, 8: PUSHED} == bench.statuses()
    bench.hear(7, 8, filter_set.STAGED)
    assert 8 == bench.run_cycle()
    assert {1: RETIRED, 8: ACTIVE} == bench.statuses()


def test_a_version_that_no_frame_could_tell_apart_uses_up_no_versions(store):
    bench = Bench(store)
    bench.hear_one(SITE.cells[0], 1, 0xFFFFFFFF, filter_set.CONFIRMED)
    bench.gateway.on_message(topic.of_node(SITE.name, *SITE.cells[0], "about"), b'{"filter_version": 4294967295}')
    assert 1 == bench.gateway.highest_version
    assert {"version_too_far_ahead": 1} == bench.gateway.faults


def test_an_order_goes_before_weights_to_be_sent_again(store):
    bench = in_use(store)
    bench.hear(1, 2, filter_set.RETURNED)
    place(store, KEY, ORDER, 2, NOON_S)
    bench.run_cycle()
    assert "for the test" == store.model(3, 3).note
    assert {1: RETIRED, 2: ACTIVE, 3: PUSHED} == bench.statuses()
