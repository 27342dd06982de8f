"""Cycles, heads and filters as the bytes that the store keeps. Little-endian; nothing is unpickled.

A cycle, version 1; 2 where features are carried; 3 of mode event:

     0  u8    version
     1  u8[4] rows, cols, channels, exchanges
     5  u32   late
     9  -     zlib: readings as differences to the cell before, zigzag, all low bytes, then all high bytes
                    features u8 [block rows, block cols, channels], 0 where missing; absence u8 [exchanges, rows, cols]
                    bits, each plane filled up to a byte: feature there; cells of the site, has_reading, pooled,
                    no_reading; version 2 and 3: carried, of the blocks
                    version 3: proofs u8 [rows, cols]

A head, version 1: u8 version, u8 layers; then of each layer u32 inputs, u32 outputs, f32 weights, f32 bias.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.cycles import Record
from gateway.model import CLAMP, SIGN, TAPS_OF, Filters, Head, NodeLayer
from gateway.twin import NOTHING
from protocol import filter_set
from protocol.fixed import BIAS_ZERO, WEIGHT_ZERO
from protocol.grid import BLOCK_SIDE

_CYCLE = struct.Struct("<5BI")
# So many of its first bytes are the same for all cycles of a kind.
SIZES_LEN = 5
_VERSIONS = _PLAIN, _CARRIED, _PROVEN = 1, 2, 3
_NO_RECORD = f"no record of version {_PLAIN} to {_PROVEN}"
# Level 9 takes twice the time for 2 % less: what is left is the sensors' noise.
ZLIB_LEVEL = 6
_HEAD = struct.Struct("<BB")
_HEAD_VERSION = 1
_HEAD_LAYER = struct.Struct("<II")

Bits = NDArray[np.bool_]


class Sizes(NamedTuple):
    """Of a cycle's parts, as its first bytes say."""

    rows: int
    cols: int
    channels: int
    exchanges: int

    @property
    def features(self) -> tuple[int, int, int]:
        """Shape of the features."""
        return -(-self.rows // BLOCK_SIDE), -(-self.cols // BLOCK_SIDE), self.channels

    @property
    def absence(self) -> tuple[int, int, int]:
        """Shape of the absence bytes."""
        return self.exchanges, self.rows, self.cols

    def planes(self, version: int) -> list[tuple[int, ...]]:
        """Shapes of the planes of bits."""
        return [self.features, *[(self.rows, self.cols)] * 4, *[self.features[:2]] * (version > _PLAIN)]

    def body(self, version: int) -> int:
        """Bytes of all parts together."""
        bits = sum(-(-int(np.prod(plane)) // 8) for plane in self.planes(version))
        cells = (3 if version == _PROVEN else 2) * self.rows * self.cols
        return cells + int(np.prod(self.features)) + int(np.prod(self.absence)) + bits


def pack_cycle(record: Record, cells: Bits) -> bytes:
    """A cycle's record without its number.

    Args:
        record: features -1..255.
        cells: bool [rows, cols], the site's mask: what a twin needs to recompute the cycle after a node was added.
    """
    rows, cols = cells.shape
    version = _PROVEN if record.proofs is not None else _CARRIED if record.carried.any() else _PLAIN
    head = _CYCLE.pack(version, rows, cols, record.features.shape[2], len(record.absence), record.late)
    masks = cells, record.has_reading, record.pooled, record.no_reading
    planes = [record.features != NOTHING, *masks, *([record.carried] if version > _PLAIN else [])]
    parts = [
        pack_readings(record.readings_ccel),
        np.maximum(record.features, 0).astype(np.uint8).tobytes(),
        record.absence.astype(np.uint8).tobytes(),
        *(np.packbits(plane).tobytes() for plane in planes),
        b"" if record.proofs is None else record.proofs.astype(np.uint8).tobytes(),
    ]
    return head + zlib.compress(b"".join(parts), ZLIB_LEVEL)


class Plain(NamedTuple):
    """A packed cycle, not compressed.

    Attributes:
        version: of the packing.
        sizes: of its parts.
        late: the record's.
        body: what zlib compresses: readings first, as 2 x rows x cols bytes.
    """

    version: int
    sizes: Sizes
    late: int
    body: bytes


def inflate(data: bytes, shape: tuple[int, int]) -> Plain:
    """What `pack_cycle` compressed; `record_of` makes a record of it.

    Args:
        data: what `pack_cycle` made.
        shape: (rows, cols) that the site has.

    Raises:
        ValueError: it is anything else; nothing is allocated beyond what a cycle of this shape takes.
    """
    if len(data) < _CYCLE.size:
        raise ValueError(_NO_RECORD)
    version, *numbers, late = _CYCLE.unpack_from(data)
    sizes = sizes_of(version, numbers, shape)
    return Plain(version, sizes, late, decompress(data[_CYCLE.size :], sizes.body(version)))


def sizes_of(version: int, numbers: Sequence[int], shape: tuple[int, int]) -> Sizes:
    """Rows, columns, channels and exchanges, checked to be of a version there is and of a site's shape.

    Raises:
        ValueError: they are not.
    """
    if version not in _VERSIONS or len(numbers) != len(Sizes._fields):
        raise ValueError(_NO_RECORD)
    sizes = Sizes(*numbers)
    if sizes[:2] != shape:
        raise ValueError(f"a record of {sizes.rows} x {sizes.cols} cells, the site has {shape[0]} x {shape[1]}")
    return sizes


def record_of(cycle: int, plain: Plain) -> tuple[Record, Bits]:
    """A record and the site's mask at its time; `cycle` is the record's number."""
    version, sizes, late, body = plain
    shape, at = (sizes.rows, sizes.cols), 2 * sizes.rows * sizes.cols
    readings_ccel = unpack_readings(body[:at]).reshape(shape)
    features, at = _take(body, at, sizes.features)
    absence, at = _take(body, at, sizes.absence)
    planes = []
    for plane in sizes.planes(version):
        count = int(np.prod(plane))
        packed, at = _take(body, at, (-(-count // 8),))
        planes.append(np.unpackbits(packed, count=count).astype(np.bool_).reshape(plane))
    there, cells, has_reading, pooled, no_reading, *behind = planes
    carried = behind[0] if behind else np.zeros(sizes.features[:2], np.bool_)
    proofs = _take(body, at, shape)[0] if version == _PROVEN else None
    known = np.where(there, features.astype(np.int16), np.int16(NOTHING))
    return Record(cycle, known, readings_ccel, has_reading, pooled, absence, no_reading, late, carried, proofs), cells


def decompress(data: bytes, size: int) -> bytes:
    """What zlib compressed, of a size that is known.

    Raises:
        ValueError: it is no such stream; no more than `size` is ever allocated.
    """
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(body) != size or not stream.eof or stream.unused_data:
        raise ValueError("a record of a wrong length")
    return body


def pack_head(head: Head) -> bytes:
    """A head without its revision."""
    data = _HEAD.pack(_HEAD_VERSION, len(head.layers))
    for weights, bias in head.layers:
        data += _HEAD_LAYER.pack(*weights.shape) + weights.astype("<f4").tobytes() + bias.astype("<f4").tobytes()
    return data


def unpack_head(revision: int, data: bytes) -> Head:
    """The head that `pack_head` packed.

    Raises:
        ValueError: it is anything else.
    """
    if len(data) < _HEAD.size or data[0] != _HEAD_VERSION:
        raise ValueError(f"no head of version {_HEAD_VERSION}")
    layers = []
    at = _HEAD.size
    for _ in range(data[1]):
        if at + _HEAD_LAYER.size > len(data):
            raise ValueError("a head cut short")
        inputs, outputs = _HEAD_LAYER.unpack_from(data, at)
        at += _HEAD_LAYER.size
        if at + 4 * (inputs + 1) * outputs > len(data):
            raise ValueError("a head cut short")
        numbers = np.frombuffer(data, "<f4", (inputs + 1) * outputs, at).astype(np.float32)
        at += numbers.nbytes
        layers.append((numbers[: inputs * outputs].reshape(inputs, outputs), numbers[inputs * outputs :]))
    if at != len(data):
        raise ValueError("a head of a wrong length")
    return Head(revision, tuple(layers))


def unpack_filters(data: bytes) -> Filters:
    """The filters of a filter set; the inverse of `Filters.pack`, signed or not.

    Raises:
        ValueError: it is no filter set.
    """
    found = filter_set.unpack(data)
    layers = []
    for layer in found.layers:
        kind = filter_set.KIND_NAMES[layer.kind]
        taps, count, shift = layer.shape[:3]
        channels_in = taps // TAPS_OF[kind]
        bias = np.array(layer.bias, np.int64) - BIAS_ZERO
        weights = np.frombuffer(layer.weights, np.uint8).astype(np.int16) - WEIGHT_ZERO
        shape = count, channels_in, TAPS_OF[kind]
        numbers = bias.astype(np.int32), weights.astype(np.int8).reshape(shape)
        activation = SIGN if layer.kind == filter_set.CONV3X3_SIGN else CLAMP
        layers.append(NodeLayer(kind, channels_in, count, shift, *numbers, activation))
    return Filters(found.version, found.reference_ccel, tuple(layers))


def zigzag(differences: NDArray[np.int16]) -> NDArray[np.uint16]:
    """Small differences of either sign become small numbers: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return ((differences << 1) ^ (differences >> 15)).view(np.uint16)


def unzigzag(numbers: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Differences again, modulo 2^16."""
    differences: NDArray[np.uint16] = (numbers >> np.uint16(1)) ^ np.negative(numbers & np.uint16(1))
    return differences


def pack_readings(readings_ccel: NDArray[np.int16]) -> bytes:
    """Neighbours are nearly equal: small differences, whose high bytes are 0. Modulo 2^16, so any int16 comes back."""
    values = readings_ccel.astype(np.int16).view(np.uint16).ravel()
    numbers = zigzag(np.diff(values, prepend=np.uint16(0)).view(np.int16)).astype("<u2")
    return numbers.view(np.uint8).reshape(-1, 2).T.tobytes()


def unpack_readings(data: bytes) -> NDArray[np.int16]:
    """Readings again, ccel, in a row."""
    numbers = np.frombuffer(data, np.uint8).reshape(2, -1).T.copy().view("<u2").ravel().astype(np.uint16)
    return np.cumsum(unzigzag(numbers), dtype=np.uint16).view(np.int16)


def _take(body: bytes, at: int, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], int]:
    """The array that lies at a place, and the place behind it."""
    count = int(np.prod(shape))
    return np.frombuffer(body, np.uint8, count, at).reshape(shape).copy(), at + count
