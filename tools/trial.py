"""What trials on real processes share: waiting, a broker that answers, and a connection that hears what is said."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.broker import LOOPBACK, connect
from gateway.passwords import Login

START_S_MAX = 180.0
_SAY_EVERY = 20
_LOOK_S = 0.01
# After a broker that was killed a listener is there as early as the nodes.
_RETRY_S = 1


class TrialError(RuntimeError):
    """The trial cannot be run here, or what it runs did not come up or back; one line."""


class Progress:
    """Prints what is done, with the seconds since the start."""

    def __init__(self, say: bool = True) -> None:
        """`say`: False prints nothing."""
        self._say = say
        self._begin_s = time.monotonic()

    def __call__(self, what: str) -> None:
        """Print it."""
        if self._say:
            print(f"{time.monotonic() - self._begin_s:6.0f} s  {what}", flush=True)

    def count(self, what: str, number: int, total: int) -> None:
        """Print some of many alike."""
        if number % _SAY_EVERY == 0 or number == total:
            self(f"{what}: {number} of {total}")


class Listener:
    """A connection of its own, which hands on what others say, from a thread of its own.

    Attributes:
        ready: names of the nodes that were ready once, where their states are heard.
    """

    def __init__(self, port: int, heard: list[str], note: Callable[[str, bytes], None], login: Login | None = None):
        """Connected.

        Args:
            port: of a broker on the loopback, without TLS.
            heard: topic filters.
            note: called with each message, its name and its payload, but for words of readiness.
            login: where the broker asks for a password.
        """
        self.ready: set[str] = set()
        self._note = note
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(login.user, login.password)
        self._client.on_connect = lambda client, *_: client.subscribe([(name, 0) for name in heard])
        self._client.on_message = lambda _client, _data, message: self._hear(message.topic, bytes(message.payload))
        self._client.reconnect_delay_set(_RETRY_S, _RETRY_S)
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def wait_ready(self, count: int) -> None:
        """Wait until so many nodes were ready.

        Raises:
            TrialError: they were not in time.
        """
        wait(lambda: len(self.ready) >= count, lambda: f"{count} nodes are ready, not {len(self.ready)}", START_S_MAX)

    def _hear(self, name: str, payload: bytes) -> None:
        if payload == b"ready":
            self.ready.add(name)
        else:
            self._note(name, payload)


def wait(is_done: Callable[[], Any], what: str | Callable[[], str], s_max: float) -> None:
    """Wait until something holds; `what`: in words, or what gives them once the time is over.

    Raises:
        TrialError: it does not in time.
    """
    deadline = time.monotonic() + s_max
    while not is_done():
        if time.monotonic() > deadline:
            raise TrialError(f"waited {s_max:g} s in vain: {what() if callable(what) else what}")
        time.sleep(_LOOK_S)


def wait_broker(broker: "subprocess.Popen[Any]", port: int, login: Login | None = None) -> None:
    """Wait until a broker that was just started answers on the loopback, without TLS.

    Raises:
        TrialError: it ended, or does not answer in time.
    """

    def answers() -> bool:
        if broker.poll() is not None:
            raise TrialError(f"the broker ended with code {broker.returncode}; are {port} and the ports above it free?")
        try:
            return connect(LOOPBACK, port, 1.0, login) == 0
        except (OSError, ValueError):
            return False

    wait(answers, "the broker answers", START_S_MAX)
