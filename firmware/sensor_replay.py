"""A sensor that replays a file of readings."""

import struct

from protocol.compat import const

RECORD_SIZE = const(3)


class Replay:
    """Readings indexed by the cycle number, so that a cycle has the same reading in every run.

    The file holds one record a cell and cycle, u8 present and i16 ccel little-endian, cells of a cycle side by side.
    """

    def __init__(self, settings: dict):
        """Open `path`; `cells` records make a cycle, this sensor's is the one at `index`."""
        self._cells = settings["cells"]
        self._index = settings["index"]
        self._file = open(settings["path"], "rb")  # noqa: SIM115 - a driver keeps its device open

    def read(self, cycle: int):
        """The record of this cycle; None where it says so and behind the end of the file."""
        self._file.seek((cycle * self._cells + self._index) * RECORD_SIZE)
        record = self._file.read(RECORD_SIZE)
        if len(record) < RECORD_SIZE or not record[0]:
            return None
        return struct.unpack("<h", record[1:])[0]
