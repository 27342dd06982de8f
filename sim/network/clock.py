"""The virtual clock: what is to happen when. Nothing here takes real time."""

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Events in the order of their time, those of one ms in the order they were asked for.

    Attributes:
        now_ms: virtual ms since the start.
        events: how many have happened.
    """

    def __init__(self) -> None:
        """Time 0, nothing to do."""
        self.now_ms = 0
        self.events = 0
        self._heap: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._order = 0

    def after(self, delay_ms: int, action: Callable[..., Any], *arguments: Any) -> None:
        """Do something later, 0 ms or more from now."""
        self._order += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._order, action, arguments))

    def run(self, end_ms: int, settle: Callable[[], None]) -> None:
        """Let everything before `end_ms` happen; `settle` is called whenever all events of one ms are over.

        So whoever got several messages in one ms looks at them together, as a shell around a socket does.
        """
        heap = self._heap
        while heap and heap[0][0] < end_ms:
            now_ms = self.now_ms = heap[0][0]
            while heap and heap[0][0] == now_ms:
                _, _, action, arguments = heapq.heappop(heap)
                self.events += 1
                action(*arguments)
            settle()
        self.now_ms = end_ms
