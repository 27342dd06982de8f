"""A 1-Wire bus with one DS18B20 on it, or none: answers as its data sheet says, with what a test wants."""

# Seen on real sensors: what came, and the degrees Celsius that the Linux kernel made of it.
SEEN = {
    "f400 4b46 7fff 0c10 fa": 15.25,
    "f300 4b46 7fff 0d10 ee": 15.1875,
    "f600 4b46 7fff 0a10 d6": 15.375,
}
POWER_ON = bytes.fromhex("5005 4b46 7fff 0c10 1c")
POWER_ON_RAW, POWER_ON_BYTE = 0x0550, 0x0C
MEASURED_85_BYTE = 0x10
CONVERSION_MS = 750


def crc_of(data):
    """Maxim's CRC-8 by long division, over the bits as they come: lowest first."""
    bits = [byte >> place & 1 for byte in data for place in range(8)] + [0] * 8
    for at in range(len(bits) - 8):
        if bits[at]:
            for power in (8, 5, 4, 0):
                bits[at + 8 - power] ^= 1
    return sum(bit << place for place, bit in enumerate(bits[-8:]))


def scratchpad(raw, byte_6=0x0A, config=0x7F):
    data = (raw & 0xFFFF).to_bytes(2, "little") + bytes((0x4B, 0x46, config, 0xFF, byte_6, 0x10))
    return data + bytes((crc_of(data),))


class OneWire:
    """The bus, with what MicroPython's onewire.OneWire has; `sleep_ms` is its clock."""

    def __init__(self, *answers):
        """`answers`: raw temperatures or scratchpads, one after each conversion, the last again and again."""
        self.answers = [answer if isinstance(answer, bytes) else scratchpad(answer) for answer in answers]
        self.is_there, self.loses_power = True, False
        self.conversions = 0
        self._said, self._converting_ms, self._scratchpad = [], 0, POWER_ON

    def reset(self, required=False):
        self._said = []
        if required and not self.is_there:
            raise OSError(19)
        return self.is_there

    def writebyte(self, value):
        self._said.append(value)
        if self._said == [0xCC, 0x44]:
            self._converting_ms = CONVERSION_MS

    def readinto(self, buffer):
        assert [0xCC, 0xBE] == self._said
        buffer[:] = self._scratchpad

    def sleep_ms(self, duration_ms):
        if self.loses_power:
            self._converting_ms, self._scratchpad = 0, POWER_ON
        elif 0 < self._converting_ms <= duration_ms:
            self._converting_ms, self.conversions = 0, self.conversions + 1
            self._scratchpad = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
