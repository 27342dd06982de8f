"""A DS18B20 thermometer, alone on its pin, powered by three wires or by two.

Each reading is a conversion of its own: 750 ms, in which the node does nothing else. Then come nine bytes,
the scratchpad (DS18B20 data sheet, figures 9 to 11):

    0, 1  i16  temperature, 1/16 degrees Celsius; 85.00 from power-on until a conversion is done
    2, 3       alarm limits, not used here
    4     u8   0, two bits of resolution, 11111
    5..7       FF, then 0C from power-on until a conversion is done, then 10
    8     u8   Maxim's CRC-8 of all that

What is no measurement is no reading: bytes that the wire damaged, power lost during the conversion, values that the
sensor cannot measure, and the very same value so often that no live sensor gives it.
"""

import time

from protocol.compat import const
from protocol.health import SENSOR_CRC, SENSOR_POWER_ON, SENSOR_RANGE, SENSOR_STUCK

SKIP_ROM = const(0xCC)
CONVERT = const(0x44)
READ_SCRATCHPAD = const(0xBE)
SCRATCHPAD_SIZE = const(9)
# The longest that a conversion of 12 bits takes.
CONVERSION_MS = const(750)
# The CRC's polynomial, X^8 + X^5 + X^4 + 1, lowest bit first.
CRC_POLYNOMIAL = const(0x8C)
# 125 and -55 degrees Celsius; 127.94 is what the sensor says when the conversion found too little power.
RAW_MAX = const(2000)
RAW_MIN = const(-880)
POWER_ON_RAW = const(85 * 16)
POWER_ON_BYTE = const(0x0C)
# Clones leave that byte as it is. Where it tells nothing, a reading before that lies within 5 degrees does.
NEAR_RAW = const(5 * 16)
# The noise of a live sensor is some 0.05 degrees. With half of that, and the truth in the middle of a step of 1/16, a
# value is the one before in 79 of 100 cycles; 96 times in a row with a chance of 10^-10.
STUCK_CYCLES = const(96)
_FINEST = const(3)


class Ds18b20:
    """The thermometer on one pin."""

    def __init__(self, settings: dict, bus=None, sleep_ms=None):
        """Open `pin`.

        Args:
            settings: as checked by firmware/config.py.
            bus: a 1-Wire bus in the place of the pin's: `reset(required)`, `writebyte`, `readinto` as MicroPython's
                onewire.OneWire has them.
            sleep_ms: waits, in the place of the board's.
        """
        if bus is None:
            import machine
            import onewire

            bus = onewire.OneWire(machine.Pin(settings["pin"]))
        self._bus = bus
        self._sleep_ms = sleep_ms or time.sleep_ms
        self._scratchpad = bytearray(SCRATCHPAD_SIZE)
        self._before = None  # the value that came last, raw
        self._same = 0  # how often in a row it came

    def read(self, cycle: int) -> int:
        """Measure, ccel; raw 401 -> 2506.

        Raises:
            ValueError: what came is no measurement; it holds the place of the counter that says why.
            OSError: nobody answers on the wire.
        """
        self._command(CONVERT)
        self._sleep_ms(CONVERSION_MS)
        self._command(READ_SCRATCHPAD)
        self._bus.readinto(self._scratchpad)
        raw = self._proven()
        return (raw * 25 + 2) >> 2

    def _command(self, command: int) -> None:
        self._bus.reset(True)
        self._bus.writebyte(SKIP_ROM)
        self._bus.writebyte(command)

    def _proven(self) -> int:
        """The raw temperature, if the scratchpad holds a measurement."""
        scratchpad = self._scratchpad
        # A wire that is held down reads as zeros, whose CRC is right.
        if crc8(scratchpad) or scratchpad[4] & 0x9F != 0x1F:
            raise ValueError(SENSOR_CRC)
        raw = scratchpad[0] | scratchpad[1] << 8
        raw -= (raw & 0x8000) << 1
        coarser = _FINEST - (scratchpad[4] >> 5)
        raw = raw >> coarser << coarser  # with fewer bits the lowest mean nothing
        if raw == POWER_ON_RAW and scratchpad[6] == POWER_ON_BYTE and not self._is_near(raw):
            raise ValueError(SENSOR_POWER_ON)
        if not RAW_MIN <= raw <= RAW_MAX:
            raise ValueError(SENSOR_RANGE)
        self._same = self._same + 1 if raw == self._before and not coarser else 1
        self._before = raw
        if self._same >= STUCK_CYCLES:
            raise ValueError(SENSOR_STUCK)
        return raw

    def _is_near(self, raw: int) -> bool:
        return self._before is not None and abs(raw - self._before) <= NEAR_RAW


def crc8(data) -> int:
    """Maxim's CRC-8; 0 over bytes that end with their own (application note 27)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (CRC_POLYNOMIAL if crc & 1 else 0)
    return crc
