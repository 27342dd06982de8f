"""Files with secrets in them: readable by their owner from the first byte on, and on the disk when they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file in the place of whatever is there, on the disk when the block ends.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_private(path: Path, data: bytes) -> None:
    """Replace a file, all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    scratch = path.with_suffix(".new")
    with private_file(scratch) as file:
        file.write(data)
    scratch.replace(path)
