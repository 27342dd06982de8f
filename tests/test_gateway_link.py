"""The gateway's connection: what no broker should send does not make it deaf."""

import socket
import threading

from gateway.link import Link

WAIT_S_MAX = 20.0


def publish(name, payload):
    return bytes((0x30, 2 + len(name) + len(payload))) + len(name).to_bytes(2, "big") + name + payload


def test_a_message_whose_topic_is_no_text_is_nobodys_and_the_next_one_comes():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def be_broker():
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"\x20\x02\x00\x00")
                connection.recv(1_000)
                connection.sendall(publish(b"tm/1/office/n/\xff/up", b"x") + publish(b"tm/1/office/n/n-00-00/up", b"y"))
                connection.recv(1_000)  # until the link is closed

        thread = threading.Thread(target=be_broker)
        thread.start()
        with Link("127.0.0.1", server.getsockname()[1], "office") as link:
            assert ("", b"x") == link.next_message(WAIT_S_MAX)
            assert ("tm/1/office/n/n-00-00/up", b"y") == link.next_message(WAIT_S_MAX)
        thread.join()
