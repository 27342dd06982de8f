"""The broker between nodes and gateway: started as a child of this process, or one that already runs.

An own broker listens on a free loopback port, the same one at the next start in the same folder, keeps nothing on disk
but that, its configuration and its log, and ends with this process. It counts as ready when its log says that it runs,
which proves that the port is its own, and when a real CONNECT is answered.
"""

import ctypes
import errno
import json
import logging
import os
import pwd
import re
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from gateway.certificates import tls_context
from gateway.files import write_private
from gateway.passwords import GATEWAY, Login, write_hashed

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
LOOPBACKS = (LOOPBACK, "::1", "localhost")
REACH_S_MAX = 5.0
START_S_MAX = 20.0
STOP_S_MAX = 3.0
# Below the ports that Linux (32768), macOS and Windows give to outgoing connections: one of those would be taken from a
# broker while it is away, and its nodes know no other.
PORTS = range(16_384, 32_768)
# Another program may take the free port before the broker does.
STARTS_MAX = 3
# 425 nodes, gateway and tools with room to spare; more would only cost a broker that closes every number at start.
FILES_MAX = 65_536
# 425 nodes send about 3,600 messages an exchange: a subscriber may stall for several without a loss.
QUEUE_LEN_MAX = 20_000
SBIN = ("/usr/sbin", "/usr/local/sbin")

_PR_SET_PDEATHSIG = 1
_RUNNING = re.compile(r"(mosquitto|amqtt) version (\S+) running")
# What a user name and a password are for.
_WANTS_LOGIN = (4, 5)
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it refuses our client id",
    3: "it is unavailable",
    4: "it wants a user name and password",
    5: "it refuses clients without a user name",
}

MOSQUITTO_CONFIG = """\
listener {port} {host}
max_connections -1
{asks}{user}persistence false
max_queued_messages {queue_len_max}
set_tcp_nodelay true
sys_interval 1
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
"""
MOSQUITTO_ASKS = """\
use_username_as_clientid true
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
"""


class Guests(NamedTuple):
    """Whom an own broker lets in.

    Attributes:
        passwords: by user name, the gateway's among them.
        rights: mosquitto's `acl_file`; amqtt does not look at it.
    """

    passwords: Mapping[str, str]
    rights: str

    @property
    def gateway(self) -> Login:
        """What we tell it."""
        return Login(GATEWAY, self.passwords[GATEWAY])


class BrokerError(ValueError):
    """No broker by that choice; one line names what was asked and the remedy."""


class Choice(NamedTuple):
    """What was asked, and by which name errors call it: ("--broker", "auto")."""

    source: str
    word: str

    def error(self, sentence: str) -> BrokerError:
        """The error that begins with what was asked, on one line whatever was typed."""
        word = "".join(letter if letter.isprintable() else "?" for letter in self.word[:80])
        return BrokerError(f"{self.source} {word}: {sentence}")

    @property
    def remedy(self) -> str:
        """How to get a broker without this choice."""
        return "use --broker auto" if self.source == "--broker" else f"unset {self.source}"


