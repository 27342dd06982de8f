"""The broker: real mosquitto and real amqtt as children, strangers, and every way to ask for what is not there."""

import os
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from broker_bench import free_ports

from gateway import broker, certificates
from gateway.broker import BrokerError, Guests, find_mosquitto, open_broker
from gateway.passwords import Login

ROOT = Path(__file__).resolve().parent.parent
WAIT_S_MAX = 10.0
PROGRAMS = [
    pytest.param("mosquitto", marks=pytest.mark.skipif(not find_mosquitto(), reason="mosquitto is not installed")),
    "amqtt",
]

GUESTS = Guests({"gateway": "word", "n-00-00": "key"}, "user gateway\ntopic readwrite th1/#\n")

OPEN_AND_WAIT = """
import sys, time
from pathlib import Path
from gateway.broker import open_broker
print(open_broker(sys.argv[1], Path(sys.argv[2])).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _no_broker_from_the_environment(monkeypatch):
    monkeypatch.delenv("THERMESH_BROKER", raising=False)


@pytest.fixture
def stranger():
    """A listener that hands each connection to `answer`, in a thread; gives a function that starts it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def start(answer):
        def serve():
            link, _ = listener.accept()
            with link:
                answer(link)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    listener.close()


def is_running(pid):
    """Whether the process exists and is not merely unburied."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def becomes_true(condition):
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def round_trip(host, port, login=None):
    """Publish once and return what a subscriber on a wildcard received."""
    received, subscribed, unsubscribed = [], threading.Event(), threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="test")
    if login:
        client.username_pw_set(*login)
    client.on_connect = lambda *_: client.subscribe("th1/+/halo")
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_unsubscribe = lambda *_: unsubscribed.set()
    client.on_message = lambda *arguments: received.append((arguments[2].topic, arguments[2].payload))
    client.connect(host, port)
    client.loop_start()
    try:
        assert subscribed.wait(WAIT_S_MAX)
        said = client.publish("th1/n-03-12/halo", b"\x00\xff", qos=1)
        said.wait_for_publish(WAIT_S_MAX)
        if login:  # whoever may read it has it before the next word
            client.unsubscribe("th1/+/halo")
            assert becomes_true(lambda: unsubscribed.is_set())
        else:
            becomes_true(lambda: received)
    finally:
        client.disconnect()
        client.loop_stop()
    return received


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_own_broker_passes_messages_on_and_leaves_no_process(program, tmp_path):
    with open_broker(program, tmp_path / "new" / "folder") as own:
        assert own.own
        assert own.host == "127.0.0.1"
        assert own.name.startswith(f"{program} ")
        assert is_running(own.pid)
        assert round_trip(own.host, own.port) == [("th1/n-03-12/halo", b"\x00\xff")]
    assert not is_running(own.pid)
    own.close()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("login", [None, Login("gateway", "other"), Login("n-00-01", "word"), Login("gateway", "")])
def test_an_own_broker_with_guests_lets_in_nobody_else(program, login, tmp_path):
    with open_broker(program, tmp_path, guests=GUESTS) as own:
        assert (Login("gateway", "word"), GUESTS.passwords) == (own.login, own.passwords)
        assert 0 == broker.connect(own.host, own.port, WAIT_S_MAX, Login("n-00-00", "key"))
        with suppress(ValueError):  # it hangs up without a word
            assert broker.connect(own.host, own.port, WAIT_S_MAX, login) in (4, 5)
    for name in ("passwords", "amqtt.json"):
        assert not (tmp_path / name).exists() or 0o600 == stat.S_IMODE((tmp_path / name).stat().st_mode)


@pytest.mark.parametrize("program", PROGRAMS[:1])
def test_an_own_mosquitto_gives_guests_their_rights_only(program, tmp_path):
    with open_broker(program, tmp_path / "a b", guests=GUESTS) as own:
        users = {name: round_trip(own.host, own.port, (name, word)) for name, word in GUESTS.passwords.items()}
    assert {"gateway": [("th1/n-03-12/halo", b"\x00\xff")], "n-00-00": []} == users


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_own_broker_listens_on_the_loopback_only(program, tmp_path):
    with open_broker(program, tmp_path) as own, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", own.port), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_killed_parent_leaves_no_broker(program, tmp_path):
    command = [sys.executable, "-c", OPEN_AND_WAIT, program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    assert becomes_true(lambda: not is_running(pid))


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_in_the_terminal_does_not_reach_an_own_broker(program, tmp_path):
    with open_broker(program, tmp_path) as own:
        assert os.getsid(own.pid) == own.pid
        assert os.getpgid(own.pid) != os.getpgid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("program", PROGRAMS)
def test_an_own_broker_has_room_for_425_nodes_though_its_parent_has_not(program, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with open_broker(program, tmp_path) as own:
            lines = Path(f"/proc/{own.pid}/limits").read_text().splitlines()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    soft = next(line.split()[3] for line in lines if line.startswith("Max open files"))
    assert soft == "unlimited" or int(soft) >= 1024


def test_a_broker_that_runs_already_is_reached_and_left_alone(tmp_path):
    with open_broker("amqtt", tmp_path) as own:
        address = f"{own.host}:{own.port}"
        with open_broker(address, tmp_path) as other:
            assert (other.host, other.port, other.name) == (own.host, own.port, address)
            assert (other.own, other.pid) == (False, None)
        assert is_running(own.pid)


def test_auto_prefers_mosquitto_and_falls_back_to_amqtt(tmp_path, monkeypatch):
    with open_broker("auto", tmp_path) as own:
        assert own.name.split()[0] == ("mosquitto" if find_mosquitto() else "amqtt")
    monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    with open_broker("auto", tmp_path) as own:
        assert own.name.split()[0] == "amqtt"


def test_the_environment_decides_what_auto_means_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("THERMESH_BROKER", "amqtt")
    with open_broker("auto", tmp_path) as own:
        assert own.name.startswith("amqtt ")
        monkeypatch.setenv("THERMESH_BROKER", "nonsense")
        with open_broker(f"127.0.0.1:{own.port}", tmp_path) as other:
            assert not other.own


def test_a_port_that_another_program_took_is_given_up_for_another(tmp_path, monkeypatch):
    free_port = broker.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr(broker, "free_port", lambda: ports.pop() if ports else free_port())
        with open_broker("auto", tmp_path) as own:
            assert own.port != taken.getsockname()[1]


def test_a_free_port_is_none_that_another_program_listens_on(monkeypatch):
    taken = free_ports(2)
    monkeypatch.setattr(broker, "PORTS", range(taken, taken + 2))
    with socket.create_server(("127.0.0.1", taken)):
        assert {taken + 1} == {broker.free_port() for _ in range(20)}


def test_a_free_port_is_none_that_the_system_gives_to_a_connection():
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_connection(there.getsockname()) as connection:
        assert connection.getsockname()[1] not in broker.PORTS


def test_a_broker_of_the_same_folder_has_the_same_port_again_if_that_is_free(tmp_path):
    with open_broker("auto", tmp_path) as first:
        port = first.port
    with open_broker("auto", tmp_path) as second:
        assert port == second.port
        with open_broker("auto", tmp_path / "other") as other:
            (tmp_path / "other" / "port").write_text(f"{port}\n")
            assert port != other.port
        with open_broker("auto", tmp_path / "other") as other:
            assert port != other.port
    for nonsense in ("", "0", "70000", "\u0661", "port"):
        (tmp_path / "port").write_text(nonsense)
        open_broker("auto", tmp_path).close()


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_own_broker_that_was_killed_is_started_again_on_its_port(program, tmp_path, caplog):
    with open_broker(program, tmp_path) as own:
        own.keep_alive()
        assert [] == caplog.records
        first = own.pid
        os.kill(first, signal.SIGKILL)
        own._own.process.wait(WAIT_S_MAX)
        own.keep_alive()
        assert first != own.pid
        assert becomes_true(lambda: broker._answers(own.port))
        assert round_trip(own.host, own.port) == [("th1/n-03-12/halo", b"\x00\xff")]
    assert not is_running(own.pid)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith("ended with code -9 and is started again")


def test_a_broker_that_ends_at_once_is_an_error_with_the_last_line_of_its_log(tmp_path, monkeypatch):
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho one\necho 'Error: no memory for two' >&2\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(broker, "find_mosquitto", lambda: str(program))
    with pytest.raises(BrokerError) as caught:
        open_broker("mosquitto", tmp_path)
    assert str(caught.value) == "--broker mosquitto: mosquitto ended with code 3: Error: no memory for two"


def test_a_broker_that_never_answers_is_ended_and_an_error(tmp_path, monkeypatch):
    program = tmp_path / "mosquitto"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho starting\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(broker, "find_mosquitto", lambda: str(program))
    monkeypatch.setattr(broker, "START_S_MAX", 0.5)
    with pytest.raises(BrokerError) as caught:
        open_broker("mosquitto", tmp_path)
    assert str(caught.value) == "--broker mosquitto: mosquitto does not answer within 0.5 s: starting"
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"^--broker amqtt: amqtt cannot be started: .*Not a directory"):
        open_broker("amqtt", tmp_path / "file" / "folder")


def test_mosquitto_that_is_not_installed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    with pytest.raises(BrokerError) as caught:
        open_broker("mosquitto", tmp_path)
    assert str(caught.value) == (
        "--broker mosquitto: mosquitto is not on PATH, in /usr/sbin or /usr/local/sbin;"
        " install it, or use --broker amqtt"
    )


NO_CHOICE = "is not auto, mosquitto, amqtt or HOST:PORT"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("foo", f"--broker foo: {NO_CHOICE}"),
        ("", f"--broker : {NO_CHOICE}"),
        ("10.0.0.1", f"--broker 10.0.0.1: {NO_CHOICE}"),
        (":1883", f"--broker :1883: {NO_CHOICE}"),
        ("mqtt://gate:1883", f"--broker mqtt://gate:1883: {NO_CHOICE}"),
        ("two words:1883", f"--broker two words:1883: {NO_CHOICE}"),
        ("two\nlines", f"--broker two?lines: {NO_CHOICE}"),
        ("gate:", "--broker gate:: port '' is not in 1..65535"),
        ("gate:0", "--broker gate:0: port '0' is not in 1..65535"),
        ("gate:65536", "--broker gate:65536: port '65536' is not in 1..65535"),
        ("gate:1e3", "--broker gate:1e3: port '1e3' is not in 1..65535"),
        ("gate:١٨٨٣", "--broker gate:١٨٨٣: port '١٨٨٣' is not in 1..65535"),
        ("::1:1883", "--broker ::1:1883: an IPv6 address stands in brackets: [::1]:1883"),
        (
            "127.0.0.1:1",
            "--broker 127.0.0.1:1: nothing answers there (Connection refused); start a broker, or use --broker auto",
        ),
    ],
)
def test_a_choice_that_leads_nowhere_is_named_with_the_remedy(choice, message, tmp_path):
    with pytest.raises(BrokerError) as caught:
        open_broker(choice, tmp_path)
    assert str(caught.value) == message


def test_an_ipv6_address_in_brackets_is_taken_apart():
    assert broker.parse_address(broker.Choice("--broker", "[::1]:1883")) == ("::1", 1883)
    assert broker.parse_address(broker.Choice("--broker", "[fe80::1%eth0]:1")) == ("fe80::1%eth0", 1)


def test_a_host_that_no_one_knows_is_an_error(tmp_path):
    with pytest.raises(BrokerError, match=r"^--broker no\.invalid:1883: no such host \(.*\); start a broker"):
        open_broker("no.invalid:1883", tmp_path, plain=True)


@pytest.mark.parametrize(("address", "plain"), [("192.0.2.1:8883", None), ("127.0.0.1:8883", False)])
@pytest.mark.parametrize("login", [None, Login("gateway", "word")])
def test_without_a_certificate_nothing_is_reached_that_has_to_be_encrypted(address, plain, login, tmp_path):
    with pytest.raises(BrokerError) as caught:
        open_broker(address, tmp_path, login, plain)
    remedy = "make certificate and passwords with `thermesh broker config`, or write plain = true in the gateway's file"
    assert f"--broker {address}: off the loopback the wire has to be encrypted; {remedy}" == str(caught.value)


def test_one_that_does_not_speak_tls_is_an_error_that_names_port_and_field(stranger, tmp_path):
    def reply(link):
        link.recv(100)
        link.sendall(b"\x20\x02\x00\x00")

    address = stranger(reply)
    authority = certificates.load_or_make(tmp_path, "hall").certificate_pem
    with pytest.raises(BrokerError) as caught:
        open_broker(address, tmp_path, Login("gateway", "word", authority), plain=False)
    remedy = "name the port of its TLS listener, or write plain = true in the gateway's file"
    assert f"--broker {address}: what answers there does not speak TLS; {remedy}" == str(caught.value)


@pytest.mark.parametrize(("host", "whose"), [("127.0.0.1", "another's"), ("localhost", "ours")])
def test_a_certificate_of_another_authority_or_host_is_an_error_that_says_what_to_run(host, whose, stranger, tmp_path):
    ours, others = (certificates.load_or_make(tmp_path / name, "hall") for name in ("ours", "another's"))
    certificates.write_broker(tmp_path / "broker.pem", ours if whose == "ours" else others, {"127.0.0.1"})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "broker.pem")

    def reply(link):
        with suppress(OSError):
            context.wrap_socket(link, server_side=True).close()

    address = f"{host}:{stranger(reply).split(':')[1]}"
    with pytest.raises(BrokerError, match=r"its certificate is not for us .*; run `thermesh broker config`, and start"):
        open_broker(address, tmp_path, Login("gateway", "word", ours.certificate_pem), plain=False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("foo", f"THERMESH_BROKER foo: {NO_CHOICE}"),
        (
            "127.0.0.1:1",
            "THERMESH_BROKER 127.0.0.1:1: nothing answers there (Connection refused);"
            " start a broker, or unset THERMESH_BROKER",
        ),
    ],
)
def test_a_bad_value_in_the_environment_names_the_variable(word, message, tmp_path, monkeypatch):
    monkeypatch.setenv("THERMESH_BROKER", word)
    with pytest.raises(BrokerError) as caught:
        open_broker("auto", tmp_path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not an MQTT broker"),
        (b"", "what answers there hangs up on MQTT"),
        (b"\x20\x02\x00\x63", "it refuses us with code 99"),
    ],
)
def test_what_is_no_broker_for_us_is_an_error(answer, reason, stranger, tmp_path):
    def reply(link):
        link.recv(100)
        link.sendall(answer)

    address = stranger(reply)
    with pytest.raises(BrokerError) as caught:
        open_broker(address, tmp_path)
    assert str(caught.value) == f"--broker {address}: {reason}; start a broker, or use --broker auto"


@pytest.mark.parametrize(
    ("code", "reason"), [(4, "it wants a user name and password"), (5, "it refuses clients without a user name")]
)
def test_one_that_asks_who_we_are_is_an_error_that_says_how_to_get_names(code, reason, stranger, tmp_path):
    address = stranger(lambda link: link.recv(100) and link.sendall(b"\x20\x02\x00" + bytes((code,))))
    with pytest.raises(BrokerError) as caught:
        open_broker(address, tmp_path)
    remedy = "make user names and passwords with `thermesh broker config`, or use --broker auto"
    assert str(caught.value) == f"--broker {address}: {reason}; {remedy}"


def test_one_that_never_answers_is_given_up(stranger, tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "REACH_S_MAX", 0.3)
    told = threading.Event()
    address = stranger(lambda link: told.wait(WAIT_S_MAX))
    began = time.monotonic()
    with pytest.raises(BrokerError, match=r"nothing answers there within 0\.3 s; start a broker"):
        open_broker(address, tmp_path)
    told.set()
    assert time.monotonic() - began < 3


def test_an_own_broker_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "STOP_S_MAX", 0.3)
    own = open_broker("amqtt", tmp_path)
    os.kill(own.pid, signal.SIGSTOP)  # a stopped process does not take its SIGTERM
    own.close()
    assert not is_running(own.pid)
