"""A sensor that makes its readings up."""

from protocol.fixed import saturate_int16


class Simulated:
    """A made-up room: a slow triangle of +-2 degrees over 48 cycles round a mean, and seeded noise of +-0.25."""

    def __init__(self, settings: dict):
        """Same `seed`, same readings around `mean_ccel`."""
        self._seed = settings["seed"]
        self._mean_ccel = settings["mean_ccel"]

    def read(self, cycle: int) -> int:
        """A value that depends on seed and cycle only, ccel."""
        phase = cycle % 48
        slow = (phase if phase < 24 else 48 - phase) * 17 - 204
        noise = ((self._seed + cycle) * 7919 % 10007) % 51 - 25
        return saturate_int16(self._mean_ccel + slow + noise)
