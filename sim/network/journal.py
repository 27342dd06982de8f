"""What a simulation leaves behind: a digest over everything that was sent, and, if wanted, a line for each event."""

import hashlib
import json
import struct
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
