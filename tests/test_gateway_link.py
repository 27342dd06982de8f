"""The gateway's connection: what no broker should send does not make it deaf."""

import socket
import threading

import pytest

from gateway.link import PAYLOAD_MAX, Link

WAIT_S_MAX = 20.0


def publish(name, payload):
    """QoS 0; the length in three bytes, however short it is."""
    size = 2 + len(name) + len(payload)
    length = bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14))
    return b"\x30" + length + len(name).to_bytes(2, "big") + name + payload


UP = b"tm/1/office/n/n-00-00/up"
LONG = b"tm/1/office/n/" + b"x" * 60_000 + b"/up"


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (publish(b"tm/1/office/n/\xff/up", b"x"), ("", b"x")),
        (publish(LONG, b"x"), ("", b"x")),
        (publish(UP, bytes(PAYLOAD_MAX + 2)), (UP.decode(), bytes(PAYLOAD_MAX + 1))),
        (publish(UP, bytes(PAYLOAD_MAX)), (UP.decode(), bytes(PAYLOAD_MAX))),
    ],
    ids=["a topic that is no text", "a long topic", "a long payload", "the longest payload"],
)
def test_of_what_no_node_says_little_is_kept_and_the_next_message_comes(said, heard):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def be_broker():
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"\x20\x02\x00\x00")
                connection.recv(1_000)
                connection.sendall(said + publish(UP, b"y"))
                connection.recv(1_000)  # until the link is closed

        thread = threading.Thread(target=be_broker)
        thread.start()
        with Link("127.0.0.1", server.getsockname()[1], "office") as link:
            assert heard == link.next_message(WAIT_S_MAX)
            assert (UP.decode(), b"y") == link.next_message(WAIT_S_MAX)
        thread.join()
