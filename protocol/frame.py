"""Frames between nodes, and the header that every node's frame carries. Little-endian throughout.

    header       0  u8   wire version (high nibble) | kind (low nibble)
                 1  u8   row of the sender
                 2  u8   column of the sender
                 3  u8   run, low byte
                 4  u16  cycle, low half
                 6  u16  the sender's filter version, low half
    READING      8  i16  reading, ccel
    NO_READING           nothing more: this sensor gives nothing this cycle, do not wait for me
    ACTIVATIONS  8  u8   the exchange that takes them in, 1..3
                 9  u8[] one activation per channel, 1..16
    MEMBER       8  u8   flags: exchanges (high nibble) | 2 absence follows | 1 reading follows
                 -  u8[] absence bytes, one per exchange                        when flagged
                 -  i16  reading, ccel                                          when flagged
                 -  u8[] last activations, one per channel, 1..16
    FILTERS      8  u32  highest filter version this node ever held
                 12 u8   phase of its filters (protocol/filter_set.py)
                 13 u8   filter sets it refused since its start, modulo 256
    VALUE        6  i16  mode event: a reading, ccel, in the place of the version: the view knows no version
    STATE        8  u8   mode event: this node's state, 0 or 1, or 2: it has no reading
    REFRESH              nothing more: mode event: neighbours, repeat your last words
    PROOF        8  u8   mode event, when the beacon asks: the state as above,
                 9  i16  and this cycle's reading, ccel; 0 where there is none
    CHALLENGE    6  u8   mode event, in the version's place: which of C E S SE of a window have a reading (bits 0-3) |
                         the sender's own place among them (bits 4-5)
                 7  i16[4] what the sender takes for their last words, ccel; 0 where there is none

An *exchange* is a conv3x3 layer: the only ones that read a halo. Bit `slot` of its absence byte: that neighbour stands
in the site's table, yet this unit computed with its own value in its place.
Beacon and report have files of their own; docs/protocol.md explains all of them.
"""

import struct

from protocol.compat import const

WIRE_VERSION = const(1)

BEACON = const(1)
READING = const(2)
NO_READING = const(3)
ACTIVATIONS = const(4)
MEMBER = const(5)
REPORT = const(6)
FILTERS = const(7)
VALUE = const(8)
STATE = const(9)
REFRESH = const(10)
PROOF = const(11)
CHALLENGE = const(12)
KINDS = (
    "none",
    "beacon",
    "reading",
    "no_reading",
    "activations",
    "member",
    "report",
    "filters",
    "value",
    "state",
    "refresh",
    "proof",
    "challenge",
)
# A node's state where it has no reading.
STATE_NONE = const(2)

HEADER_SIZE = const(8)
CHANNELS_MAX = const(16)
EXCHANGES_MAX = const(4)
# The payload that fits one 802.15.4 frame beside 21 bytes of overhead is 112 bytes; the longest report stays below.
NODE_FRAME_MAX = const(112)

# Where the reading of a VALUE frame stands, and the parts of a CHALLENGE.
VALUE_READING = const(6)
CHALLENGE_MEMBERS = const(6)
CHALLENGE_READINGS = const(7)
# What lies below the sender's place in the byte of members.
CHALLENGE_PLACE = const(4)

HAS_READING = const(1)
HAS_ABSENCE = const(2)

_HEADER = "<BBBBHH"
# By kind: the length of a frame that has but one.
_SIZES = b"\0\0\x0a\x08\0\0\0\x0e\x08\x09\x08\x0b\x0f"


def kind_of(frame) -> int:
    """The kind of a frame whose length fits its kind, or 0: too short, other wire version, unknown, wrong length."""
    size = len(frame)
    if size < HEADER_SIZE or frame[0] >> 4 != WIRE_VERSION:
        return 0
    kind = frame[0] & 0x0F
    if kind == ACTIVATIONS:
        fits = HEADER_SIZE + 2 <= size <= HEADER_SIZE + 1 + CHANNELS_MAX
    elif kind == MEMBER:
        fits = size > HEADER_SIZE and 1 <= size - member_activations(frame) <= CHANNELS_MAX
    elif kind == BEACON:  # its own module looks closer, as that of a report
        fits = True
    elif kind == REPORT:
        fits = size <= NODE_FRAME_MAX
    else:
        fits = kind < len(_SIZES) and size == _SIZES[kind]
    return kind if fits else 0


