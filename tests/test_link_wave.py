"""Filter sets over real sockets: a node takes them from a real mosquitto, passes them on, and refuses bad ones."""

import os
from pathlib import Path

import pytest
from broker_bench import Observer, mosquitto_on, needs_mosquitto
from link_bench import CONNACK, SUBACK, Bench, listening, ready_node, received, serve, suback
from mqtt_bench import publish_of
from node_bench import beacon_of
from refusals import matrix
from wave_bench import QUIET, RESTING, content
from wave_sets import KEY, good

from firmware import mqtt
from firmware.wave import PULL_MS, PULLING, RETRY_MS, RETRY_SHIFT_MAX
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
    bench = ready_node(tmp_path, own_broker.port, monkeypatch, key=KEY)
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
    bench = ready_node(tmp_path, own_broker.port, monkeypatch, key=KEY)
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
    bench = ready_node(tmp_path, own_broker.port, monkeypatch, "n-00-01", KEY)
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
    bench = ready_node(tmp_path, own_broker.port, monkeypatch, key=KEY)
    observer.client.publish(FROM_GATEWAY, b"", 1, retain=True)
    observer.client.publish("tm/1/memory/cycle", beacon_of(5))
    bench.until(lambda: observer.client.loop(0) == 0 and bench.link.node.cycle == 5)
    assert ({}, 0) == (faults(bench), bench.link.node.trace.counters[health.MQTT_LOST])


@needs_mosquitto
def test_a_node_offers_its_set_again_to_a_broker_that_forgot_it(own_broker, observer, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch, key=KEY)
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
                while wave_of(bench).state != PULLING:  # no other speaks
                    wave_of(bench).notice(3, 2, bench.now_ms())
                slot = wave_of(bench).slot
                bench.until(lambda slot=slot: bench.link._pulled == slot >= 0)
                bench.skip(PULL_MS)
                bench.until(lambda: bench.link._pulled == -1)
                assert (RESTING, {health.WAVE_BROKEN: tries}) == (wave_of(bench).state, faults(bench))
                bench.skip(RETRY_MS << tries)
                bench.link._client._heard_ms = bench.link._client._spoke_ms = bench.now_ms()
                bench.until(lambda: wave_of(bench).state == QUIET)


# What is offered

OFFER = f"{FIRST}/wave".encode()


def take_set(bench, data=SET):
    """Let the node take a set, without any polling between."""
    wave_of(bench).feed(0, len(data), data, bench.now_ms())
    while wave_of(bench).step(bench.now_ms()):
        pass


def heard_from(bench, connection):
    """What the node sends until it has no more to say."""
    heard = bytearray()
    bench.until(lambda: not received(connection, heard) and not bench.link.wants_write)
    return bytes(heard)


def offering(bench, connection, first=SET):
    """The node holds a set and its broker has heard of it; gives what came by then."""
    bench.until(lambda: bench.link._client.state == mqtt.READY)
    take_set(bench, first)
    return heard_from(bench, connection)


def offered_in(stream):
    """(first byte, payload) of each whole message on the node's wave topic; every packet has to be whole."""
    found, at = [], 0
    while at < len(stream):
        size = shift = 0
        head = at + 1
        while True:
            size |= (stream[head] & 127) << shift
            shift, head = shift + 7, head + 1
            if stream[head - 1] < 128:
                break
        body = stream[head : head + size]
        assert size == len(body), "cut short"
        if stream[at] >> 4 == 3 and body[2 : 2 + len(OFFER)] == OFFER:
            found.append((stream[at], body[4 + len(OFFER) :]))
        at = head + size
    return found


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A node that is connected, and the broker's end of its connection."""
    with listening() as listener:
        bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch, key=KEY)
        with serve(bench, listener, [CONNACK, SUBACK_OF_FIRST]) as connection:
            connection.settimeout(0.1)  # TCP keeps small pieces back for some 40 ms
            yield bench, connection


def test_a_set_is_offered_as_one_message(served):
    assert [(0x33, SET)] == offered_in(offering(*served))


def test_while_a_set_is_offered_no_set_takes_its_place(served):
    """What would be sent of it, is not there any more. The set comes again, with a beacon or to the next pull."""
    bench, connection = served
    bench.link._write = lambda _now_ms: mqtt.NOTHING_DUE_MS  # the broker does not read for a while
    bench.until(lambda: bench.link._client.state == mqtt.READY)
    wave_of(bench).feed(0, len(SET), SET, bench.now_ms())
    bench.until(lambda: wave_of(bench).phase == STAGED)
    bench.poll()
    connection.sendall(publish_of(good(3), FROM_GATEWAY.encode(), 0x33, b"\x00\x07"))
    packets = bench.link._client.counters[0]
    bench.until(lambda: bench.link._client.counters[0] > packets)
    del bench.link._write
    assert [(0x33, SET)] == offered_in(heard_from(bench, connection))
    connection.sendall(publish_of(good(3), FROM_GATEWAY.encode(), 0x33, b"\x00\x08"))
    bench.until(lambda: wave_of(bench).highest == 3)


@pytest.mark.parametrize("part", [100, None])
def test_a_set_whose_place_is_taken_is_not_offered_again(part, served):
    bench, connection = served
    offering(bench, connection)
    bench.skip(mqtt.ANSWER_MS + 500)
    connection.sendall(publish_of(good(3), FROM_GATEWAY.encode(), 0x33, b"\x00\x07")[:part])
    bench.until(lambda: wave_of(bench).phase != STAGED)
    assert SET not in [data for _, data in offered_in(heard_from(bench, connection))]
    assert not bench.is_off()


def test_an_offered_set_that_is_gone_costs_the_offer_only(served):
    bench, connection = served
    bench.until(lambda: bench.link._client.state == mqtt.READY)
    take_set(bench)
    os.rename(wave_of(bench).offers, "kept")
    bench.poll()
    assert (False, 1) == (bench.is_off(), bench.link._client.counters[4])
    os.rename("kept", wave_of(bench).offers)
    bench.skip(mqtt.ANSWER_MS + 1)
    heard = bytearray()
    bench.until(lambda: not received(connection, heard) and offered_in(bytes(heard)))
    assert [(0x33, SET)] == offered_in(bytes(heard))


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "the flash fails")])
@pytest.mark.parametrize("when", ["publish_file", "refill"])
def test_a_full_heap_or_a_bad_flash_costs_the_connection_and_not_the_node(when, error, served, monkeypatch):
    def fail(*_):
        raise error

    bench, _ = served
    bench.until(lambda: bench.link._client.state == mqtt.READY)
    with monkeypatch.context() as patch:
        patch.setattr(bench.link._client, when, fail)
        take_set(bench)
        bench.until(bench.is_off)
    assert 1 == bench.link.node.trace.counters[health.MQTT_LOST]


def test_a_set_that_is_cut_short_on_the_flash_leaves_no_message_without_its_end(served):
    bench, _ = served
    bench.until(lambda: bench.link._client.state == mqtt.READY)
    take_set(bench)
    bench.poll()
    Path(wave_of(bench).offers).write_bytes(b"")
    bench.until(bench.is_off)
    assert 1 == bench.link.node.trace.counters[health.MQTT_LOST]
