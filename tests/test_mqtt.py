"""The MQTT client without I/O: packets byte by byte, streams cut anywhere, time over the wrap of the ticks."""

import random

import pytest
from mqtt_bench import (
    BYTES_IN,
    BYTES_OUT,
    CONNACK,
    CONNECT,
    FACTS,
    PACKETS_IN,
    PACKETS_OUT,
    PING_MS,
    PINGREQ,
    PINGRESP,
    PUBACK_OF_FACTS,
    SILENCE_MS,
    SKIPPED,
    SUBACK,
    SUBSCRIBE,
    Line,
    connecting,
    duplicate_of,
    publish_of,
    ready,
)

from firmware import mqtt, mqtt_session
from firmware.mqtt import (
    ANSWER_MS,
    CONNECTING,
    IN_MAX,
    NOTHING_DUE_MS,
    OFF,
    OUT_MAX,
    READY,
    SUBSCRIBING,
    RemoteProtocolError,
    field,
    header_of,
    packet_of,
)
from protocol.compat import TICKS_PERIOD, ticks_add

# Bytes


@pytest.mark.parametrize(
    ("size", "encoded"),
    [
        (0, "00"),
        (64, "40"),
        (127, "7f"),
        (128, "8001"),
        (321, "c102"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_remaining_lengths_are_those_of_the_standard(size, encoded):
    """MQTT 3.1.1, clause 2.2.3 and table 2.4."""
    assert bytes.fromhex("30" + encoded) == header_of(0x30, size)


def test_strings_are_those_of_the_standard():
    """Clause 1.5.3, figure 1.2: a capital A and U+2A6D4."""
    assert bytes.fromhex("000541f0aa9b94") == field("A𪛔".encode())


def test_connect_is_that_of_the_standard():
    """Figure 3.6 with our flags: clean session, and a will of QoS 1 that is retained (clause 3.1.2.3)."""
    variable = bytes.fromhex("00044d515454" + "04" + "2e" + "000a")
    payload = b"\x00\x04node" + b"\x00\x05state" + b"\x00\x04lost"
    expected = b"\x10" + bytes((len(variable + payload),)) + variable + payload
    assert expected == mqtt_session.connect("node", "state", 10)


def test_connect_with_a_user_name_and_a_password_is_that_of_the_standard():
    """Clauses 3.1.2.8, 3.1.2.9 and 3.1.3: both flags, and both behind the will."""
    variable = bytes.fromhex("00044d515454" + "04" + "ee" + "000a")
    payload = b"\x00\x04node" + b"\x00\x05state" + b"\x00\x04lost" + b"\x00\x07n-00-00" + b"\x00\x02xy"
    expected = b"\x10" + bytes((len(variable + payload),)) + variable + payload
    assert expected == mqtt_session.connect("node", "state", 10, ("n-00-00", "xy"))


def test_subscribe_is_that_of_the_standard():
    """Figure 3.23, with packet identifier 1 and QoS 0."""
    assert bytes.fromhex("820e0001" + "0003612f6200" + "0003632f6400") == mqtt_session.subscribe(["a/b", "c/d"])


def test_publish_is_that_of_the_standard():
    """Figure 3.11 for QoS 1, with packet identifier 2 and the flag for retained."""
    assert bytes.fromhex("3309" + "0003612f62" + "0002") + b"{}" == mqtt_session.retained("a/b", "{}")
    line = ready()
    line.client.publish(b"a/b", b"\x01\x02")
    assert bytes.fromhex("3007" + "0003612f62" + "0102") == line.sent()


def test_a_whole_connection_byte_by_byte():
    line = connecting()
    assert (CONNECTING, CONNECT) == (line.client.state, line.sent())
    line.receive(CONNACK)
    assert (SUBSCRIBING, SUBSCRIBE) == (line.client.state, line.sent())
    line.receive(SUBACK)
    assert (READY, FACTS) == (line.client.state, line.sent())
    line.receive(PUBACK_OF_FACTS)
    line.receive(publish_of(b"hello", first=0x32, packet_id=b"\x12\x34"))
    assert ([b"hello"], b"\x40\x02\x12\x34") == (line.heard, line.sent())
    line.client.disconnect(b"state")
    assert b"\x31\x13\x00\x05statedisconnected" + b"\xe0\x00" == line.sent()


def test_nothing_is_published_without_a_connection():
    for line in (Line(), connecting()):
        line.sent()
        line.client.publish(b"a/b", b"lost")
        line.client.disconnect(b"state")
        assert b"" == line.sent()


# Streams

STREAM = (
    CONNACK
    + SUBACK
    + publish_of(b"")
    + publish_of(b"one", b"x" * 44)
    + PUBACK_OF_FACTS
    + publish_of(bytes(range(130)), first=0x3A, packet_id=b"\x00\x07")
    + PINGRESP
    + publish_of(bytes(IN_MAX - 8))
    + publish_of(b"last")
)
MESSAGES = [b"", b"one", bytes(range(130)), bytes(IN_MAX - 8), b"last"]
ANSWERS = CONNECT + SUBSCRIBE + FACTS + b"\x40\x02\x00\x07"


def check_stream(line, skipped=0):
    assert MESSAGES == line.heard
    assert (READY, ANSWERS) == (line.client.state, line.sent())
    assert (skipped, 4, len(ANSWERS)) == tuple(line.client.counters[k] for k in (SKIPPED, PACKETS_OUT, BYTES_OUT))


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 50, IN_MAX])
def test_a_stream_means_the_same_in_pieces_of_any_size(at_once):
    line = connecting()
    line.receive(STREAM, at_once)
    check_stream(line)
    assert (9, len(STREAM)) == (line.client.counters[PACKETS_IN], line.client.counters[BYTES_IN])


def test_a_stream_may_be_cut_at_every_byte():
    for cut in range(1, len(STREAM)):
        line = connecting()
        line.receive(STREAM[:cut])
        line.receive(STREAM[cut:])
        check_stream(line)


@pytest.mark.parametrize("size", [IN_MAX - 7, IN_MAX - 6, 1_000, 20_000, 300_000])
def test_a_packet_that_is_too_long_is_skipped_and_counted_and_the_stream_goes_on(size):
    """With its head of 3 bytes and a topic of 5 the first is one byte too long for the input buffer."""
    for at_once in (1, 2, 3, 100, IN_MAX) if size < 20_000 else (IN_MAX,):
        line = connecting()
        line.receive(CONNACK + SUBACK + publish_of(bytes(size)) + STREAM[len(CONNACK + SUBACK) :], at_once)
        check_stream(line, skipped=1)


def test_a_long_packet_may_begin_anywhere_in_the_buffer():
    for before in range(IN_MAX + 10):
        line = ready()
        line.receive(publish_of(bytes(before)) + publish_of(bytes(1_000)) + publish_of(b"behind"))
        assert b"behind" == line.heard[-1]
        assert b"\x00" * 1_000 not in line.heard


def test_there_is_always_room_for_a_byte():
    for size in range(IN_MAX + 20):
        line = ready()
        line.receive(publish_of(bytes(size))[:-1])
        assert len(line.client.room()) > 0


# Messages that must arrive


def state_message(packet_id, word=b"ready"):
    return packet_of(0x33, field(b"state") + packet_id.to_bytes(2, "big") + word)


def test_a_message_without_puback_is_repeated_as_a_duplicate_after_twenty_seconds():
    line = ready()
    line.client.publish_surely(b"state", b"ready", line.now_ms)
    assert state_message(3) == line.sent()
    line.wait(ANSWER_MS)
    assert b"" == line.sent()
    for _ in range(3):
        line.wait(1)
        assert duplicate_of(state_message(3)) == line.sent()
        line.receive(PINGRESP)
        line.wait(ANSWER_MS)
        line.sent()


def test_a_message_with_puback_is_not_repeated():
    line = ready()
    line.client.publish_surely(b"state", b"ready", line.now_ms)
    line.sent()
    line.receive(b"\x40\x02\x00\x03")
    line.wait(ANSWER_MS + 1)
    assert b"" == line.sent()


def test_the_puback_of_another_message_confirms_nothing():
    line = ready(facts_arrived=False)
    line.receive(b"\x40\x02\x00\x63")
    line.wait(ANSWER_MS + 1)
    assert duplicate_of(FACTS) == line.sent()


def test_a_message_without_puback_is_repeated_on_the_next_connection():
    line = ready(facts_arrived=False)
    line.client.publish_surely(b"state", b"ready", line.now_ms)
    line.client.drop()
    line.now_ms = ticks_add(line.now_ms, 1_000)
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK)
    assert CONNECT + SUBSCRIBE + duplicate_of(FACTS) + duplicate_of(state_message(3)) == line.sent()


