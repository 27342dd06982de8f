"""A node's connection over real sockets: a real mosquitto that comes, goes and returns, and brokers that break off.

The node's time is the test's: it is told any number, so a back-off of a minute costs nothing. Only what another process
does is waited for, by watching real sockets until a deadline.
"""

import socket
from contextlib import ExitStack

import pytest
from broker_bench import Observer, mosquitto_on, needs_mosquitto
from link_bench import CONNACK, SUBACK, Bench, listening, ready_node, serve
from node_bench import beacon_of

from firmware import mqtt
from firmware.link import BACK_OFF_MS_MAX, BACK_OFF_MS_MIN
from gateway.broker import LOOPBACK, free_port, open_broker
from protocol import health
from protocol.compat import TICKS_PERIOD, ticks_add

STATE = "tm/1/memory/n/n-00-00/state"
ABOUT = "tm/1/memory/n/n-00-00/about"


@pytest.fixture
def own_broker(tmp_path):
    with open_broker("mosquitto", tmp_path / "broker") as own:
        yield own


@pytest.fixture
def observe():
    opened = []

    def start_one(port):
        opened.append(Observer(port))
        return opened[-1]

    yield start_one
    for observer in opened:
        observer.close()


@pytest.fixture
def restart():
    """Starts mosquitto on a port that an earlier one had, and ends it after the test."""
    with ExitStack() as started:
        yield lambda port: started.enter_context(mosquitto_on(port))


# A real broker


@needs_mosquitto
def test_a_node_connects_and_its_state_and_facts_are_retained(own_broker, observe, tmp_path, monkeypatch):
    bench = Bench(tmp_path, own_broker.port, monkeypatch)
    bench.until(bench.is_ready)
    later = observe(own_broker.port)
    later.until(lambda: len(later.seen) >= 2)
    assert (STATE, b"ready", True) in later.seen
    assert [True] == [retained for name, _, retained in later.seen if name == ABOUT]


