"""The report: an owner tells the gateway what its block's units came to. Little-endian, after the header of frame.py.

     8  u32  boot: 32 random bits of this start
    12  u32  seq: counts this boot's reports; (node, boot, seq) names a report for ever
    16  u8   members pooled (low nibble, bit = corner) | members that said they have no reading (high nibble)
    17  u8   exchanges (high nibble) | 1 readings follow | 2 this node holds older reports that nobody acknowledged
             | 4 it heard no beacon of this cycle: no beacon's bit acknowledges this report
    18  u8   members with absence bytes (low nibble)
    19  u8[] absence bytes: one per exchange for each such member, by corner
     -  i16[] readings, ccel: one for each member pooled, by corner          when flagged
     -  u8[] features: the maximum per channel; nothing when no member was pooled

An acknowledgement, to one node on its topic `down/ack`; the beacon's bitmap acknowledges most reports without it:

     0  u8   wire version (high nibble) | 0
     1  u8[3] 0
     4  u32  boot
     8  u32  seq: this report of that start is kept
    12  u32  bit k: report seq - 1 - k is kept, too, or was given up by the node itself
"""

import struct

from protocol.compat import const
from protocol.frame import CHANNELS_MAX, HAS_READING, HEADER_SIZE, REPORT, WIRE_VERSION, i16, kind_of, u16

_BODY = "<IIBBB"
_SIZE = const(19)
_CORNERS = const(4)
# Beside HAS_READING.
HAS_OLDER = const(2)
NO_BEACON = const(4)
# Where boot, seq and flags stand.
_BOOT = const(8)
_SEQ = const(12)
_FLAGS = const(17)
_ACK = "<IIII"
_ACK_SIZE = const(16)
# An acknowledgement speaks of so many reports.
ACK_WINDOW = const(33)


def pack(head: bytes, boot: int, seq: int, block, features) -> bytes:
    """A report on a finished header.

    Args:
        head: the owner's header.
        boot: u32.
        seq: u32.
        block: what was gathered; has `pooled` and `no_reading` (4-bit masks), `exchanges`, `absence` (bytes, corner by
            corner), `readings` (ccel by corner) and `with_readings`.
        features: uint8 per channel; empty when nothing was pooled.
    """
    exchanges = block.exchanges
    with_absence = 0
    tail = b""
    for corner in range(_CORNERS):
        absent = bytes(block.absence[corner * exchanges : (corner + 1) * exchanges])
        if block.pooled >> corner & 1 and any(absent):
            with_absence |= 1 << corner
            tail += absent
    if block.with_readings:
        for corner in range(_CORNERS):
            if block.pooled >> corner & 1:
                tail += struct.pack("<h", block.readings[corner])
    flags = exchanges << 4 | (HAS_READING if block.with_readings else 0)
    masks = block.pooled | block.no_reading << 4
    return head + struct.pack(_BODY, boot, seq, masks, flags, with_absence) + tail + bytes(features)


def marked(data: bytes, mark: int, is_so: bool) -> bytes:
    """The same report with a mark, HAS_OLDER or NO_BEACON, or without it."""
    flags = data[_FLAGS] & ~mark | (mark if is_so else 0)
    return data[:_FLAGS] + bytes((flags,)) + data[_FLAGS + 1 :]


def has_mark(data: bytes, mark: int) -> bool:
    """Whether a report has a mark."""
    return bool(data[_FLAGS] & mark)


class Report:
    """A report taken apart.

    Attributes:
        boot, seq: u32 each.
        pooled, no_reading: 4-bit masks, bit = corner.
        exchanges: how many absence bytes each unit has.
        absence: per corner a tuple of `exchanges` bytes; zeros where the report carried none.
        readings: per corner int16 ccel or None.
        features: uint8 per channel; empty when nothing was pooled.
        has_older: older reports of this start wait for an acknowledgement.
        no_beacon: its node heard no beacon of this cycle, and has to be told of it by name.
    """

    __slots__ = (
        "absence", "boot", "exchanges", "features", "has_older", "no_beacon", "no_reading", "pooled", "readings", "seq"
    )

    def __init__(self, frame) -> None:
        """Raises ValueError for a frame that is no well-formed report."""
        if kind_of(frame) != REPORT or len(frame) < _SIZE:
            raise ValueError("no report frame")
        self.boot, self.seq, masks, flags, with_absence = struct.unpack_from(_BODY, frame, HEADER_SIZE)
        self.pooled, self.no_reading, self.exchanges = masks & 15, masks >> 4, flags >> 4
        self.has_older, self.no_beacon = bool(flags & HAS_OLDER), bool(flags & NO_BEACON)
        at = _SIZE
        none = (0,) * self.exchanges
        self.absence = [none] * _CORNERS
        for corner in _corners(with_absence):
            self.absence[corner] = tuple(frame[at : at + self.exchanges])
            at += self.exchanges
        self.readings: list = [None] * _CORNERS
        if flags & HAS_READING:
            if at + 2 * len(_corners(self.pooled)) > len(frame):
                raise ValueError("report cut short")
            for corner in _corners(self.pooled):
                self.readings[corner] = i16(frame, at)
                at += 2
        self.features = bytes(frame[at:])
        channels = len(self.features)
        if at > len(frame) or channels > CHANNELS_MAX or bool(channels) != bool(self.pooled):
            raise ValueError("report of a wrong length")
        if with_absence & ~self.pooled or self.pooled & self.no_reading:
            raise ValueError("report contradicts itself")


def pack_ack(boot: int, seq: int, missing) -> bytes:
    """An acknowledgement of a report, and of those before it but for the numbers in `missing`."""
    there = 0
    for k in range(ACK_WINDOW - 1):
        before = seq - 1 - k
        if before > 0 and before not in missing:
            there |= 1 << k
    return struct.pack(_ACK, WIRE_VERSION << 4, boot, seq, there)


def is_ack(frame) -> bool:
    """Whether these are the bytes of an acknowledgement."""
    return len(frame) == _ACK_SIZE and frame[0] == WIRE_VERSION << 4


def is_acknowledged(ack, frame) -> bool:
    """Whether an acknowledgement speaks of a report."""
    before = _u32(ack, 8) - _u32(frame, _SEQ)
    if _u32(ack, 4) != _u32(frame, _BOOT) or before < 0 or before >= ACK_WINDOW:
        return False
    if before == 0:
        return True
    before -= 1
    return bool(ack[12 + (before >> 3)] >> (before & 7) & 1)


def _u32(frame, at: int) -> int:
    return u16(frame, at) | u16(frame, at + 2) << 16


def _corners(mask: int) -> list:
    return [corner for corner in range(_CORNERS) if mask >> corner & 1]