def test_a_message_from_before_the_connection_goes_out_with_it_and_is_no_duplicate():
    line = Line()
    line.client.publish_surely(b"state", b"ready", line.now_ms)
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK)
    assert line.sent().endswith(FACTS + state_message(3))


def test_of_the_messages_on_a_topic_only_the_last_one_waits():
    """The broker would keep no other one either; messages on other topics stay."""
    line = Line()
    for word in (b"init", b"ready", b"sleeping"):
        line.client.publish_surely(b"state", word, line.now_ms)
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK)
    assert CONNECT + SUBSCRIBE + FACTS + state_message(5, b"sleeping") == line.sent()


def test_the_puback_of_a_replaced_message_does_not_confirm_the_one_that_replaced_it():
    line = ready()
    line.client.publish_surely(b"state", b"ready", line.now_ms)
    line.client.publish_surely(b"state", b"sleeping", line.now_ms)
    line.receive(b"\x40\x02\x00\x03")
    line.sent()
    line.wait(ANSWER_MS + 1)
    assert duplicate_of(state_message(4, b"sleeping")) == line.sent()


def test_poll_says_when_the_next_repetition_is_due():
    line = ready()
    line.client.publish_surely(b"state", b"ready", line.now_ms)
    assert ANSWER_MS + 1 - 15_000 == line.wait(15_000)


