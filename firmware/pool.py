"""The block: an owner gathers its block-mates' last activations and keeps the maximum per channel.

Every member listens, because any of them may turn out to be the owner; only the owner reports.
"""

from array import array

from protocol import frame
from protocol.compat import cold
from protocol.grid import CORNERS


class Block:
    """One cycle's gathering. Members are named by their corner 0..3; the masks have one bit a corner.

    Attributes:
        pooled: members whose activations are in `maximum`.
        no_reading: members that said they have no reading.
        maximum: uint8 per channel.
        exchanges: absence bytes per member.
        absence: uint8 [4 * exchanges], by corner.
        readings: int16 [4], by corner.
        with_readings: whether every pooled member's reading is known, so that the report can carry them.
    """

    @cold
    def __init__(self, channels: int, exchanges: int):
        """Sized by the filter set."""
        self.exchanges = exchanges
        self.maximum = bytearray(channels)
        self.absence = bytearray(CORNERS * exchanges)
        self.readings = array("h", (0 for _ in range(CORNERS)))
        self.start_gathering()

    @cold
    def start_gathering(self) -> None:
        """Forget the last cycle."""
        self.pooled = self.no_reading = 0
        self.with_readings = True
        for channel in range(len(self.maximum)):
            self.maximum[channel] = 0
        for at in range(len(self.absence)):
            self.absence[at] = 0

    def put(self, corner: int, values, absence, reading_ccel) -> None:
        """Take in one member's activations, absence bytes and, where known, reading. The caller refuses doubles."""
        self.pooled |= 1 << corner
        for channel in range(len(self.maximum)):
            if values[channel] > self.maximum[channel]:
                self.maximum[channel] = values[channel]
        for exchange in range(self.exchanges):
            self.absence[corner * self.exchanges + exchange] = absence[exchange]
        if reading_ccel is None:
            self.with_readings = False
        else:
            self.readings[corner] = reading_ccel

    def put_frame(self, corner: int, member) -> bool:
        """Take in a MEMBER frame; False if that member spoke before, None if it does not fit the filter set."""
        at = frame.member_activations(member)
        flags = member[frame.HEADER_SIZE]
        if not member_fits(member, len(self.maximum), self.exchanges):
            return None
        if (self.pooled | self.no_reading) >> corner & 1:
            return False
        start = frame.HEADER_SIZE + 1
        absence = member[start : start + self.exchanges] if flags & frame.HAS_ABSENCE else bytes(self.exchanges)
        reading_ccel = frame.i16(member, frame.member_reading(member)) if flags & frame.HAS_READING else None
        self.put(corner, member[at:], absence, reading_ccel)
        return True

    @cold
    def features(self) -> bytes:
        """The maximum per channel, or nothing when no member was pooled."""
        return bytes(self.maximum) if self.pooled else b""


def member_fits(member, channels: int, exchanges: int) -> bool:
    """Whether a MEMBER frame has the form that a filter set gives it."""
    at = frame.member_activations(member)
    return len(member) - at == channels and member[frame.HEADER_SIZE] >> 4 == exchanges