@dataclass
class Own:
    """A broker that is a child of this process: what it was started with, where its words go, whom it lets in."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes]
    guests: Guests | None


class Broker:
    """A broker that answers; a context manager that closes an own one.

    Attributes:
        host: name or address, IPv6 without brackets.
        port: TCP port, 1..65535.
        name: for people: "mosquitto 2.0.11", "amqtt 0.12.1", "127.0.0.1:1884".
        login: what it is told, by TLS where it names an authority; None: it asks nobody.
        passwords: by user name, of all that an own one lets in; empty: it asks nobody, or it is no own one.
        own: it is a child of this process and ends with it.
        pid: of the own broker, else None.
    """

    def __init__(self, host: str, port: int, name: str, own: "Own | None" = None, login: Login | None = None) -> None:
        self.host = host
        self.port = port
        self.name = name
        self.login = login
        self.passwords = own.guests.passwords if own and own.guests else {}
        self._own = own

    @property
    def own(self) -> bool:
        """Whether this process started it."""
        return self._own is not None

    @property
    def encryption(self) -> str:
        """How we reach it: "certificate", by TLS, or "none"."""
        return "certificate" if self.login and self.login.authority else "none"

    @property
    def pid(self) -> int | None:
        """Process id of an own broker."""
        return self._own.process.pid if self._own else None

    def keep_alive(self) -> None:
        """Start an own broker anew, on its port, if it ended by itself; from the thread that opened it."""
        if self._own and self._own.process.poll() is not None:
            log.error("%s ended with code %d and is started again", self.name, self._own.process.returncode)
            try:
                self._own.process = _spawn(self._own.command, self._own.log)
            except OSError as error:
                log.error("%s cannot be started: %s", self.name, error)

    def close(self) -> None:
        """End an own broker within 2 x 3 s; leaves any other alone; a second call does nothing."""
        if self._own:
            _end(self._own.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_broker(
    choice: str, folder: Path, login: Login | None = None, plain: bool | None = None, guests: Guests | None = None
) -> Broker:
    """Start the chosen broker or reach it, and return it once it answers.

    On Linux an own broker is ended when the thread that called this ends, however it ends; elsewhere only `close`
    ends it. Call it from a thread that lives as long as the broker is needed, best before other threads start.

    Args:
        choice: "auto", "mosquitto", "amqtt" or "HOST:PORT" (IPv6 in brackets). "auto" is what THERMESH_BROKER says,
            else mosquitto where it is installed, else amqtt.
        folder: where an own broker's configuration and log go; made when it is missing.
        login: what one that already runs is told; None: nothing.
        plain: reach one that already runs without TLS; None: if it is on the loopback.
        guests: whom an own one lets in; None: everybody.

    Raises:
        BrokerError: the choice is none of these, nothing answers there within 5 s, or the broker does not start
            within 20 s.
    """
    asked = _asked(choice)
    if not is_own(choice):
        return _reach(asked, login, plain)
    word = asked.word
    if word == "auto":
        word = "mosquitto" if find_mosquitto() else "amqtt"
    return _start(word, asked, folder, guests)


def is_own(choice: str) -> bool:
    """Whether a choice is an own broker, not one that already runs."""
    return _asked(choice).word in ("auto", "mosquitto", "amqtt")


def _asked(choice: str) -> Choice:
    if choice == "auto" and os.environ.get("THERMESH_BROKER"):
        return Choice("THERMESH_BROKER", os.environ["THERMESH_BROKER"])
    return Choice("--broker", choice)


def find_mosquitto() -> str | None:
    """Path of the mosquitto program, also where Debian puts it and a plain user's PATH does not look."""
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN)))


def parse_address(asked: Choice) -> tuple[str, int]:
    """Split HOST:PORT; ("--broker", "[::1]:1883") -> ("::1", 1883).

    Raises:
        BrokerError: it is not HOST:PORT, or the port is not in 1..65535.
    """
    host, colon, port = asked.word.rpartition(":")
    in_brackets = re.fullmatch(r"\[([0-9A-Fa-f:.%\w]+)\]", host)
    if not colon or not (in_brackets or re.fullmatch(r"[\w.:-]+", host)):
        raise asked.error("is not auto, mosquitto, amqtt or HOST:PORT")
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise asked.error(f"port {port[:20]!r} is not in 1..65535")
    if in_brackets:
        return in_brackets[1], int(port)
    if ":" in host:
        raise asked.error(f"an IPv6 address stands in brackets: [{host}]:{port}")
    return host, int(port)


def free_port() -> int:
    """One of `PORTS` on which nothing listens on the loopback."""
    while True:
        port = secrets.choice(PORTS)
        try:
            socket.create_server((LOOPBACK, port)).close()
            return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def user_line() -> str:
    """What keeps mosquitto the user that starts it.

    As root it would become the user "mosquitto", whom folders of mode 0700 keep out; others ignore the line.
    """
    return f"user {pwd.getpwuid(0).pw_name}\n" if os.geteuid() == 0 else ""


