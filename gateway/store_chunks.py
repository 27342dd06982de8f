"""Chunks: stored cycles in a row as the bytes that the store keeps of them once they are old. Little-endian.

     0  u8    128: no cycle that stands alone begins like this
     1  u8    count of cycles
     2  u8[5] version, rows, cols, channels, exchanges: the same for all (gateway/store_blobs.py)
     7  -     zlib: late u32 [count]; then each byte of a cycle's parts, all cycles' one after the other: of readings
                    the differences to the cycle before - the first cycle's to the cell before -, zigzag, all low bytes,
                    then all high bytes; of whatever comes behind, the bits that differ from the cycle before

Rooms are slow: from one cycle to the next a reading moves by a step or two of its sensor, and hardly a bit of the rest.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.store_blobs import (
    ZLIB_LEVEL,
    Plain,
    decompress,
    pack_readings,
    sizes_of,
    unpack_readings,
    unzigzag,
    zigzag,
)

CHUNK = 128
CYCLES_MAX = 255
_HEAD = struct.Struct("<7B")

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint16]


def pack_chunk(cycles: Sequence[Plain]) -> bytes:
    """Cycles in the order they were decided in, all of one version and of the same sizes; 1..CYCLES_MAX of them."""
    version, sizes = cycles[0][:2]
    cells = sizes.rows * sizes.cols
    readings = np.array([unpack_readings(plain.body[: 2 * cells]) for plain in cycles]).view(np.uint16)
    rest = np.array([np.frombuffer(plain.body, np.uint8, offset=2 * cells) for plain in cycles])
    rest[1:] ^= rest[:-1]
    late = np.array([plain.late for plain in cycles], "<u4").tobytes()
    head = _HEAD.pack(CHUNK, len(cycles), version, *sizes)
    return head + zlib.compress(late + _pack_readings(readings) + rest.T.tobytes(), ZLIB_LEVEL)


def unpack_chunk(data: bytes, shape: tuple[int, int]) -> list[Plain]:
    """The cycles that `pack_chunk` packed.

    Args:
        data: what it made.
        shape: (rows, cols) that the site has.

    Raises:
        ValueError: it is anything else; nothing is allocated beyond what so many cycles of this shape take.
    """
    if len(data) < _HEAD.size or data[0] != CHUNK or not data[1]:
        raise ValueError("no chunk of cycles")
    _, count, version, *numbers = _HEAD.unpack_from(data)
    sizes = sizes_of(version, numbers, shape)
    cells, size = sizes.rows * sizes.cols, sizes.body(version)
    body = decompress(data[_HEAD.size :], count * (4 + size))
    at = 4 * count
    readings = _unpack_readings(np.frombuffer(body, np.uint8, 2 * cells * count, at), count)
    changes = np.frombuffer(body, np.uint8, offset=at + 2 * cells * count).reshape(-1, count).T
    rest = np.bitwise_xor.accumulate(changes, axis=0)
    late = np.frombuffer(body, "<u4", count).tolist()
    bodies = (pack_readings(row) + part.tobytes() for row, part in zip(readings.view(np.int16), rest, strict=True))
    return [Plain(version, sizes, *each) for each in zip(late, bodies, strict=True)]


def _pack_readings(readings: Words) -> bytes:
    """Readings [count, cells], modulo 2^16, so that any come back."""
    first = np.diff(readings[:1], prepend=np.uint16(0), axis=1)
    numbers = zigzag(np.vstack([first, np.diff(readings, axis=0)]).view(np.int16)).astype("<u2")
    return numbers.view(np.uint8).reshape(*numbers.shape, 2).transpose(2, 1, 0).tobytes()


def _unpack_readings(data: Bytes, count: int) -> Words:
    numbers = data.reshape(2, -1, count).transpose(2, 1, 0).copy().view("<u2")[..., 0]
    readings = unzigzag(numbers.astype(np.uint16))
    readings[0] = np.cumsum(readings[0], dtype=np.uint16)
    return np.cumsum(readings, axis=0, dtype=np.uint16)
