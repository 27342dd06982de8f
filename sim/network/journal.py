"""What a simulation leaves behind: a digest over everything that was sent, and, if wanted, a line for each event."""

import hashlib
import json
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Journal:
    """Counts and digest of one simulation.

    Attributes:
        frames, sent_bytes: messages published so far, by nodes, gateway and broker, and their payloads' bytes.
    """

    def __init__(self, trace: TextIO | None = None):
        """`trace`: where events go as JSON lines; None: nowhere."""
        self.frames = self.sent_bytes = 0
        self.tracing = trace is not None
        self._trace = trace
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Over time, topic and payload of everything sent, in order; 64 hex digits."""
        return self._hash.hexdigest()

    def sent(self, now_ms: int, topic: str, data: bytes) -> None:
        """Something was published."""
        self.frames += 1
        self.sent_bytes += len(data)
        self._hash.update(struct.pack("<QHH", now_ms, len(topic), len(data)) + topic.encode() + data)
        if self.tracing:
            self.event(now_ms, "sent", topic=topic, data=data.hex())

    def event(self, now_ms: int, what: str, **facts: Any) -> None:
        """Something else happened."""
        if self._trace:
            self._trace.write(json.dumps({"ms": now_ms, "what": what, **facts}) + "\n")


@contextmanager
def logs_taken(journal: Journal, now_ms: Callable[[], int]) -> Iterator[None]:
    """What the gateway logs goes into a journal and nowhere else; `now_ms`: the virtual time."""
    log, handler = logging.getLogger("gateway"), LogEvents(journal, now_ms)
    propagated, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


class LogEvents(logging.Handler):
    """Puts what the gateway logs into a journal."""

    def __init__(self, journal: Journal, now_ms: Callable[[], int]):
        """`now_ms`: the virtual time."""
        super().__init__()
        self._journal, self._now_ms = journal, now_ms

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log becomes an event."""
        self._journal.event(self._now_ms(), "log", level=record.levelname, text=record.getMessage())
