"""The beacon: the gateway opens a cycle. Little-endian.

     0  u8   wire version (high nibble) | kind BEACON (low nibble)
     1  u8   flags: mode (bits 0-1: 0 always, 1 change, 2 event) | 4 reports carry readings | 8 nodes publish their
            health | 16 opens no cycle | 32 nodes say which filters they hold | 64 nodes give proofs, not in mode always
     2  u32  run, larger at each gateway start
     6  u32  cycle
    10  u32  period, ms, 1..178,956,969: the time to the next beacon when all goes well
    14  u16  time for each exchange, ms, 1 or more: exchange k ends k times as long after the node entered the cycle
    16  u16  time for gathering the block, ms, 1 or more, behind the last exchange's
    18  u32  filter version of this cycle
    22  u32  the cycle that the bitmap acknowledges
    26  u8   block rows
    27  u8   block columns
    28  u8[] bitmap, one bit a block in reading order, lowest bit first: its report is stored
     -  u16  the mode's setting, not in mode always. In mode change the threshold, ccel; in mode event copies, how often
            what matters is said: 0 where links lose nothing, more than 4 are 4 (firmware/watch.py)
"""

import struct
from collections import namedtuple

from protocol.compat import const
from protocol.frame import BEACON, WIRE_VERSION, u16

MODE_ALWAYS = const(0)
MODE_CHANGE = const(1)
MODE_EVENT = const(2)
MODE_MASK = const(3)
WANT_READINGS = const(4)
WANT_HEALTH = const(8)
OPENS_NOTHING = const(16)
WANT_FILTERS = const(32)
WANT_PROOF = const(64)

SIZE = const(28)
# 2048 blocks: a site of 90 x 90 nodes. It bounds what a node has to take in at once.
BITMAP_MAX = const(256)
BEACON_MAX = const(286)
# Three periods, after which a node goes on by its own clock, have to fit half the ticks' range (protocol/compat.py).
PERIOD_MS_MAX = const((1 << 29) // 3 - 1)

_FORMAT = "<BBIIIHHIIBB"
# Mode event with copies: exchanges behind the first, in which windows are challenged (firmware/watch.py).
CHALLENGE_EXCHANGES = const(2)
COPIES_MAX = const(4)
_SETTING_SIZE = const(2)


Beacon = namedtuple(
    "Beacon",
    (
        "flags",
        "run",
        "cycle",
        "period_ms",
        "exchange_ms",
        "gather_ms",
        "version",
        "acked_cycle",
        "block_rows",
        "block_cols",
        "setting",
    ),
)
"""A beacon's fields; the bitmap stays in the frame, for `acknowledged`. `setting`: 0 in mode always."""


def pack(beacon: Beacon, bitmap) -> bytes:
    """A beacon in bytes; the bitmap is ceil(block_rows * block_cols / 8) bytes."""
    data = struct.pack(_FORMAT, WIRE_VERSION << 4 | BEACON, *beacon[:-1]) + bytes(bitmap)
    return data + struct.pack("<H", beacon.setting) if beacon.flags & MODE_MASK else data


def unpack(frame):
    """The Beacon in a frame, or None where it is no well-formed one."""
    size = len(frame)
    if size < SIZE or size > BEACON_MAX or frame[0] != WIRE_VERSION << 4 | BEACON:
        return None
    behind = _SETTING_SIZE if frame[1] & MODE_MASK else 0
    setting = u16(frame, size - behind) if behind else 0
    latest = Beacon(*(struct.unpack_from(_FORMAT, frame, 0)[1:] + (setting,)))
    fits = size == SIZE + (latest.block_rows * latest.block_cols + 7) // 8 + behind
    in_range = 0 < latest.period_ms <= PERIOD_MS_MAX and latest.exchange_ms and latest.gather_ms
    return latest if fits and in_range else None


def acknowledged(frame, block_row: int, block_col: int) -> bool:
    """Whether the bitmap of a well-formed beacon holds the block's bit."""
    rows, cols = frame[26], frame[27]
    if block_row >= rows or block_col >= cols:
        return False
    index = block_row * cols + block_col
    return bool(frame[SIZE + (index >> 3)] >> (index & 7) & 1)
