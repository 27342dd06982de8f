"""The one place where CPython and MicroPython differ.

Time is a count of milliseconds that wraps at 2^30 (12.4 days) on both runtimes: compare two counts only with
`ticks_diff`, move one only with `ticks_add`.
"""

import gc
import sys
import time

TICKS_PERIOD = 1 << 30
_HALF = TICKS_PERIOD >> 1

if sys.implementation.name == "micropython":
    import micropython
    from micropython import const

    def ticks_ms() -> int:
        """Now, in ms modulo 2^30."""
        return time.ticks_ms() & (TICKS_PERIOD - 1)

    def forget(name: str) -> None:
        """Drop an imported module that no frame holds any more, so that its code leaves the heap."""
        sys.modules.pop(name)
        gc.collect()
else:

    class micropython:
        """Stand-in for MicroPython's module: code emitters change nothing on CPython."""

        @staticmethod
        def viper(function):
            """Return the function as it is."""
            return function

    def const(value):
        """Return the value: only MicroPython's compiler makes it a constant."""
        return value

    def forget(name: str) -> None:
        """Keep it: memory is no worry here."""

    def ticks_ms() -> int:
        """Now, in ms modulo 2^30."""
        return (time.monotonic_ns() // 1_000_000) & (TICKS_PERIOD - 1)


def ptr8(buffer):
    """The buffer itself. Viper knows this name at compile time and never calls it; every other emitter does."""
    return buffer


ptr16 = ptr32 = ptr8


def ticks_add(ticks: int, delta_ms: int) -> int:
    """The count `delta_ms` (-2^29 < delta < 2^29) after `ticks`."""
    return (ticks + delta_ms) & (TICKS_PERIOD - 1)


def ticks_diff(later: int, earlier: int) -> int:
    """Signed ms from `earlier` to `later`, right while they lie less than 2^29 ms (6.2 days) apart."""
    difference = (later - earlier) & (TICKS_PERIOD - 1)
    return difference - TICKS_PERIOD if difference >= _HALF else difference
