"""The gateway as a service: the shell that gives gateway.py its messages and its time."""

import itertools
import time
from collections.abc import Callable

from gateway.gateway import Gateway, Outcome
from gateway.link import Link

# A cycle's messages are taken in one after the other; between two looks at the clock at most so many.
_MESSAGES_AT_ONCE = 64


def monotonic_ms() -> int:
    """Now, in ms; only differences mean something."""
    return time.monotonic_ns() // 1_000_000


def run_cycle(gateway: Gateway, link: Link) -> Outcome:
    """Open a cycle and wait until it is decided; at most Timing.cycle_ms."""
    link.publish_beacon(gateway.start_cycle(monotonic_ms()))
    while (outcome := gateway.poll(monotonic_ms())) is None:
        listen(gateway, link, (gateway.due_ms() - monotonic_ms()) / 1000)
    return outcome


def listen(gateway: Gateway, link: Link, timeout_s: float) -> None:
    """Wait for messages, take in those that are there, and return."""
    message = link.next_message(timeout_s)
    for _ in range(_MESSAGES_AT_ONCE):
        if message is None:
            return
        gateway.on_message(*message)
        message = link.next_message(0)
    if message is not None:
        gateway.on_message(*message)


def listen_until(gateway: Gateway, link: Link, is_done: Callable[[], bool], timeout_s: float) -> bool:
    """Take in messages until a condition holds; False when the time was over first."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        listen(gateway, link, min(left_s, 0.5))
    return True


def serve(
    gateway: Gateway, link: Link, period_s: float, on_outcome: Callable[[Outcome], None], cycles: int | None = None
) -> None:
    """Run cycle after cycle, one every `period_s`, so many of them or until KeyboardInterrupt."""
    next_s = time.monotonic()
    for _ in range(cycles) if cycles else itertools.count():
        on_outcome(run_cycle(gateway, link))
        next_s = max(next_s + period_s, time.monotonic())
        while (left_s := next_s - time.monotonic()) > 0:
            listen(gateway, link, left_s)
