"""Files that are on the disk when they are written: with secrets in them, or replaced as a whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file in the place of whatever is there, readable by its owner only, from the first byte on.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
        yield file
        _sync(file)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file with secrets in it, all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    with private_file(_scratch(path)) as file:
        file.write(data)
    _take_place(path)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file, all of it or nothing, whenever the power goes; who may read it stays as it is.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()  # a link stays one
    with _scratch(path).open("wb") as file:
        if path.exists():
            shutil.copymode(path, _scratch(path))
        file.write(data)
        _sync(file)
    _take_place(path)


def _scratch(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _take_place(path: Path) -> None:
    """The new file takes the old one's name; that is on the disk once the folder is."""
    _scratch(path).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