def _reach(asked: Choice, login: Login | None, plain: bool | None) -> Broker:
    host, port = parse_address(asked)
    if plain if plain is not None else host in LOOPBACKS:
        login = login and login._replace(authority="")
    elif not login or not login.authority:
        remedy = "make certificate and passwords with `thermesh broker config`, or write plain = true"
        raise asked.error(f"off the loopback the wire has to be encrypted; {remedy} in the gateway's file")
    remedy = f"start a broker, or {asked.remedy}"
    try:
        code = connect(host, port, REACH_S_MAX, login)
    except TimeoutError:
        raise asked.error(f"nothing answers there within {REACH_S_MAX:g} s; {remedy}") from None
    except socket.gaierror as error:
        raise asked.error(f"no such host ({error.strerror}); {remedy}") from None
    except ssl.SSLCertVerificationError as error:
        remedy = "run `thermesh broker config`, and start the broker with what it writes"
        raise asked.error(f"its certificate is not for us ({error.verify_message}); {remedy}") from None
    except ssl.SSLError:
        remedy = "name the port of its TLS listener, or write plain = true in the gateway's file"
        raise asked.error(f"what answers there does not speak TLS; {remedy}") from None
    except ValueError as error:
        raise asked.error(f"{error}; {remedy}") from None
    except OSError as error:
        raise asked.error(f"nothing answers there ({error.strerror or error}); {remedy}") from None
    if code in _WANTS_LOGIN and login:
        remedy = f"start it anew with what `thermesh broker config` writes, or {asked.remedy}"
        raise asked.error(f"it refuses user {login.user} with the password in the state folder; {remedy}")
    if code in _WANTS_LOGIN:
        remedy = f"make user names and passwords with `thermesh broker config`, or {asked.remedy}"
    if code:
        raise asked.error(f"{_REFUSALS.get(code, f'it refuses us with code {code}')}; {remedy}")
    return Broker(host, port, asked.word, login=login)


def connect(host: str, port: int, timeout_s: float, login: Login | None = None) -> int:
    """Introduce ourselves to the broker and leave again.

    Args:
        host, port: of the broker.
        timeout_s: for all of it.
        login: user name and password, 94 characters together at most; None: neither. By TLS where it names an
            authority.

    Returns:
        The code of its CONNACK: 0 accepted, 1..5 refused (MQTT 3.1.1, table 3.1).

    Raises:
        TimeoutError: no answer in time.
        OSError: no connection.
        ValueError: what answers is no MQTT broker.
    """
    deadline = time.monotonic() + timeout_s
    words = [f"thermesh-{secrets.token_hex(4)}", *(login[:2] if login else ())]
    body = b"\x00\x04MQTT\x04" + (b"\xc2" if login else b"\x02") + b"\x00\x05"
    body += b"".join(len(word).to_bytes(2, "big") + word.encode() for word in words)
    answer = b""
    with _connection(host, port, timeout_s, login.authority if login else "") as link:
        link.sendall(bytes((0x10, len(body))) + body)
        while len(answer) < 4:
            link.settimeout(max(deadline - time.monotonic(), 0.001))
            part = link.recv(4 - len(answer))
            if not part:
                raise ValueError("what answers there hangs up on MQTT")
            answer += part
        if answer[:2] != b"\x20\x02":
            raise ValueError("what answers there is not an MQTT broker")
        link.sendall(b"\xe0\x00")
    return answer[3]


def _connection(host: str, port: int, timeout_s: float, authority: str) -> socket.socket:
    raw = socket.create_connection((host, port), timeout_s)
    if not authority:
        return raw
    try:
        return tls_context(authority).wrap_socket(raw, server_hostname=host)
    except ConnectionError as error:  # somebody is there and hangs up on TLS
        raw.close()
        raise ssl.SSLError(str(error)) from None
    except BaseException:
        raw.close()
        raise


