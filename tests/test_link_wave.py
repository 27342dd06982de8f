"""Filter sets over real sockets: a node takes them from a real mosquitto, passes them on, and refuses bad ones."""

import pytest
from broker_bench import Observer, mosquitto_on, needs_mosquitto
from link_bench import CONNACK, SUBACK, Bench, listening, serve, suback
from mqtt_bench import publish_of
from node_bench import beacon_of
from refusals import matrix
from wave_bench import QUIET, RESTING, content
from wave_sets import KEY, good

from firmware import mqtt
from firmware.wave import PULL_MS, RETRY_MS, RETRY_SHIFT_MAX
from gateway.broker import open_broker
from protocol import frame, health
from protocol.filter_set import STAGED

FROM_GATEWAY = "tm/1/memory/wave"
FIRST, SECOND = (f"tm/1/memory/n/n-00-0{col}" for col in range(2))
SET = good(2)


@pytest.fixture
def own_broker(tmp_path):
    with open_broker("mosquitto", tmp_path / "broker") as own:
        yield own


@pytest.fixture
def observer(own_broker):
    made = Observer(own_broker.port)
    yield made
    made.close()


def ready_node(folder, port, monkeypatch, name="n-00-00"):
    bench = Bench(folder, port, monkeypatch, name, KEY)
    bench.until(bench.is_ready)
    return bench


def wave_of(bench):
    return bench.link.node.wave


def hand(bench, observer, name, data):
    """Publish a set, retained, and give the node until it rests or holds it."""
    counters = bench.link._client.counters[0]
    observer.client.publish(name, data, 1, retain=True)
    observer.client.loop(0.02)
    bench.until(lambda: observer.client.loop(0) == 0 and bench.link._client.counters[0] > counters)
    bench.until(lambda: wave_of(bench).state in (QUIET, RESTING))


@needs_mosquitto
def test_the_node_next_to_the_gateway_takes_its_set_and_offers_it_byte_for_byte(
    own_broker, observer, tmp_path, monkeypatch
):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    hand(bench, observer, FROM_GATEWAY, SET)
    assert (STAGED, 2) == (wave_of(bench).phase, wave_of(bench).staged.version)
    bench.until(bench.is_ready)
    later = Observer(own_broker.port)
    later.until(lambda: later.words(f"{FIRST}/wave"))
    assert [(f"{FIRST}/wave", SET, True)] == [seen for seen in later.seen if seen[0] == f"{FIRST}/wave"]
    later.close()


@needs_mosquitto
def test_every_bad_set_is_refused_over_a_real_broker_and_costs_no_connection(
    own_broker, observer, tmp_path, monkeypatch, seed
):
    """One for each counter; every bit of every attack is in test_wave_refusals."""
    rows = {row.counter: row for row in matrix(seed) if row.key == KEY and len(row.data) > 100}
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    due = {}
    assert 5 == len(rows)
    for counter, row in rows.items():
        data = good(0) if counter == health.REFUSED_VERSION else row.data
        hand(bench, observer, FROM_GATEWAY, data)
        due[counter] = 1
        counters = bench.link.node.trace.counters
        assert due == {place: counters[place] for place in range(health.MALFORMED, health.COUNTERS) if counters[place]}
        assert (1, 1, None) == (wave_of(bench).active.version, wave_of(bench).highest, wave_of(bench).staged), row.says
        bench.skip(RETRY_MS << RETRY_SHIFT_MAX)
        bench.link._client._heard_ms = bench.link._client._spoke_ms = bench.now_ms()  # the broker lives
        bench.until(lambda: wave_of(bench).state == QUIET)
    hand(bench, observer, FROM_GATEWAY, good(3))
    assert (STAGED, 3, 0) == (
        wave_of(bench).phase,
        wave_of(bench).highest,
        bench.link.node.trace.counters[health.MQTT_LOST],
    )


