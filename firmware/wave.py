"""The node's part in a wave: notice a newer filter set, pull it from one neighbour, prove it, hold it, switch to it.

    QUIET -> PULLING -> RECEIVING -> RECEIVED -> PROVING -> PROVEN -> READ -> QUIET, the set staged
    any of these -> RESTING -> QUIET, the reason counted

A node next to the gateway is given the set unasked and goes from QUIET to RECEIVING. From RECEIVED on it is a machine
of small steps, taken while no cycle runs. Nearly all of it is cold code, which costs no heap while the mesh rests.

Rules: no set is taken twice, nor one below the highest ever held. While a set is on trial its predecessor's slot is
not touched. Whatever fails is counted, and the next try waits, longer from time to time.
"""

from firmware import slots
from firmware.filters import Filters
from firmware.wave_check import passes, read_back
from firmware.wave_receive import Receiver
from protocol import ed25519
from protocol.compat import cold, const, rare, ticks_add, ticks_diff
from protocol.filter_set import CONFIRMED, RETURNED, SIGNATURE_SIZE, SIZE_MAX, STAGED, TRIAL
from protocol.frame import u16
from protocol.health import (
    REFUSED_FORM,
    REFUSED_SELF_TEST,
    REFUSED_SIGNATURE,
    REFUSED_VERSION,
    SET_RETURNED,
    WAVE_BROKEN,
)

RESTING = const(0)  # takes no set: without a key, with a set on trial, for a while after a failure
QUIET = const(1)
PULLING = const(2)  # asked a neighbour for its set
RECEIVING = const(3)  # the set is coming in
RECEIVED = const(4)  # it is there as a whole; from here on there is work to do
PROVING = const(5)  # its signature is being checked
PROVEN = const(6)  # that is done
READ = const(7)  # read back from the slot and well-formed

# A set comes within this time or not at all.
PULL_MS = const(15_000)
# After a failure wait 1 s, 2 s, 4 s ... 64 s before the next try.
RETRY_MS = const(1_000)
RETRY_SHIFT_MAX = const(6)
# Completed cycles until a set counts as confirmed.
TRIAL_CYCLES = const(3)
# So much of a set has to be there to tell its version; the MQTT client delivers no first piece below it.
OPENING_SIZE = const(8)


