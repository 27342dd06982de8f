"""The report ring: what a node told the gateway and nobody acknowledged yet, the oldest first.

A buffer, for an object would cost a node more: two bytes with the number of bytes in use, then frames, each behind its
length. When it is full the oldest goes: the gateway sees that its number never comes (gateway/received.py).
"""

from protocol import frame
from protocol.compat import const

# 15 reports of spec seed with readings; never so many that an acknowledgement could not speak of all of them.
SIZE = const(512)
FIRST = const(2)


def make():
    """A ring in which nothing waits."""
    ring = memoryview(bytearray(SIZE))
    ring[0] = FIRST
    return ring


def is_empty(ring) -> bool:
    """Whether nothing waits."""
    return end_of(ring) == FIRST


def end_of(ring) -> int:
    """The place behind the last frame."""
    return frame.u16(ring, 0)


def waiting_at(ring, place: int):
    """The frame at a place, a memoryview; the first one is at FIRST, the next one at `place + 1 + len(frame)`."""
    return ring[place + 1 : place + 1 + ring[place]]


def hold(ring, data) -> None:
    """Keep a frame of 1..255 bytes; of states of mode event only the latest."""
    if frame.kind_of(data) == frame.STATE:
        let_go_all(ring, frame.STATE)
    size = len(data)
    while end_of(ring) + 1 + size > SIZE:
        let_go(ring, FIRST)
    end = end_of(ring)
    ring[end] = size
    ring[end + 1 : end + 1 + size] = data
    _set_end(ring, end + 1 + size)


def holds(ring, kind: int) -> bool:
    """Whether a frame of a kind waits."""
    place = FIRST
    while place < end_of(ring):
        waiting = waiting_at(ring, place)
        if frame.kind_of(waiting) == kind:
            return True
        place += 1 + len(waiting)
    return False


def let_go(ring, place: int) -> None:
    """Forget the frame at a place; the next one is there then."""
    end, behind = end_of(ring), place + 1 + ring[place]
    ring[place : place + end - behind] = ring[behind:end]
    _set_end(ring, place + end - behind)


def let_go_all(ring, kind: int) -> None:
    """Forget all frames of a kind."""
    place = FIRST
    while place < end_of(ring):
        waiting = waiting_at(ring, place)
        if frame.kind_of(waiting) == kind:
            let_go(ring, place)
        else:
            place += 1 + len(waiting)


def _set_end(ring, end: int) -> None:
    ring[0], ring[1] = end & 0xFF, end >> 8
