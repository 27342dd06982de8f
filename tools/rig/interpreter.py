"""Real MicroPython on this machine: the Unix port as a Python extension, one process for each run."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
SECONDS_MAX = 300
HEAP = "1M"
VIPER_LINE = "@micropython.viper\n"
# The extension runs in a process's only thread and only once; its own arguments begin with a program's name.
_LAUNCH = "import sys, micropython_run; sys.exit(micropython_run.run_main(['micropython', *sys.argv[1:]]))"


class InterpreterError(RuntimeError):
    """MicroPython is not installed, or the source ended with an error; the message holds its last words."""


def is_installed() -> bool:
    """Whether the real interpreter is there."""
    return importlib.util.find_spec("micropython_run") is not None


def run(source: str, paths: Sequence[Path] = (SOURCES,), heap: str = HEAP) -> str:
    """Run a piece of source and return what it printed.

    Args:
        source: Python in MicroPython's subset.
        paths: where it imports from, searched in this order; it runs in the first.
        heap: bytes, or a number with K or M.

    Raises:
        InterpreterError: not installed, or it ended with an error.
    """
    if not is_installed():
        raise InterpreterError("MicroPython is not installed: pip install 'thermesh[micropython]'")
    environment = {**os.environ, "MICROPYPATH": os.pathsep.join(str(path) for path in paths)}
    command = [sys.executable, "-c", _LAUNCH, "-X", f"heapsize={heap}", "-c", source]
    # MicroPython looks into the current folder first, whatever its path says.
    result = subprocess.run(
        command, cwd=paths[0], env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    if result.returncode:
        raise InterpreterError(f"MicroPython ended with {result.returncode}: {result.stderr.strip() or result.stdout}")
    return result.stdout


def write_plain_kernel(folder: Path) -> Path:
    """Put unit and zone for boards without viper into a folder, as the package firmware, and return the folder."""
    package = folder / "firmware"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name in ("unit.py", "zone.py"):
        source = (SOURCES / "firmware" / name).read_text(encoding="utf-8")
        (package / name).write_text(source.replace(VIPER_LINE, ""), encoding="utf-8")
    return folder