@needs_mosquitto
def test_a_node_whose_socket_is_just_closed_is_called_lost(own_broker, observe, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    observer = observe(own_broker.port)
    bench.link.socket.close()
    observer.until(lambda: b"lost" in observer.words(STATE))
    later = observe(own_broker.port)
    later.until(lambda: later.words(STATE))
    assert [(STATE, b"lost", True)] == [seen for seen in later.seen if seen[0] == STATE]


@needs_mosquitto
def test_a_node_that_says_goodbye_is_disconnected_and_never_lost(own_broker, observe, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    observer = observe(own_broker.port)
    bench.link.close()
    observer.until(lambda: b"disconnected" in observer.words(STATE))
    assert [b"ready", b"disconnected"] == observer.words(STATE)
    later = observe(own_broker.port)
    later.until(lambda: later.words(STATE))
    assert [b"disconnected"] == later.words(STATE)


@needs_mosquitto
def test_a_node_returns_after_the_broker_was_restarted(own_broker, restart, observe, tmp_path, monkeypatch):
    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    own_broker.close()
    bench.until(bench.is_off)
    assert 1 == bench.link.node.trace.counters[health.MQTT_LOST]
    restart(own_broker.port)
    bench.skip_back_off()
    bench.until(bench.is_ready)
    observer = observe(own_broker.port)
    observer.until(lambda: observer.words(STATE))
    assert [(STATE, b"ready", True)] == [seen for seen in observer.seen if seen[0] == STATE]


@needs_mosquitto
def test_the_first_connect_is_retried_like_any_other(restart, tmp_path, monkeypatch):
    port = free_port()
    bench = Bench(tmp_path, port, monkeypatch)
    bench.until(lambda: bench.link._failures == 1)
    assert bench.is_off()
    restart(port)
    bench.skip_back_off()
    bench.until(bench.is_ready)
    assert 0 == bench.link._failures


@needs_mosquitto
def test_frames_come_and_go_over_the_broker(own_broker, observe, tmp_path, monkeypatch):
    """A beacon goes in, the node's reading comes out."""

    bench = ready_node(tmp_path, own_broker.port, monkeypatch)
    observer = observe(own_broker.port)
    observer.client.publish("tm/1/memory/cycle", beacon_of(5))
    observer.until(lambda: observer.words("tm/1/memory/cycle"))
    bench.until(lambda: bench.link.node.cycle == 5 and not bench.link.wants_write)
    observer.until(lambda: observer.words("tm/1/memory/n/n-00-00/halo"))
    assert b"\x12\x00\x00" == observer.words("tm/1/memory/n/n-00-00/halo")[0][:3]


# Back-off


def back_offs(bench, count):
    """How long the node waits after each of so many failures in a row, ms."""
    waits = []
    for failures in range(count):
        bench.until(lambda failures=failures: bench.link._failures == failures + 1)
        waits.append((bench.link._retry_ms - bench.now_ms()) % TICKS_PERIOD)
        bench.skip_back_off()
    return waits


def test_back_off_doubles_every_other_time_from_a_second_to_a_minute_each_from_half_to_whole(tmp_path, monkeypatch):
    bench = Bench(tmp_path, free_port(), monkeypatch)
    slack_ms = 100  # of the real time that passes between the failure and this look at it
    for failures, wait_ms in enumerate(back_offs(bench, 16)):
        whole_ms = min(BACK_OFF_MS_MAX, BACK_OFF_MS_MIN * 2 ** (failures // 2))
        assert whole_ms // 2 - slack_ms <= wait_ms <= whole_ms, f"after {failures} failures"
    assert (1_000, 60_000) == (BACK_OFF_MS_MIN, BACK_OFF_MS_MAX)


def test_two_nodes_do_not_come_back_at_the_same_instants(tmp_path, monkeypatch):
    """Of 10 waits of a minute with 30 s of jitter no two are closer than by chance in all places."""
    port = free_port()
    first, second = (back_offs(Bench(tmp_path, port, monkeypatch), 12)[6:] for _ in range(2))
    assert any(abs(one - other) > 200 for one, other in zip(first, second, strict=True))
    assert max(first) - min(first) > 200


def test_nothing_is_tried_before_the_back_off_is_over(tmp_path, monkeypatch):
    bench = Bench(tmp_path, free_port(), monkeypatch)
    bench.until(lambda: bench.link._failures == 1)
    start_ms, retry_ms = bench.now_ms(), bench.link._retry_ms
    left_ms = (retry_ms - start_ms) % TICKS_PERIOD
    assert left_ms == bench.link.poll(start_ms)
    assert 1 == bench.link.poll(ticks_add(retry_ms, -1))
    assert (1, None) == (bench.link._failures, bench.link.socket)


# Brokers that break off


@pytest.fixture
def listener():
    with listening() as made:
        yield made


@pytest.mark.parametrize(
    "answers",
    {
        "refused": [b"\x20\x02\x00\x05"],
        "no subscription": [CONNACK, SUBACK[:-1] + b"\x80"],
        "HTTP": [b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request"],
    }.values(),
)
def test_a_broker_that_does_not_want_us_is_tried_again(listener, answers, tmp_path, monkeypatch):
    bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch)
    for failures in (1, 2):
        with serve(bench, listener, answers):
            bench.until(bench.is_off)
        assert failures == bench.link._failures
        bench.skip_back_off()


def test_a_connection_that_breaks_off_in_mid_packet_leaves_nothing_behind(listener, tmp_path, monkeypatch):
    bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch)
    with serve(bench, listener, [CONNACK, SUBACK + b"\x30\xf0"]):
        bench.until(lambda: bench.link._client.state == mqtt.READY)
    bench.until(bench.is_off)
    bench.skip_back_off()
    with serve(bench, listener, [CONNACK, SUBACK]):
        bench.until(lambda: bench.link._client.state == mqtt.READY)
    assert 0 == bench.link.node.trace.counters[health.MALFORMED]


def test_a_broker_that_breaks_off_after_the_suback_time_and_again_does_not_end_a_node(listener, tmp_path, monkeypatch):
    bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch)
    for times in range(6):
        with serve(bench, listener, [CONNACK, SUBACK]):
            bench.until(lambda: bench.link._client.state == mqtt.READY)
        bench.until(bench.is_off)
        assert times + 1 == bench.link.node.trace.counters[health.MQTT_LOST]
        bench.skip_back_off()


def test_of_a_brokers_addresses_a_node_tries_one_after_the_other(listener, tmp_path, monkeypatch):
    there = listener.getsockname()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in ((LOOPBACK, free_port()), there)]
    bench = Bench(tmp_path, there[1], monkeypatch)
    monkeypatch.setattr("firmware.link.socket.getaddrinfo", lambda *_: found)
    bench.poll()
    bench.until(bench.is_off)
    bench.skip_back_off()
    with serve(bench, listener, [CONNACK, SUBACK]):
        bench.until(lambda: bench.link._client.state == mqtt.READY)
    assert 1 == bench.link.node.trace.counters[health.MQTT_LOST], "the first one refused"


def test_a_broker_that_hangs_is_left_after_one_and_a_half_keepalives(listener, tmp_path, monkeypatch):
    bench = Bench(tmp_path, listener.getsockname()[1], monkeypatch)
    with serve(bench, listener, [CONNACK, SUBACK]):
        bench.until(lambda: bench.link._client.state == mqtt.READY)
        bench.skip(85_000)
        bench.poll()
        assert not bench.is_off()
        bench.skip(6_000)
        bench.poll()
        assert bench.is_off()