def test_what_waits_for_the_socket_is_bounded_and_what_finds_no_room_is_counted():
    line = ready()
    packet = publish_of(bytes(50))
    for _ in range(1_000):
        line.client.publish(b"a/b", bytes(50))
    waiting = line.sent()
    assert OUT_MAX - len(packet) < len(waiting) <= OUT_MAX + 2, "a header of two bytes is not counted"
    assert packet * (1_000 - line.client.counters[SKIPPED]) == waiting
    line.client.publish(b"a/b", bytes(50))
    assert packet == line.sent(), "there is room again"


# Time


@pytest.mark.parametrize("before_wrap_ms", [1, 5_000, PING_MS, SILENCE_MS, SILENCE_MS + 1])
def test_a_quiet_client_pings_twice_a_keepalive_and_notices_a_silent_broker(before_wrap_ms):
    line = ready()
    line.now_ms = TICKS_PERIOD - before_wrap_ms
    line.client.drop()
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK + PUBACK_OF_FACTS)
    line.sent()
    assert [(PING_MS, PINGREQ), (2 * PING_MS, PINGREQ), (3 * PING_MS, PINGREQ)] == line.follow(SILENCE_MS)
    with pytest.raises(RemoteProtocolError, match="silent"):
        line.wait(1)


def test_any_byte_from_the_broker_ends_its_silence():
    line = ready()
    for _ in range(10):
        line.follow(SILENCE_MS)
        line.receive(PINGRESP[:1])
        line.receive(PINGRESP[1:])
    assert READY == line.client.state


def test_a_broker_that_answers_pings_keeps_its_connection_for_ever():
    """Two hours, over the wrap of the ticks."""
    line = ready()
    for _ in range(240):
        (ping,) = line.follow(PING_MS)
        assert (PING_MS, PINGREQ) == ping
        line.receive(PINGRESP)


@pytest.mark.parametrize("answers", [b"", CONNACK], ids=["no CONNACK", "no SUBACK"])
def test_a_broker_that_does_not_answer_the_introduction_is_given_up_after_twenty_seconds(answers):
    line = connecting()
    line.receive(answers)
    assert ANSWER_MS + 1 == line.client.poll(line.now_ms)
    assert 1 == line.wait(ANSWER_MS)
    with pytest.raises(RemoteProtocolError, match="silent"):
        line.wait(1)


