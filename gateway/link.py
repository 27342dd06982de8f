"""The gateway's connection to the broker: paho-mqtt in a thread of its own, messages handed over through a queue."""

import logging
import time
from typing import TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.certificates import tls_context
from gateway.fair_queue import FairQueue
from gateway.gateway import ABOUT_SIZE_MAX
from gateway.passwords import Login
from gateway.site import Cell, Site
from protocol import topic
from protocol.grid import node_name, parse_node_name

KEEPALIVE_S = 30
CONNECT_S_MAX = 10.0
# One gateway knocks at its broker as often as this without a burden; paho would wait longer and longer, up to 120 s.
RECONNECT_S = 1
# Nothing that a node says is longer, nor what it says it on; the queue may be full of what is not from nodes.
PAYLOAD_MAX = ABOUT_SIZE_MAX
TOPIC_MAX = 128
# A whole lounge's cycle is 117 reports; a queue that is longer than this holds nothing that is still worth deciding.
QUEUE_LEN_MAX = 100_000
# Of one node: more than it can need in the time that a gateway may stand still (gateway/quarantine.py).
NODE_QUEUE_LEN_MAX = 10_000
log = logging.getLogger(__name__)

# A topic filter takes 60 bytes; brokers limit the size of a packet (tools/broker_config.py).
_FILTERS_MAX = 100
Item = TypeVar("Item")

_LEAVES = ("up", "state", "about", "health")
# What a broker keeps of a node.
RETAINED = ("state", "about", "wave")


def heard_topics(site_name: str) -> list[str]:
    """What a gateway listens to, as topic filters."""
    return [topic.of_nodes(site_name, leaf) for leaf in _LEAVES]


def said_topics(site_name: str) -> list[str]:
    """Where a gateway publishes, as topic filters: beacon, filter set, what is for one node alone, what it clears."""
    own = [topic.cycle(site_name), topic.wave(site_name), topic.of_nodes(site_name, topic.DOWN)]
    return own + [topic.of_nodes(site_name, leaf) for leaf in RETAINED]


class LinkError(ValueError):
    """The broker cannot be reached; one line that names it."""


class Link:
    """One connection, kept up by paho; a context manager.

    Attributes:
        dropped: messages that found their node's line, or the whole queue, full.
    """

    def __init__(self, host: str, port: int, site_name: str, login: Login | None = None):
        """Connect and subscribe.

        Args:
            host, port: of the broker.
            site_name: whose nodes.
            login: what the broker is told, by TLS where it names an authority; None: it asks for nothing.

        Raises:
            LinkError: no connection within 10 s.
        """
        self.dropped = 0
        self._messages: FairQueue[tuple[str, bytes]] = FairQueue(NODE_QUEUE_LEN_MAX, QUEUE_LEN_MAX)
        self._site_name = site_name
        self._nodes = topic.nodes(site_name)
        self._cycle_topic = topic.cycle(site_name)
        self._wave_topic = topic.wave(site_name)
        self._wave = b""
        self._filters = [(heard, 0) for heard in heard_topics(site_name)]
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{site_name}-gateway", protocol=paho.MQTTv311
        )
        if login:
            self._client.username_pw_set(login.user, login.password)
        if login and login.authority:
            self._client.tls_set_context(tls_context(login.authority))
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(RECONNECT_S, RECONNECT_S)
        self._client.max_queued_messages_set(QUEUE_LEN_MAX)
        try:
            self._client.connect(host, port, KEEPALIVE_S)
        except OSError as error:
            raise LinkError(f"broker {host}:{port}: {error.strerror or error}") from None
        self._client.loop_start()
        deadline = time.monotonic() + CONNECT_S_MAX
        while not self._client.is_connected():
            if time.monotonic() > deadline:
                self.close()
                raise LinkError(f"broker {host}:{port}: does not accept us within {CONNECT_S_MAX:g} s")
            time.sleep(0.01)

    def publish_beacon(self, data: bytes) -> None:
        """Send a beacon: QoS 0, not retained."""
        self._client.publish(self._cycle_topic, data)

    def publish_acknowledgement(self, cell: Cell, data: bytes) -> None:
        """Tell one node which of its reports are kept: QoS 0, not retained."""
        self._client.publish(topic.of_node(self._site_name, *cell, topic.ACK), data)

    def publish_wave(self, data: bytes) -> None:
        """Hand a signed filter set to the nodes next to the gateway: QoS 1, retained, again on each new connection."""
        self._wave = data
        self._client.publish(self._wave_topic, data, qos=1, retain=True)

    def clear_retained(self, names: list[str]) -> None:
        """Take retained messages off the broker, and wait: nothing of ours stays behind on somebody else's."""
        sent = [self._client.publish(name, b"", qos=1, retain=True) for name in names]
        deadline = time.monotonic() + CONNECT_S_MAX
        for message in sent:
            message.wait_for_publish(max(deadline - time.monotonic(), 0.001))

    def clear_node(self, row: int, col: int) -> None:
        """Take what a node left behind off the broker, without waiting for it."""
        for leaf in RETAINED:
            self._client.publish(topic.of_node(self._site_name, row, col, leaf), b"", qos=1, retain=True)

    def leave_out(self, nodes: set[str], site: Site) -> None:
        """Have the broker hand on what all nodes of the site say but these; without any, what everybody says.

        Whoever does not want to read a flood must not be sent it: it would stand before the others' words.
        """
        before, self._filters = self._filters, [(name, 0) for name in heard_topics(self._site_name)]
        if nodes:
            others = [name for name in (node_name(*cell) for cell in site.cells) if name not in nodes]
            self._filters = [(f"{self._nodes}{name}/{leaf}", 0) for name in others for leaf in _LEAVES]
        for part in _parts(sorted({name for name, _ in before} - {name for name, _ in self._filters})):
            self._client.unsubscribe(part)
        self._subscribe()

    def _subscribe(self) -> None:
        for part in _parts(self._filters):
            self._client.subscribe(part)

    def next_message(self, timeout_s: float) -> tuple[str, bytes] | None:
        """The next (topic, payload), or None when none came in time."""
        return self._messages.get(timeout_s)

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_connect(self, client: paho.Client, _data: object, _flags: object, reason: object, _props: object) -> None:
        if reason == 0:  # on every connect: a broker forgets the subscriptions of a clean session
            self._subscribe()
            if self._wave:  # the broker may have lost it
                client.publish(self._wave_topic, self._wave, qos=1, retain=True)
        else:
            log.warning("the broker refuses us: %s", reason)

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, reason: object, _props: object
    ) -> None:
        if reason != 0:
            log.warning("the connection to the broker is lost (%s), trying again", reason)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            name = message.topic
        except UnicodeDecodeError:  # nobody's: the gateway counts it with those of strangers
            name = ""
        if len(name) > TOPIC_MAX:
            name = ""
        # One byte more than any is malformed to every decoder.
        if not self._messages.put(self._sender(name), (name, bytes(message.payload[: PAYLOAD_MAX + 1]))):
            self.dropped += 1

    def _sender(self, name: str) -> str:
        """The node that a topic belongs to; all that are none share a line."""
        node = name.removeprefix(self._nodes).partition("/")[0]
        try:
            parse_node_name(node)
        except ValueError:
            return ""
        return node


def _parts(filters: list[Item]) -> list[list[Item]]:
    """Topic filters in packets of a size that every broker takes."""
    return [filters[start : start + _FILTERS_MAX] for start in range(0, len(filters), _FILTERS_MAX)]
