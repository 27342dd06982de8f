"""Mode event where links lose frames: windows that turned abnormal, and words that matter, are looked after.

A lost word leaves neighbours with different views, and nobody notices. So, beyond the rules of firmware/quiet.py:

- A word after which a window is normal again by the sender's view is said `copies` times, others half as often.
- A member that sees a window turn abnormal *challenges* it, `copies` times: it says what it takes for the members' last
  words. The corner does so when the exchange is over, another member an exchange later if it heard nobody's challenge.
- Every few cycles the corner challenges again while its window is abnormal and no other window of its own is.
- Members take the words in a challenge for the others' last words; one whose own is wrong there says it again, `copies`
  + 1 times.

sim/zones_loss.py has these rules for whole meshes; docs/zones.md tells what they cost and how far they reach.
"""

from firmware.quiet import GONE, NOBODY, turn_of
from firmware.stages import TO_HALO
from firmware.zone import WINDOWS
from protocol import frame
from protocol.compat import cold, const
from protocol.fixed import centred
from protocol.grid import CENTRE
from protocol.health import MALFORMED

# Windows a node is in; members of each.
_WINDOWS = const(4)
_MEMBERS = const(4)
# The corner of a window that stays abnormal looks after it in every so many cycles.
_AGAIN = const(3)
_CORNER = const(1)
_ALL = const(15)


class Watch:
    """What one node knows of its windows; bits are in the order of zone.WINDOWS.

    Attributes:
        is_wrong: somebody took the own last word for another one in this cycle; who answers clears this.
    """

    @cold
    def __init__(self, event):
        """No window is known to be abnormal."""
        self.is_wrong = False
        self._event = event
        self._abnormal = self._pending = self._heard = 0
        self._seen = 0  # whose challenges were taken in in this cycle, bits by window and place

    @cold
    def open_cycle(self) -> None:
        """A cycle begins; a window that is still abnormal may be looked after again."""
        node = self._event.node
        self._heard = self._seen = 0
        self.is_wrong = False
        if self._abnormal == _CORNER and (node.cycle + turn_of(node.row, node.col)) % _AGAIN == 0:
            self._pending |= _CORNER

    @cold
    def challenge(self, is_first: bool) -> None:
        """Challenge the windows that are due and that nobody challenged in this cycle; at first only corners do."""
        event = self._event
        self._look()
        there, readings_ccel = event.quiet.there, event.readings_ccel
        due = self._pending & ~self._heard & (_CORNER if is_first else _ALL)
        for window in range(_WINDOWS):
            if due >> window & 1:
                bits, words_ccel = 0, []
                for place in range(_MEMBERS):
                    tap = WINDOWS[_MEMBERS * window + place]
                    bits |= (there >> tap & 1) << place
                    words_ccel.append(readings_ccel[tap] if there >> tap & 1 else 0)
                # A node's place in its window of some number is that number.
                data = frame.challenge(event.node.header(frame.CHALLENGE), window, bits, words_ccel)
                for _ in range(event.copies):
                    event.node.send(TO_HALO, data)
        self._heard |= due
        self._pending &= ~self._heard

    @cold
    def take(self, tap: int, data) -> None:
        """Take in the challenge of a neighbour, once: a copy that comes late must not undo what was said upon it."""
        place = data[frame.CHALLENGE_MEMBERS] >> frame.CHALLENGE_PLACE
        if place >= _MEMBERS:
            self._event.node.trace.fault(MALFORMED)
            return
        for window in range(_WINDOWS):
            bit = 1 << (_MEMBERS * window + place)
            if WINDOWS[_MEMBERS * window + place] == tap and not self._seen & bit:
                self._seen |= bit
                self._heard |= 1 << window
                self._learn(window, tap, data)

    def _look(self) -> None:
        """Find what turned abnormal; not word by word, for words of one cycle belong together."""
        abnormal = self._event.quiet.abnormal()
        self._pending = (self._pending | ~self._abnormal) & abnormal
        self._abnormal = abnormal

    def _learn(self, window: int, challenger: int, data) -> None:
        """Compare the last words in a challenge with what is known of the window's members."""
        event = self._event
        for place in range(_MEMBERS):
            tap = WINDOWS[_MEMBERS * window + place]
            is_there = data[frame.CHALLENGE_MEMBERS] >> place & 1
            word_ccel = frame.i16(data, frame.CHALLENGE_READINGS + 2 * place) if is_there else None
            if tap == challenger:
                event.take_word(tap, data, word_ccel)
            elif tap == CENTRE:
                self.is_wrong |= event.quiet.differs(self._stored(word_ccel) if is_there else -1)
            elif is_there and event.node.exists >> (tap - (tap > CENTRE)) & 1:
                self._believe(tap, word_ccel)

    def _believe(self, tap: int, word_ccel: int) -> None:
        """Take in what a neighbour heard of another one. It is no sign of life: unheard before, it holds this cycle."""
        quiet = self._event.quiet
        self._event.readings_ccel[tap] = word_ccel
        quiet.view[tap] = self._stored(word_ccel)
        quiet.known |= 1 << tap
        quiet.there |= 1 << tap
        if quiet.silent[tap] == NOBODY:
            quiet.silent[tap] = GONE - 1

    def _stored(self, reading_ccel: int) -> int:
        return centred(reading_ccel, self._event.node.wave.active.reference_ccel)
