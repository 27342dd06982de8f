"""The packets that are the same on every connection of a node, built once at start (MQTT 3.1.1, clauses 3.1 to 3.8)."""

import struct

from firmware.mqtt import field, packet_of

_CONNECT = 0x10
_SUBSCRIBE = 0x82
_PUBLISH_RETAINED_QOS_1 = 0x33
# Packet identifiers 1 and 2; firmware/mqtt.py counts on from there.
_SUBSCRIBE_ID = b"\x00\x01"
_RETAINED_ID = b"\x00\x02"
# clean session; a will with QoS 1, retained
_CONNECT_FLAGS = 0x2E
_LOGIN_FLAGS = 0xC0


def connect(client_id: str, will_topic: str, keepalive_s: int, login=()) -> bytes:
    """CONNECT; the will says `lost` on the node's state topic. `login`: (user name, password), or nothing."""
    flags = _CONNECT_FLAGS | (_LOGIN_FLAGS if login else 0)
    words = [client_id, will_topic, "lost"] + list(login)
    body = b"\x00\x04MQTT\x04" + struct.pack(">BH", flags, keepalive_s)
    return packet_of(_CONNECT, body + b"".join([field(word.encode()) for word in words]))


def subscribe(topic_filters, waves=()) -> bytes:
    """SUBSCRIBE to topic filters with QoS 0, and to those of waves with QoS 1."""
    asked = [field(topic_filter.encode()) + b"\x00" for topic_filter in topic_filters]
    asked += [field(topic_filter.encode()) + b"\x01" for topic_filter in waves]
    return packet_of(_SUBSCRIBE, _SUBSCRIBE_ID + b"".join(asked))


def retained(topic: str, payload: str) -> bytes:
    """PUBLISH with QoS 1, retained: what a node says of itself."""
    return packet_of(_PUBLISH_RETAINED_QOS_1, field(topic.encode()) + _RETAINED_ID + payload.encode())
