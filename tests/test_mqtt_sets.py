"""Filter sets over the MQTT client: the only payloads that may be longer than its buffer."""

import errno
from pathlib import Path

import pytest
from mqtt_bench import CONNACK, PINGRESP, SKIPPED, SUBACK, duplicate_of, publish_of, ready

from firmware.mqtt import ANSWER_MS, IN_MAX, OUT_MAX, READY, field, packet_of

WAVE = b"tm/1/memory/n/n-00-01/wave"


def set_of(size):
    return bytes(at * 7 & 255 for at in range(size))


def set_message(data, qos=1):
    return publish_of(data, WAVE, 0x30 | qos << 1, b"\x00\x09" if qos else b"")


ACK_OF_SET = b"\x40\x02\x00\x09"


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 300, IN_MAX, 1_000, 11_000])
@pytest.mark.parametrize("at_once", [1, 2, 7, 50, IN_MAX])
def test_a_set_of_any_length_is_handed_on_whole_in_pieces_of_any_size(size, at_once):
    for qos, acked in ((1, ACK_OF_SET), (0, b"")):
        line = ready()
        line.receive(publish_of(b"before") + set_message(set_of(size), qos) + publish_of(b"behind"), at_once)
        assert ([set_of(size)], [b"before", b"behind"], acked) == (line.sets(), line.heard, line.sent())
        assert 0 == line.client.counters[SKIPPED]


def test_a_set_may_be_cut_at_every_byte():
    """Also within its head and its topic, when nobody can know yet that it is one."""
    stream = set_message(set_of(500)) + publish_of(b"behind")
    for cut in range(1, len(stream)):
        line = ready()
        line.receive(stream[:cut])
        line.receive(stream[cut:])
        assert ([set_of(500)], [b"behind"], ACK_OF_SET) == (line.sets(), line.heard, line.sent()), cut
        assert 0 == line.client.counters[SKIPPED], cut


def test_a_set_may_begin_anywhere_in_the_buffer():
    for before in range(IN_MAX - 20):
        line = ready()
        line.receive(publish_of(bytes(before)) + set_message(set_of(700)) + publish_of(b"behind"))
        assert ([set_of(700)], b"behind", 0) == (line.sets(), line.heard[-1], line.client.counters[SKIPPED]), before


def test_two_sets_one_behind_the_other_are_two():
    line = ready()
    line.receive(set_message(set_of(900)) + set_message(set_of(400)))
    assert [set_of(900), set_of(400)] == line.sets()
    assert 2 * ACK_OF_SET == line.sent()


def test_a_set_is_confirmed_when_its_last_byte_was_handed_on():
    line = ready()
    message = set_message(set_of(900))
    line.receive(message[:-1])
    assert b"" == line.sent()
    line.receive(message[-1:])
    assert ACK_OF_SET == line.sent()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_set_that_is_withdrawn_hands_nothing_on_and_breaks_nothing(qos):
    """MQTT's way to clear a retained message is one without payload (clause 3.3.1.3)."""
    line = ready()
    line.receive(set_message(b"", qos) + publish_of(b"behind"))
    assert ([], [b"behind"], ACK_OF_SET if qos else b"") == (line.pieces, line.heard, line.sent())


def test_a_set_that_breaks_off_with_its_connection_leaves_nothing_for_the_next():
    line = ready()
    line.receive(set_message(set_of(900))[:500])
    line.client.drop()
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK + publish_of(b"first") + set_message(set_of(900)))
    assert ([b"first"], [set_of(900)]) == (line.heard, line.sets())


def test_a_neighbours_wave_is_asked_for_and_asked_for_no_more():
    line = ready()
    line.client.subscribe(WAVE, True)
    assert packet_of(0x82, b"\x00\x03" + field(WAVE) + b"\x01") == line.sent()
    line.receive(b"\x90\x03\x00\x03\x01")
    line.client.subscribe(WAVE, False)
    assert packet_of(0xA2, b"\x00\x04" + field(WAVE)) == line.sent()
    line.receive(b"\xb0\x02\x00\x04")
    assert READY == line.client.state


def test_a_refused_neighbours_wave_ends_no_connection():
    line = ready()
    line.client.subscribe(WAVE, True)
    line.receive(b"\x90\x03\x00\x03\x80" + publish_of(b"on"))
    assert (READY, [b"on"]) == (line.client.state, line.heard)


