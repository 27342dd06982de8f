"""Packs the fields of frames.json with the project's own code, on CPython and MicroPython alike."""

from firmware.pool import Block
from firmware.trace import Trace
from protocol import beacon, frame, health, report
from protocol.filter_set import PHASES

HEADER_FIELDS = ("row", "col", "run", "cycle", "version")


def pack(fields):
    """The bytes of a frame or health message; `fields` as tools/rig/reference.py names them."""
    kind = fields["kind"]
    if kind == "beacon":
        return beacon.pack(beacon.Beacon(*[fields[name] for name in BEACON_FIELDS]), bitmap(fields))
    if kind == "health":
        return bytes(counted(fields).counters)
    head = frame.header(frame.KINDS.index(kind), *[fields.get(name, 0) for name in HEADER_FIELDS])
    if kind == "reading":
        return frame.reading(head, fields["reading_ccel"])
    if kind == "value":
        return frame.value(head, fields["reading_ccel"])
    if kind == "state":
        return head + bytes((fields["state"],))
    if kind == "proof":
        return frame.proof(head, fields["state"], fields["reading_ccel"])
    if kind == "challenge":
        words_ccel = fields["words_ccel"]
        there = sum([(words_ccel[place] is not None) << place for place in range(4)])
        return frame.challenge(head, fields["place"], there, [word_ccel or 0 for word_ccel in words_ccel])
    if kind == "activations":
        return frame.activations(head, fields["exchange"], fields["activations"])
    if kind == "member":
        return frame.member(head, fields["absence"], fields["reading_ccel"], fields["activations"])
    if kind == "filters":
        return frame.filters(head, fields["highest"], PHASES.index(fields["phase"]), fields["refused"])
    if kind == "report":
        block = gathered(fields)
        data = report.pack(head, fields["boot"], fields["seq"], block, block.features())
        data = report.marked(data, report.HAS_OLDER, fields.get("has_older", False))
        return report.marked(data, report.NO_BEACON, fields.get("no_beacon", False))
    return head


# MicroPython's namedtuples do not tell their fields.
BEACON_FIELDS = ("flags", "run", "cycle", "period_ms", "exchange_ms", "gather_ms")
BEACON_FIELDS += ("version", "acked_cycle", "block_rows", "block_cols", "setting")


def bitmap(fields):
    """One bit a block, as the gateway sets them."""
    bits = bytearray((fields["block_rows"] * fields["block_cols"] + 7) // 8)
    for row, col in fields["acknowledged"]:
        index = row * fields["block_cols"] + col
        bits[index >> 3] |= 1 << (index & 7)
    return bits


def gathered(fields):
    """The Block that an owner has when it reports."""
    members = fields["members"]
    channels = [len(member["activations"]) for member in members if isinstance(member, dict)]
    block = Block(channels[0] if channels else 1, fields["exchanges"])
    for corner in range(4):
        member = members[corner]
        if member == "no_reading":
            block.no_reading |= 1 << corner
        elif member:
            block.put(corner, member["activations"], member["absence"], member["reading_ccel"])
    return block


def counted(fields):
    """The Trace of a node that counted so."""
    trace = Trace()
    starts = {
        "sent": health.SENT,
        "sent_bytes": health.SENT_BYTES,
        "taken": health.TAKEN,
        "taken_bytes": health.TAKEN_BYTES,
        "mqtt": health.MQTT_PACKETS_IN,
    }
    for name, start in starts.items():
        for place, amount in enumerate(fields[name]):
            trace.add(start + place, amount)
    for name, amount in fields["faults"].items():
        trace.add(getattr(health, name.upper()), amount)
    return trace
