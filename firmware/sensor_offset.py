"""A sensor that is known to be off, and by how much."""


class Offset:
    """A driver, and what is added to each of its readings."""

    def __init__(self, driver, offset_ccel: int):
        """`driver` is any other one."""
        self._driver = driver
        self._offset_ccel = offset_ccel

    def read(self, cycle: int):
        """The driver's reading, mended; beyond int16 the node refuses it. None stays None."""
        reading_ccel = self._driver.read(cycle)
        return None if reading_ccel is None else reading_ccel + self._offset_ccel