def test_nothing_is_due_without_a_connection():
    assert NOTHING_DUE_MS == Line().wait(0)


# A broker that breaks its promises


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 255])
def test_a_refused_connect_is_the_brokers_fault(code):
    with pytest.raises(RemoteProtocolError, match=f"refuses us, code {code}"):
        connecting().receive(CONNACK[:3] + bytes((code,)))


@pytest.mark.parametrize("granted", [b"\x80\x00", b"\x00\x80", b"\x80\x80"])
def test_a_refused_subscription_is_the_brokers_fault(granted):
    line = connecting()
    line.receive(CONNACK)
    with pytest.raises(RemoteProtocolError, match="refuses a subscription"):
        line.receive(SUBACK[:4] + granted)


BROKEN = {
    "a PUBLISH before the CONNACK": publish_of(b"x"),
    "a SUBACK before the CONNACK": SUBACK,
    "an UNSUBACK before the SUBACK": CONNACK + b"\xb0\x02\x00\x01",
    "a CONNACK of three bytes": b"\x20\x03\x00\x00\x00",
    "an empty CONNACK": b"\x20\x00",
    "two CONNACKs": CONNACK + CONNACK,
    "a topic longer than its packet": CONNACK + SUBACK + b"\x30\x04\x00\x09ab",
    "a PUBLISH without a topic": CONNACK + SUBACK + b"\x30\x01\x00",
    "a PUBLISH on an empty topic": CONNACK + SUBACK + b"\x30\x03\x00\x00x",
    "an empty PUBLISH": CONNACK + SUBACK + b"\x30\x00",
    "a PUBLISH without its packet identifier": CONNACK + SUBACK + b"\x32\x05\x00\x03a/b",
    "QoS 2": CONNACK + SUBACK + publish_of(b"x", first=0x34, packet_id=b"\x00\x01"),
    "QoS 3": CONNACK + SUBACK + publish_of(b"x", first=0x36, packet_id=b"\x00\x01"),
    "a PUBACK of three bytes": CONNACK + SUBACK + b"\x40\x03\x00\x02\x00",
    "a length of five bytes": CONNACK + SUBACK + b"\x30\xff\xff\xff\xff\x01",
    "a CONNECT": CONNACK + b"\x10\x00",
    "a SUBSCRIBE": CONNACK + SUBACK + b"\x82\x00",
    "a packet of kind 0": CONNACK + SUBACK + b"\x00\x00",
    "a packet of kind 15": CONNACK + SUBACK + b"\xf0\x00",
}


@pytest.mark.parametrize("at_once", [1, IN_MAX])
@pytest.mark.parametrize("name", BROKEN)
def test_what_mqtt_does_not_allow_is_the_brokers_fault(name, at_once):
    line = connecting()
    with pytest.raises(RemoteProtocolError):
        line.receive(BROKEN[name], at_once)
    line.client.drop()
    assert OFF == line.client.state
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK + publish_of(b"again"))
    assert b"again" == line.heard[-1]


@pytest.mark.parametrize(
    ("state", "to"), [(OFF, READY), (OFF, SUBSCRIBING), (CONNECTING, READY), (READY, CONNECTING), (OFF, OFF)]
)
def test_an_illegal_change_of_state_is_our_own_mistake(state, to):
    line = Line()
    line.client.state = state
    with pytest.raises(RuntimeError, match=f"no way from state {state} to {to}"):
        line.client._go(to)


def test_random_bytes_raise_nothing_but_the_brokers_fault(seed):
    """Whatever a broker sends after SUBACK, the client never breaks in another way."""

    dice, refused = random.Random(seed), 0
    for _ in range(3_000):
        line = ready()
        try:
            line.receive(dice.randbytes(dice.randint(1, 800)), dice.randint(1, IN_MAX))
        except RemoteProtocolError:
            line.client.drop()
            line.client.start_connect(line.now_ms)
            refused += 1
    assert 0 < refused < 3_000


def test_the_module_names_the_limits_that_these_tests_rest_on():
    assert (352, 1_024, 20_000) == (mqtt.IN_MAX, mqtt.OUT_MAX, mqtt.ANSWER_MS)
