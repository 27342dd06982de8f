"""The two filter slots in a node's flash, and the record that says which of them counts.

    <path>        slot 0, at first the set that was flashed
    <path>.1      slot 1
    <path>.slots  the record; without one slot 0 is active and confirmed

    record   0  u8[2] 'T' 'S'
             2  u8    format 2
             3  u8    active slot
             4  u8    phase (protocol/filter_set.py); in phase STAGED the other slot holds a whole set
             5  u32   highest version ever staged
             9  u8[32] digest of the set in slot 0, then u8[32] in slot 1 (`digest_of`); zero: never recorded
             73 u8[4] start of the SHA-256 of all before it

The record is replaced by a rename, which littlefs and POSIX do at once or not at all; a slot is written only while the
record does not count on it. So a node that loses power at any instant finds a whole set that was proven before.
"""

import hashlib
import os
import struct

from protocol.compat import const
from protocol.filter_set import CONFIRMED, RETURNED, SIGNATURE_SIZE, STAGED, TRIAL

_FORMAT = "<2sBBBI32s32s"
_DIGEST_SIZE = 32
# A file is hashed in pieces of so many bytes.
_PIECE = const(64)
# The digest of no set.
NOBODYS = b"\xff" * _DIGEST_SIZE


def slot_path(path: str, slot: int) -> str:
    """The file of slot 0 or 1."""
    return path + ".1" if slot else path


def read_record(path: str) -> tuple:
    """(active slot, phase, highest version or None, (digest, digest)) of the record, or what holds without one."""
    size = struct.calcsize(_FORMAT)
    try:
        with open(path + ".slots", "rb") as file:
            data = file.read(size + 5)
    except OSError:
        data = b""
    is_whole = len(data) == size + 4 and hashlib.sha256(data[:size]).digest()[:4] == data[size:]
    if not is_whole or data[:3] != b"TS\x02" or data[3] > 1 or data[4] > RETURNED:
        return 0, CONFIRMED, None, (bytes(_DIGEST_SIZE), bytes(_DIGEST_SIZE))
    _, _, active, phase, highest, first, second = struct.unpack(_FORMAT, data[:size])
    return active, phase, highest, (first, second)


def free_slot(path: str, highest: int) -> str:
    """The file of the slot that is not active; whatever lies there counts no more, nor what is half written to it."""
    active, phase, _, digests = read_record(path)
    free = 1 - active
    if phase == STAGED or digests[free] == bytes(_DIGEST_SIZE):
        digests = [NOBODYS if slot == free else digests[slot] for slot in (0, 1)]
        _write(path, active, CONFIRMED if phase == STAGED else phase, highest, digests)
    return slot_path(path, free)


def stage(path: str, version: int, digest: bytes) -> None:
    """Record that the slot that is not active holds this whole, proven set."""
    active, _, _, digests = read_record(path)
    _write(path, active, STAGED, version, (digests[0], digest) if active == 0 else (digest, digests[1]))


def mark(path: str, phase: int, highest: int) -> None:
    """Record a new phase; entering TRIAL and RETURNED change slots."""
    active, _, _, digests = read_record(path)
    if phase in (TRIAL, RETURNED):
        active ^= 1
    _write(path, active, phase, highest, digests)


def digest_of(signed: bytes, signature: bytes) -> bytes:
    """What the record knows a set by: SHA-256 of the digest that is signed and of the signature, 32 bytes."""
    return hashlib.sha256(signed + signature).digest()


def offer(path: str, digest: bytes) -> str:
    """The path of a set that neighbours may pull; "" where it did not come with the wave."""
    return path if digest != bytes(_DIGEST_SIZE) else ""


def load(path: str, digest: bytes, make):
    """What `make` makes of a slot's file, open for reading, or None where it is not of this digest (zero: unknown).

    Raises:
        OSError: the file cannot be read.
        ValueError: from `make`.
    """
    with open(path, "rb") as file:
        if digest != bytes(_DIGEST_SIZE):
            sha, size = hashlib.sha256(), file.seek(0, 2) - SIGNATURE_SIZE
            file.seek(0)
            for at in range(0, size, _PIECE):
                sha.update(file.read(min(_PIECE, size - at)))
            if digest_of(sha.digest(), file.read(SIGNATURE_SIZE)) != digest:
                return None
            file.seek(0)
        return make(file)


def _write(path: str, active: int, phase: int, highest: int, digests) -> None:
    data = struct.pack(_FORMAT, b"TS", 2, active, phase, highest, digests[0], digests[1])
    with open(path + ".new", "wb") as file:
        file.write(data + hashlib.sha256(data).digest()[:4])
    os.rename(path + ".new", path + ".slots")
