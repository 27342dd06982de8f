"""The report ring: what a node told the gateway and nobody acknowledged yet, the oldest first.

A list of frames, for one or two wait as a rule, and room that is kept for more costs a heap of 32 KB too much. When it
is full the oldest goes: the gateway sees that its number never comes (gateway/received.py).
"""

from protocol import frame
from protocol.compat import const

# Never so many that an acknowledgement could not speak of all of them.
FRAMES_MAX = const(15)


def hold(ring: list, data: bytes) -> None:
    """Keep a frame; of states of mode event only the latest."""
    if frame.kind_of(data) == frame.STATE:
        let_go_all(ring, frame.STATE)
    if len(ring) >= FRAMES_MAX:
        ring.pop(0)
    ring.append(data)


def holds(ring: list, kind: int) -> bool:
    """Whether a frame of a kind waits."""
    return any(frame.kind_of(waiting) == kind for waiting in ring)


def let_go_all(ring: list, kind: int) -> None:
    """Forget all frames of a kind."""
    ring[:] = [waiting for waiting in ring if frame.kind_of(waiting) != kind]
