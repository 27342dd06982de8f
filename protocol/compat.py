"""The one place where CPython and MicroPython differ.

Time is a count of milliseconds that wraps at 2^30 (12.4 days) on both runtimes: compare two counts only with
`ticks_diff`, move one only with `ticks_add`.
"""

import gc
import os
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

    def keep_compact() -> None:
        """Collect garbage often from now on, so that what lasts lies close together and leaves room in one piece."""
        gc.threshold((gc.mem_alloc() + gc.mem_free()) // 64)

    def load_cold(folder: str, name: str):
        """A cold function (tools/flash/cold.py); its code leaves the heap when nobody holds it any more."""
        gc.collect()  # so that it finds its room in one piece
        os.chdir(folder)  # an import keeps the path of its file for ever: from here it is one of a few
        try:
            module = __import__(name)
        finally:
            os.chdir("..")
        function = module.run_cold
        del module.run_cold  # what it made may hold the module
        sys.modules.pop(name)
        return function

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

    def keep_compact() -> None:
        """Leave it to the runtime: memory is no worry here."""

    def forget(name: str) -> None:
        """Keep it, as above."""

    def ticks_ms() -> int:
        """Now, in ms modulo 2^30."""
        return (time.monotonic_ns() // 1_000_000) & (TICKS_PERIOD - 1)


def cold(function):
    """Mark a function that runs once a cycle or less: the device build leaves it out of the heap until it is called."""
    return function


def rare(function):
    """Mark a cold function that is left out even where another cold one calls it, for that is not often."""
    return function


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