@needs_mosquitto
def test_a_node_pulls_what_its_neighbour_holds_and_then_listens_no_more(own_broker, observer, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch, "n-00-01")
    observer.client.publish(f"{FIRST}/wave", SET, 1, retain=True)
    head = frame.header(frame.FILTERS, 0, 0, 1, 0, 1)
    observer.client.publish(f"{FIRST}/halo", frame.filters(head, 2, STAGED, 0))
    observer.until(lambda: observer.words(f"{FIRST}/halo"))
    bench.until(lambda: wave_of(bench).phase == STAGED)
    bench.until(lambda: observer.client.loop(0) == 0 and observer.words(f"{SECOND}/wave") == [SET])
    before = bench.link._client.counters[0]
    observer.client.publish(f"{FIRST}/wave", good(3), 1, retain=True)
    observer.client.publish("tm/1/memory/cycle", beacon_of(5))
    bench.until(lambda: observer.client.loop(0) == 0 and bench.link.node.cycle == 5)
    assert ({}, 2) == (faults(bench), wave_of(bench).highest)
    assert bench.link._client.counters[0] - before <= 4, "the beacon, and answers"


def faults(bench):
    counters = bench.link.node.trace.counters
    return {place: counters[place] for place in range(health.MALFORMED, health.COUNTERS) if counters[place]}


@needs_mosquitto
def test_a_set_that_the_gateway_withdraws_costs_no_connection(own_broker, observer, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    observer.client.publish(FROM_GATEWAY, b"", 1, retain=True)
    observer.client.publish("tm/1/memory/cycle", beacon_of(5))
    bench.until(lambda: observer.client.loop(0) == 0 and bench.link.node.cycle == 5)
    assert ({}, 0) == (faults(bench), bench.link.node.trace.counters[health.MQTT_LOST])


@needs_mosquitto
def test_a_node_offers_its_set_again_to_a_broker_that_forgot_it(own_broker, observer, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    hand(bench, observer, FROM_GATEWAY, SET)
    bench.until(bench.is_ready)
    own_broker.close()
    bench.until(bench.is_off)
    with mosquitto_on(own_broker.port):
        later = Observer(own_broker.port)
        bench.skip_back_off()
        bench.until(lambda: later.client.loop(0) == 0 and later.words(f"{FIRST}/wave"))
        assert {SET} == set(later.words(f"{FIRST}/wave"))
        later.close()


# The beacon, the block, one neighbour and the gateway's wave.
SUBACK_OF_FIRST = suback(4)


@pytest.mark.parametrize("part", [1, 20, 60, 100, len(SET) - 1])
def test_a_set_that_breaks_off_with_the_connection_is_taken_from_its_beginning_on_the_next(part, tmp_path, monkeypatch):
    message = publish_of(SET, FROM_GATEWAY.encode(), 0x33, b"\x00\x07")
    with listening() as listener:
        bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch, key=KEY)
        with serve(bench, listener, [CONNACK, SUBACK_OF_FIRST + message[:part]]):
            bench.until(lambda: bench.link._client.state == mqtt.READY)
        bench.until(bench.is_off)
        assert 1 == wave_of(bench).highest
        bench.skip_back_off()
        with serve(bench, listener, [CONNACK, SUBACK_OF_FIRST + message]):
            bench.until(lambda: wave_of(bench).phase == STAGED)
        assert SET == content(wave_of(bench).offers)


def test_a_neighbour_that_never_gives_what_it_holds_is_given_up_and_asked_again(tmp_path, monkeypatch):
    with listening() as listener:
        bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch, "n-00-01", KEY)
        with serve(bench, listener, [CONNACK, SUBACK]):
            bench.until(lambda: bench.link._client.state == mqtt.READY)
            for tries in range(1, 4):
                wave_of(bench).notice(3, 2, bench.now_ms())
                slot = wave_of(bench).slot
                bench.until(lambda slot=slot: bench.link._pulled == slot >= 0)
                bench.skip(PULL_MS)
                bench.until(lambda: bench.link._pulled == -1)
                assert (RESTING, {health.WAVE_BROKEN: tries}) == (wave_of(bench).state, faults(bench))
                bench.skip(RETRY_MS << tries)
                bench.link._client._heard_ms = bench.link._client._spoke_ms = bench.now_ms()
                bench.until(lambda: wave_of(bench).state == QUIET)
