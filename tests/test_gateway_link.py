"""The gateway's connection: what no broker should send does not make it deaf."""

import socket
import threading
from contextlib import contextmanager

import pytest
from broker_bench import until

from gateway import link as link_module
from gateway.link import PAYLOAD_MAX, Link
from gateway.site import site_of_cells

WAIT_S_MAX = 20.0


def publish(name, payload):
    """QoS 0; the length in three bytes, however short it is."""
    size = 2 + len(name) + len(payload)
    length = bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14))
    return b"\x30" + length + len(name).to_bytes(2, "big") + name + payload


UP = b"tm/1/office/n/n-00-00/up"
LONG = b"tm/1/office/n/" + b"x" * 60_000 + b"/up"


def packets(data):
    """(type, bytes) of each packet of less than 128 bytes."""
    while data:
        assert data[1] < 128
        yield data[0] >> 4, data[2 : 2 + data[1]]
        data = data[2 + data[1] :]


def test_a_node_that_is_left_out_is_not_subscribed_to_also_not_on_the_next_connection(monkeypatch):
    monkeypatch.setattr(link_module, "_FILTERS_MAX", 2)
    site, received = site_of_cells("office", {(0, 0), (0, 1), (0, 2)}), [bytearray(), bytearray()]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def be_broker():
            for heard in received:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1_000)
                    connection.sendall(b"\x20\x02\x00\x00")
                    while not heard.endswith(b"END\0") and (data := connection.recv(1_000)):
                        heard += data

        thread = threading.Thread(target=be_broker)
        thread.start()
        with Link("127.0.0.1", server.getsockname()[1], "office") as link:
            until(lambda: received[0].count(b"+") == 4)
            link.leave_out({"n-00-01"}, site)
            until(lambda: received[0].count(b"n-00-02") == 4)
            link._client.subscribe("END")
            until(lambda: received[1].count(b"n-00-02") == 4)
            link.leave_out(set(), site)
            until(lambda: received[1].count(b"+") == 4)
            link._client.subscribe("END")
        thread.join()
    subscribe, unsubscribe = 8, 10
    asked = [[kind for kind, _ in packets(bytes(heard))] for heard in received]
    first, second = ([kind for kind in kinds if kind in (subscribe, unsubscribe)] for kinds in asked)
    assert [subscribe] * 2 + [unsubscribe] * 2 + [subscribe] * 4 + [subscribe] == first
    assert [subscribe] * 4 + [unsubscribe] * 4 + [subscribe] * 2 + [subscribe] == second
    assert b"n-00-01" not in received[0] + received[1]


@contextmanager
def link_that_hears(*messages):
    """A Link to a broker that hands it these messages."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def be_broker():
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"\x20\x02\x00\x00")
                connection.recv(1_000)
                connection.sendall(b"".join(publish(*message) for message in messages))
                connection.recv(1_000)  # until the link is closed

        thread = threading.Thread(target=be_broker)
        thread.start()
        with Link("127.0.0.1", server.getsockname()[1], "office") as link:
            yield link
        thread.join()


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ((b"tm/1/office/n/\xff/up", b"x"), ("", b"x")),
        ((LONG, b"x"), ("", b"x")),
        ((UP, bytes(PAYLOAD_MAX + 2)), (UP.decode(), bytes(PAYLOAD_MAX + 1))),
        ((UP, bytes(PAYLOAD_MAX)), (UP.decode(), bytes(PAYLOAD_MAX))),
    ],
    ids=["a topic that is no text", "a long topic", "a long payload", "the longest payload"],
)
def test_of_what_no_node_says_little_is_kept_and_the_next_message_comes(said, heard):
    with link_that_hears(said, (UP, b"y")) as link:
        assert {heard, (UP.decode(), b"y")} == {link.next_message(WAIT_S_MAX) for _ in range(2)}


def test_a_node_that_floods_pushes_out_no_word_of_another(monkeypatch):
    monkeypatch.setattr(link_module, "NODE_QUEUE_LEN_MAX", 5)
    noise = [(b"tm/1/office/n/n-00-00/" + leaf, b"x") for leaf in (b"up", b"state") * 10]
    stranger = [(b"tm/1/office/n/%d/up" % number, b"x") for number in range(20)]
    with link_that_hears(*noise, *stranger, (b"tm/1/office/n/n-00-01/up", b"y")) as link:
        until(lambda: link.dropped == 2 * 15)
        first = [link.next_message(WAIT_S_MAX) for _ in range(3)]
        assert ("tm/1/office/n/n-00-01/up", b"y") == first[2]
