"""The report: an owner tells the gateway what its block's units came to. Little-endian, after the header of frame.py.

     8  u32  boot: 32 random bits of this start
    12  u32  seq: counts this boot's reports; (node, boot, seq) names a report for ever
    16  u8   members pooled (low nibble, bit = corner) | members that said they have no reading (high nibble)
    17  u8   exchanges (high nibble) | 1 readings follow
    18  u8   members with absence bytes (low nibble)
    19  u8[] absence bytes: one per exchange for each such member, by corner
     -  i16[] readings, ccel: one for each member pooled, by corner          when flagged
     -  u8[] features: the maximum per channel; nothing when no member was pooled
"""

import struct

from protocol.compat import const
from protocol.frame import CHANNELS_MAX, HAS_READING, HEADER_SIZE, REPORT, i16, kind_of

_BODY = "<IIBBB"
_SIZE = const(19)
_CORNERS = const(4)


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


class Report:
    """A report taken apart.

    Attributes:
        boot, seq: u32 each.
        pooled, no_reading: 4-bit masks, bit = corner.
        exchanges: how many absence bytes each unit has.
        absence: per corner a tuple of `exchanges` bytes; zeros where the report carried none.
        readings: per corner int16 ccel or None.
        features: uint8 per channel; empty when nothing was pooled.
    """

    __slots__ = ("absence", "boot", "exchanges", "features", "no_reading", "pooled", "readings", "seq")

    def __init__(self, frame) -> None:
        """Raises ValueError for a frame that is no well-formed report."""
        if kind_of(frame) != REPORT or len(frame) < _SIZE:
            raise ValueError("no report frame")
        self.boot, self.seq, masks, flags, with_absence = struct.unpack_from(_BODY, frame, HEADER_SIZE)
        self.pooled, self.no_reading, self.exchanges = masks & 15, masks >> 4, flags >> 4
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


def _corners(mask: int) -> list:
    return [corner for corner in range(_CORNERS) if mask >> corner & 1]
