"""A queue in which each sender has a line of its own: one that says much waits for itself, not the others for it."""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of many senders, one of each in turn, each sender's in the order in which they came; for two threads."""

    def __init__(self, sender_max: int, all_max: int):
        """At most so many items of one sender, and of all."""
        self._sender_max, self._all_max = sender_max, all_max
        self._lines: dict[str, deque[Item]] = {}
        self._turns: deque[str] = deque()  # senders whose line is not empty
        self._count = 0
        self._changed = threading.Condition()

    def put(self, sender: str, item: Item) -> bool:
        """Put an item in line; False where that is full."""
        with self._changed:
            line = self._lines.get(sender)
            if self._count >= self._all_max or (line and len(line) >= self._sender_max):
                return False
            if line is None:
                line = self._lines[sender] = deque()
                self._turns.append(sender)
            line.append(item)
            self._count += 1
            self._changed.notify()
            return True

    def get(self, timeout_s: float) -> Item | None:
        """The next sender's next item, or None when none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._turns, max(timeout_s, 0.0)):
                return None
            sender = self._turns.popleft()
            line = self._lines[sender]
            item = line.popleft()
            self._count -= 1
            if line:
                self._turns.append(sender)
            else:
                del self._lines[sender]
            return item
