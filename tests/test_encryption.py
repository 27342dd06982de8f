"""A node's TLS: nothing is lost or said twice where a socket is slow, nothing is left over, nobody else is believed."""

import ssl
import threading

import pytest
from broker_bench import WAIT_S_MAX, until
from link_bench import CONNACK, SUBACK, Bench, listening
from on_micropython import run

from firmware import encryption, start
from gateway import certificates
from gateway.broker import LOOPBACK
from tools.rig.interpreter import InterpreterError

TOPIC = b"tm/1/memory/cycle"
SETTINGS = {"host": LOOPBACK, "port": 1}
# On MicroPython: a node that would say something as soon as it may.
SPEAK = """
import select, socket
from firmware import encryption
tls, port, _ = encryption.open_tls("n-00-00", %r)
raw = socket.socket()
raw.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
raw.setblocking(False)
secured = tls.secured(raw)
poller = select.poll()
poller.register(raw, select.POLLIN)
try:
    while not tls.send_some(bytearray(b"hello")):
        poller.poll()
    print("said")
except OSError:
    print("refused")
"""


class Slow:
    """A TLS socket that takes all or nothing, as mbedTLS does: of what it is given first it makes a record, and when
    that has gone out it says the length of what it is given then."""

    def __init__(self):
        self.taken, self.made, self.busy = b"", None, True

    def wrap_socket(self, _raw, **_options):
        return self

    def send(self, data):
        self.made = self.made or bytes(data)
        if self.busy:
            return None
        self.taken, self.made = self.taken + self.made, None
        return len(data)


def test_bytes_that_come_while_others_wait_are_sent_behind_them_and_none_is_lost():
    slow = Slow()
    tls = encryption.Tls(slow, "host")
    tls.secured(None)
    out = bytearray(b"first")
    assert (0, True) == (tls.send_some(out), tls.waits)
    out += b", second"
    assert (0, True) == (tls.send_some(out), tls.waits)
    slow.busy = False
    while out:
        out = out[tls.send_some(out) :]
    assert (b"first, second", False) == (slow.taken, tls.waits)


def test_a_new_connection_knows_nothing_of_what_was_begun_on_the_one_before():
    slow = Slow()
    tls = encryption.Tls(slow, "host")
    tls.secured(None)
    tls.send_some(bytearray(b"of"))
    slow.made, slow.busy = None, False
    tls.secured(None)
    assert 6 == tls.send_some(bytearray(b"longer"))


@pytest.fixture
def authority(tmp_path):
    """The one that a node trusts, and `broker.pem` by it."""
    made = certificates.load_or_make(tmp_path, "memory")
    certificates.write_broker(tmp_path / "broker.pem", made, {LOOPBACK})
    return made.certificate_pem


def bench_at(listener, folder, monkeypatch, authority):
    """A node that connects to a listener by TLS."""
    settings = start.config.load
    monkeypatch.setattr(start.config, "load", lambda path: settings(path) | {"ca": authority})
    return Bench(folder, listener.getsockname()[1], monkeypatch)


def broker_end(bench, listener, folder, monkeypatch):
    """The node's connection as the broker has it, its handshake done."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "broker.pem")
    bench.poll()
    raw, _ = listener.accept()
    raw.setblocking(False)
    end = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
    until(lambda: bench.poll() >= 0 and done(end.do_handshake), "handshake")
    return end


def done(step):
    try:
        step()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    return True


def answered(bench, end, answers):
    """Hand over each answer once the node has said something."""
    for answer in answers:
        until(lambda: bench.poll() >= 0 and done(lambda: end.recv(4_096)), "the node speaks")
        end.sendall(answer)


def test_all_that_came_at_once_is_read_though_the_socket_shows_nothing_more(tmp_path, monkeypatch, authority):
    with listening() as listener:
        bench = bench_at(listener, tmp_path, monkeypatch, authority)
        end = broker_end(bench, listener, tmp_path, monkeypatch)
        answered(bench, end, [CONNACK, SUBACK])
        bench.until(lambda: bench.link._was_ready)
        heard = []
        bench.link._on_message = bench.link._client._on_message = lambda *given: heard.append(bytes(given[-1]))
        packet = b"\x30" + bytes((2 + len(TOPIC) + 5, 0, len(TOPIC))) + TOPIC + b"hello"
        count = 16_000 // len(packet)  # in one record; more than one poll reads
        end.sendall(packet * count)
        waits = [bench.poll()]
        while waits[-1] == 0:
            waits.append(bench.poll())
        assert count == len(heard)
        assert len(waits) > 1
        bench.link.close()
        end.close()


@pytest.mark.parametrize("names", [{"127.0.0.2"}, None])
def test_a_broker_with_anothers_certificate_hears_nothing_and_is_left(tmp_path, monkeypatch, authority, names):
    others = certificates.load_or_make(tmp_path / "others", "memory")
    signer = certificates.load_or_make(tmp_path, "memory") if names else others
    certificates.write_broker(tmp_path / "broker.pem", signer, names or {LOOPBACK})
    with listening() as listener:
        bench = bench_at(listener, tmp_path, monkeypatch, authority)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            broker_end(bench, listener, tmp_path, monkeypatch).recv(1)
        bench.until(bench.is_off)


def test_a_node_says_nothing_before_it_knows_whom_it_speaks_to_and_does_not_spin(tmp_path, monkeypatch, authority):
    with listening() as listener:
        bench = bench_at(listener, tmp_path, monkeypatch, authority)
        bench.poll()
        end, _ = listener.accept()
        end.settimeout(WAIT_S_MAX)
        assert b"\x16\x03" == end.recv(4_096)[:2]  # a handshake
        assert (False, True) == (bench.link.wants_write, bench.poll() > 0)
        with pytest.raises(BlockingIOError):
            end.setblocking(False) or end.recv(4_096)
        end.close()
        bench.until(bench.is_off)


def test_a_node_without_what_its_runtime_needs_is_told():
    key, certificate = {"psk": "0" * 64, "psk_port": 2}, {"ca": "certificate"}
    assert "ca: is missing; on CPython psk is not enough, copy both from the gateway's file" == refusal(key)
    assert "ca: is no certificate in PEM; copy it from the gateway's file" == refusal(certificate)
    script = f"from firmware import encryption\nencryption.open_tls('n-00-00', {SETTINGS | certificate})"
    with pytest.raises(InterpreterError, match="psk: is missing; on MicroPython ca is not enough, copy both from the "):
        run(script)


def refusal(change):
    with pytest.raises(ValueError, match="copy") as caught:
        encryption.open_tls("n-00-00", SETTINGS | change)
    return str(caught.value)


def test_a_node_with_a_key_speaks_to_nobody_who_shows_a_certificate_instead(tmp_path, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "broker.pem")
    refusals = []

    def serve(listener):
        raw, _ = listener.accept()
        try:
            context.wrap_socket(raw, server_side=True)
        except ssl.SSLError as error:
            refusals.append(error.reason)

    with listening() as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        settings = SETTINGS | {"ca": authority, "psk": "0" * 64, "psk_port": listener.getsockname()[1]}
        said = run(SPEAK % settings)
        server.join()
    assert (["NO_SHARED_CIPHER"], "refused") == (refusals, said.strip())