def _start(program: str, asked: Choice, folder: Path, guests: Guests | None) -> Broker:
    """Try the port of the last start, which nodes know, then free ones: only "already in use" is worth another try."""
    remembered = folder / "port"
    for start in range(STARTS_MAX):
        port = (_read_port(remembered) if start == 0 else 0) or free_port()
        try:
            words = _prepare_log(folder)
            command = _command(program, port, asked, folder, guests)
            process = _spawn(command, words)
        except OSError as error:
            raise asked.error(f"{program} cannot be started: {error}") from error
        try:
            login = guests.gateway if guests else None
            name = _wait(process, words, port, login)
            if name:
                remembered.write_text(f"{port}\n")
                return Broker(LOOPBACK, port, name, Own(command, words, process, guests), login)
        except BaseException:
            _end(process)
            raise
        code, line = process.poll(), _last_line(words)
        _end(process)
        if "in use" not in line:
            break
    state = f"does not answer within {START_S_MAX:g} s" if code is None else f"ended with code {code}"
    raise asked.error(f"{program} {state}: {line}")


def _read_port(file: Path) -> int:
    """The port that was written there, 0 where none was."""
    text = file.read_text(encoding="utf-8", errors="replace").strip() if file.exists() else ""
    return int(text) if re.fullmatch("[1-9][0-9]{0,4}", text) and int(text) <= 65535 else 0


def _prepare_log(folder: Path) -> Path:
    """An empty log: an earlier broker's words must not count as this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "broker.log"
    log.write_bytes(b"")
    return log


def _command(program: str, port: int, asked: Choice, folder: Path, guests: Guests | None) -> list[str]:
    if program == "amqtt":
        # -P: neither this package's folder nor the working folder may shadow a module of the standard library.
        command = [sys.executable, "-P", str(Path(__file__).with_name("amqtt_broker.py")), str(port)]
        if guests:
            write_private(folder / "amqtt.json", json.dumps(dict(guests.passwords)).encode())
            command.append(str(folder / "amqtt.json"))
        return command
    mosquitto = find_mosquitto()
    if mosquitto is None:
        raise asked.error(f"mosquitto is not on PATH, in {' or '.join(SBIN)}; install it, or use --broker amqtt")
    config, asks = folder / "mosquitto.conf", "allow_anonymous true\n"
    if guests:
        write_hashed(folder / "passwords", guests.passwords)
        (folder / "acl").write_text(guests.rights, encoding="utf-8")
        asks = MOSQUITTO_ASKS.format(folder=folder.resolve())
    text = MOSQUITTO_CONFIG.format(port=port, host=LOOPBACK, asks=asks, user=user_line(), queue_len_max=QUEUE_LEN_MAX)
    config.write_text(text, encoding="utf-8")
    return [mosquitto, "-c", str(config)]


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the child in its own session, so that the terminal's Ctrl-C reaches only us."""
    with log.open("ab") as words:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
            preexec_fn=_child_setup(),
        )


def _child_setup() -> Callable[[], None]:
    """What the child does before it becomes the broker: room for 425+ sockets, and to end when we end.

    Everything is looked up here: between fork and exec only system calls are safe.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    limits = (wanted if soft == resource.RLIM_INFINITY else max(soft, wanted), hard)

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it ended before the line above
                os._exit(1)

    return prepare


def _wait(process: subprocess.Popen[bytes], log: Path, port: int, login: Login | None) -> str:
    """The broker's name and version once it answers; "" when it ended or the time is over."""
    deadline = time.monotonic() + START_S_MAX
    while process.poll() is None and time.monotonic() < deadline:
        running = _RUNNING.search(log.read_text(encoding="utf-8", errors="replace"))
        if running and _answers(port, login):
            return f"{running[1]} {running[2]}"
        time.sleep(0.02)
    return ""


def _answers(port: int, login: Login | None = None) -> bool:
    try:
        return connect(LOOPBACK, port, 1.0, login) == 0
    except (OSError, ValueError):
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "its log is empty")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S_MAX)