@pytest.fixture
def own_set(tmp_path):
    path = tmp_path / "set"
    path.write_bytes(set_of(700))
    return str(path)


def own_message(packet_id, data):
    return packet_of(0x33, field(WAVE) + packet_id.to_bytes(2, "big") + data)


def publish(line, path):
    line.client.publish_file(WAVE, path, line.now_ms)


def test_a_file_is_published_as_one_retained_message(own_set):
    line = ready()
    publish(line, own_set)
    assert own_message(3, set_of(700)) == line.sent()
    line.receive(b"\x40\x02\x00\x03")
    line.wait(ANSWER_MS + 1)
    assert b"" == line.sent()


def test_a_file_without_puback_is_read_again_and_repeated_as_a_duplicate(own_set):
    line = ready()
    publish(line, own_set)
    line.sent()
    line.wait(ANSWER_MS + 1)
    assert duplicate_of(own_message(3, set_of(700))) == line.sent()
    line.client.drop()
    line.client.start_connect(line.now_ms)
    line.receive(CONNACK + SUBACK)
    assert line.sent().endswith(duplicate_of(own_message(3, set_of(700))))


def test_a_file_that_is_withdrawn_is_not_repeated(own_set):
    line = ready()
    publish(line, own_set)
    line.sent()
    line.client.withdraw(WAVE)
    line.wait(ANSWER_MS + 1)
    assert b"" == line.sent()


def test_of_a_file_no_more_than_a_piece_waits_for_the_socket(own_set):
    line = ready()
    publish(line, own_set)
    waiting = [len(line.client.out)]
    while line.client.file:
        line.client.out = bytearray()
        line.client.refill()
        waiting.append(len(line.client.out))
    assert [128] * 5 + [60] == waiting[1:]
    assert waiting[0] < 50


def test_what_is_said_while_a_file_goes_out_comes_behind_it(own_set):
    """Also what was said between two pieces, and before it stays before it."""
    line = ready()
    line.client.publish(b"a", b"before")
    publish(line, own_set)
    line.client.publish(b"a", b"first")
    line.client.out = bytearray()
    line.client.refill()
    line.client.publish(b"a", b"second")
    sent = line.sent()
    behind = publish_of(b"first", b"a") + publish_of(b"second", b"a")
    assert sent == set_of(700) + behind
    publish(line, own_set)
    line.client.publish(b"a", b"third")
    assert own_message(4, set_of(700)) + publish_of(b"third", b"a") == line.sent()


def test_what_waits_behind_a_file_is_limited_too(own_set):
    line = ready()
    publish(line, own_set)
    for _ in range(300):
        line.client.publish(b"a", b"reading")
    assert len(line.sent()) < OUT_MAX + 800
    assert line.client.counters[SKIPPED] > 100


def test_a_file_that_cannot_be_opened_is_counted_and_tried_again_later(own_set):
    line = ready()
    publish(line, own_set + ".gone")
    assert (b"", 1) == (line.sent(), line.client.counters[SKIPPED])
    Path(own_set).rename(own_set + ".gone")
    line.wait(ANSWER_MS)
    assert b"" == line.sent()
    line.wait(1)
    assert own_message(3, set_of(700)) == line.sent()


@pytest.mark.parametrize("left", [0, 1, 127, 128, 600, 699])
def test_a_file_that_gives_less_than_was_announced_breaks_the_connection(left, own_set):
    """Whatever came behind it would be taken for its content."""
    line = ready()
    publish(line, own_set)
    Path(own_set).write_bytes(set_of(left))
    with pytest.raises(OSError, match=str(errno.EIO)):
        line.sent()
    line.client.drop()
    assert (None, b"") == (line.client.file, line.client.out)


def test_nothing_is_repeated_to_a_broker_that_does_not_read(own_set):
    line = ready(facts_arrived=False)
    publish(line, own_set)
    for _ in range(5):
        line.receive(PINGRESP)
        line.wait(ANSWER_MS + 1)
    assert len(line.client.out) < 60, "the file's beginning; pings wait behind it"
    assert own_message(3, set_of(700)) == line.sent()[: len(own_message(3, set_of(700)))]
    line.wait(0)
    assert duplicate_of(own_message(3, set_of(700))) in line.sent()