class Wave:
    """The filters of one node and what it does about newer ones.

    Attributes:
        active: the Filters that compute.
        staged: Filters held for a later cycle, or None.
        phase: CONFIRMED, TRIAL, STAGED or RETURNED.
        highest: the highest version ever held.
        state: one of those above.
        slot: the neighbour that is asked for its set, -1 for none. The shell keeps its subscriptions at that.
        offers: path of the set that neighbours may pull, "" for none but the one that was flashed.
        news: neighbours and gateway have not been told of the present phase; whoever tells them clears this.
        refused: sets refused since the start.
    """

    @cold
    def __init__(self, prepared, trace):
        """`prepared` is what firmware.start.prepare_filters returned; `trace` counts what goes wrong."""
        active, staged, self.phase, self.highest, self._path, offers, self._site, self._key = prepared
        self.active = Filters(active)
        self.staged = Filters(staged) if staged else None
        self._own_offer, self.offers = offers
        self.state = QUIET if self._key else RESTING
        self.slot = -1
        self.news = self.phase != CONFIRMED
        self.refused = 0
        self._trace = trace
        if self.phase == RETURNED:
            trace.fault(SET_RETURNED, self.highest)
        self._work = self._valid = None
        self._digest = b""
        self._slot_path = ""
        self._due_ms = None
        self._failures = self._completed = 0

    # Towards a newer set

    def notice(self, slot: int, version: int, now_ms: int) -> None:
        """A neighbour holds the set with this version (its low half): pull it if it is newer than all there was."""
        ahead = (version - self._least()) & 0xFFFF
        if self.state == QUIET and ahead < 0x8000:
            self.slot = slot
            self._go(PULLING, ticks_add(now_ms, PULL_MS))

    def feed(self, at: int, size: int, data, now_ms: int) -> None:
        """Take in the bytes from offset `at` of a set of `size` bytes."""
        if at == 0:
            self._open_slot(size, data, now_ms)
        if self.state == RECEIVING and self._work.feed(data):
            self._go(RECEIVED, None)

    def step(self, now_ms: int) -> bool:
        """Do a small piece of work, if there is any; True if there is more to do at once."""
        state = self.state
        if state < RECEIVED:
            if self._due_ms is not None and ticks_diff(self._due_ms, now_ms) <= 0:
                self._give_up(now_ms)
            return False
        try:
            if state == PROVING:
                self._valid = next(self._work)
                if self._valid is not None:
                    self._work = None  # first of all, for what comes next needs its room
                    self._go(PROVEN, None)
            elif state == RECEIVED:
                self._begin_proof()
            elif state == PROVEN:
                self._read_back(now_ms)
            else:
                self._try_out(now_ms)
        except (OSError, MemoryError):
            self._give_up(now_ms)
        return self.state >= RECEIVED

    @rare
    def lose_link(self, now_ms: int) -> None:
        """The connection is lost, and with it what was coming in."""
        if self.state == PULLING or self.state == RECEIVING:
            self._fail(WAVE_BROKEN, now_ms)

    @rare
    def _open_slot(self, size: int, data, now_ms: int) -> None:
        """Decide by its first bytes whether to take in a set."""
        if self.state not in (QUIET, PULLING):
            return
        if not SIGNATURE_SIZE + OPENING_SIZE < size <= SIZE_MAX:
            self._fail(REFUSED_FORM, now_ms)
            return
        version = u16(data, 4) | u16(data, 6) << 16
        if version < self._least():
            if version < self.highest or self.phase == RETURNED:
                self._fail(REFUSED_VERSION, now_ms)
            return
        if self.phase == STAGED:
            self.staged, self.phase = None, CONFIRMED
            self.offers = self._own_offer
        try:
            self._slot_path = slots.free_slot(self._path, self.highest)
            self._work = Receiver(self._slot_path, size)
            self._go(RECEIVING, ticks_add(now_ms, PULL_MS))
        except OSError:
            self._fail(WAVE_BROKEN, now_ms)

    def _least(self) -> int:
        """The lowest version worth having: above all that there were, or the highest again if it was let go unused."""
        let_go = self.phase == CONFIRMED and self.active.version < self.highest
        return self.highest if let_go else self.highest + 1

    @cold
    def _begin_proof(self) -> None:
        """The whole set is there."""
        self.slot = -1
        self._digest = self._work.finish()
        self._work = ed25519.verify(self._key, self._work.signature, self._digest)
        self._go(PROVING, None)

    @cold
    def _read_back(self, now_ms: int) -> None:
        """The signature is checked: take the set apart, or refuse it."""
        self._work, reason = None, REFUSED_SIGNATURE
        if self._valid:
            self._work, reason = read_back(self._slot_path, self._site, self._least(), self._digest)
        if self._work is None:
            self._fail(reason, now_ms)
        else:
            self._go(READ, None)

    @cold
    def _try_out(self, now_ms: int) -> None:
        """The set is well-formed: hold it if this node computes what it says."""
        filter_set, self._work = self._work, None
        staged = Filters(filter_set)
        if not passes(staged, filter_set.tests):
            self._fail(REFUSED_SELF_TEST, now_ms)
            return
        slots.stage(self._path, staged.version, self._digest)
        self.staged, self.offers = staged, self._slot_path
        self.highest = staged.version
        self._failures = 0
        self._change(STAGED, QUIET)

    @cold
    def _fail(self, reason: int, now_ms: int) -> None:
        """Give up this set for now."""
        if self.state == RECEIVING:
            try:
                self._work.finish()
            except OSError:
                pass  # nobody will read it
        self._work = None
        self.slot = -1
        self._trace.fault(reason, self.highest)
        if reason != WAVE_BROKEN:
            self.refused += 1
            self.news = True
        self._go(RESTING, ticks_add(now_ms, RETRY_MS << min(self._failures, RETRY_SHIFT_MAX)))
        self._failures += 1

    @cold
    def _give_up(self, now_ms: int) -> None:
        """The time is over: for the set that was asked for, or for waiting after a failure."""
        if self.state == RESTING:
            self._go(QUIET, None)
        else:
            self._fail(WAVE_BROKEN, now_ms)

    # From one set to the next

    @cold
    def take_staged(self, version: int) -> bool:
        """Compute with the staged set from now on, if it is the one with this version (its low half)."""
        if self.staged.version & 0xFFFF != version & 0xFFFF:
            return False
        try:
            slots.mark(self._path, TRIAL, self.highest)
        except OSError:
            self._trace.fault(WAVE_BROKEN, self.highest)
            return False
        self.active, self.staged = self.staged, None
        self._own_offer = self.offers
        self.slot = -1
        self._completed = 0
        self._change(TRIAL, RESTING)
        return True

    @rare
    def complete_cycle(self) -> None:
        """A cycle of the trial was computed to its end."""
        self._completed += 1
        if self._completed < TRIAL_CYCLES:
            return
        try:
            slots.mark(self._path, CONFIRMED, self.highest)
            self._change(CONFIRMED, QUIET)
        except OSError:
            self._trace.fault(WAVE_BROKEN, self.highest)

    def _change(self, phase: int, state: int) -> None:
        self.phase = phase
        self.news = True
        self._go(state, None)

    def _go(self, state: int, due_ms) -> None:
        self.state = state
        self._due_ms = due_ms
