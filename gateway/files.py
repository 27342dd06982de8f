"""Files that are on the disk when they are written: with secrets in them, or replaced as a whole."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_PRIVATE, _PUBLIC = 0o600, 0o666


@contextmanager
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file in the place of whatever is there, readable by its owner only, from the first byte on.

    Raises:
        OSError: it cannot be written.
    """
    with _new_file(path, _PRIVATE) as file:
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
    with _new_file(_scratch(path), _mode(path)) as file:
        file.write(data)
        _sync(file)
    _take_place(path)


def write_many(files: Mapping[Path, bytes], private: bool) -> None:
    """Replace many files, each all of it or nothing, with one wait for the disk: on an SD card each takes milliseconds.

    Args:
        files: what is to be in them.
        private: they have secrets in them; else who may read them stays as it is.

    Raises:
        OSError: one cannot be written; then all are as they were.
    """
    try:
        for path, data in files.items():
            with _new_file(_scratch(path), _PRIVATE if private else _mode(path)) as file:
                file.write(data)
    except OSError:
        for path in files:
            _scratch(path).unlink(missing_ok=True)
        raise
    if files:
        os.sync()
    for path in files:
        _scratch(path).replace(path)


def _new_file(path: Path, mode: int) -> IO[bytes]:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else _PUBLIC


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