def u16(frame, at: int) -> int:
    """The unsigned 16-bit number at an offset, without allocating."""
    return frame[at] | frame[at + 1] << 8


def i16(frame, at: int) -> int:
    """The signed 16-bit number at an offset, without allocating."""
    value = frame[at] | frame[at + 1] << 8
    return value - 65536 if value & 0x8000 else value


def row_of(frame) -> int:
    """Row of the sender."""
    return frame[1]


def col_of(frame) -> int:
    """Column of the sender."""
    return frame[2]


def run_of(frame) -> int:
    """Low byte of the run."""
    return frame[3]


def cycle_of(frame, near: int) -> int:
    """The whole cycle number: the one nearest to `near` that has the frame's low half; (5 of frame, 65535) -> 65541."""
    away = (u16(frame, 4) - near) & 0xFFFF
    return near + (away - 65536 if away & 0x8000 else away)


def version_of(frame) -> int:
    """Low half of the sender's filter version."""
    return u16(frame, 6)


def header(kind: int, row: int, col: int, run: int, cycle: int, version: int) -> bytes:
    """The eight bytes that open every node's frame; run, cycle and version may be whole and are cut to size."""
    first = WIRE_VERSION << 4 | kind
    return struct.pack(_HEADER, first, row, col, run & 0xFF, cycle & 0xFFFF, version & 0xFFFF)


def reading(head: bytes, reading_ccel: int) -> bytes:
    """A READING frame on a finished header."""
    return head + struct.pack("<h", reading_ccel)


def activations(head: bytes, exchange: int, values) -> bytes:
    """An ACTIVATIONS frame for an exchange on a finished header."""
    return head + bytes((exchange,)) + bytes(values)


def member(head: bytes, absence, reading_ccel, values) -> bytes:
    """A MEMBER frame on a finished header.

    Args:
        head: the header.
        absence: one byte per exchange; sent only where one is not zero.
        reading_ccel: the reading to carry along, or None.
        values: the last activations, uint8 per channel.
    """
    absent = bytes(absence) if any(absence) else b""
    flags = len(absence) << 4
    if absent:
        flags |= HAS_ABSENCE
    if reading_ccel is None:
        return head + bytes((flags,)) + absent + bytes(values)
    return head + bytes((flags | HAS_READING,)) + absent + struct.pack("<h", reading_ccel) + bytes(values)


def filters(head: bytes, highest: int, phase: int, refused: int) -> bytes:
    """A FILTERS frame on a finished header, whose version is the active set's."""
    return head + struct.pack("<IBB", highest, phase, refused & 0xFF)


def value(head: bytes, reading_ccel: int) -> bytes:
    """A VALUE frame on a finished header, whose version it does not carry."""
    return head[:VALUE_READING] + struct.pack("<h", reading_ccel)


def challenge(head: bytes, place: int, there: int, readings_ccel) -> bytes:
    """A CHALLENGE frame on a finished header, whose version it does not carry.

    Args:
        head: the header.
        place: the sender's, 0..3 for C E S SE.
        there: bits of the places whose last word is a reading.
        readings_ccel: four of them, in the order of places.
    """
    return head[:CHALLENGE_MEMBERS] + struct.pack("<B4h", place << CHALLENGE_PLACE | there, *readings_ccel)


def proof(head: bytes, state: int, reading_ccel: int) -> bytes:
    """A PROOF frame on a finished header."""
    return head + struct.pack("<Bh", state, reading_ccel)


def highest_of(frame) -> int:
    """The highest filter version that the sender of a FILTERS frame ever held, u32."""
    return u16(frame, HEADER_SIZE) | u16(frame, HEADER_SIZE + 2) << 16


def phase_of(frame) -> int:
    """The phase of the filters of a FILTERS frame's sender."""
    return frame[HEADER_SIZE + 4]


def refused_of(frame) -> int:
    """How many filter sets the sender of a FILTERS frame refused, modulo 256."""
    return frame[HEADER_SIZE + 5]


def member_reading(frame) -> int:
    """Offset of a MEMBER frame's reading; it is there only where the flag HAS_READING is set."""
    flags = frame[HEADER_SIZE]
    return HEADER_SIZE + 1 + (flags >> 4 if flags & HAS_ABSENCE else 0)


def member_activations(frame) -> int:
    """Offset of a MEMBER frame's activations; they run to its end."""
    return member_reading(frame) + (2 if frame[HEADER_SIZE] & HAS_READING else 0)
