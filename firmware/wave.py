"""The node's part in a wave: notice a newer filter set, pull it from one neighbour, prove it, hold it, switch to it.

    QUIET -> PULLING -> RECEIVING -> RECEIVED -> PROVING -> PROVEN -> READ -> QUIET, the set staged
    any of these -> RESTING -> QUIET, the reason counted

A node next to the gateway is given the set unasked and goes from QUIET to RECEIVING. From RECEIVED on it is a machine
of small steps, taken while no cycle runs. Nearly all of it is cold code, which costs no heap while the mesh rests.

Rules: no set is taken twice, nor one below the highest ever held. While a set is on trial its predecessor's slot is
not touched; beacons that go on to name another set bring it back. Whatever fails is counted, and the next try waits,
longer from time to time, and asks another neighbour first.
"""

from firmware import slots
from firmware.filters import Filters
from firmware.wave_check import passes, read_back
from firmware.wave_receive import receive
from protocol import ed25519, filter_set
from protocol.compat import cold, const, rare, ticks_add, ticks_diff
from protocol.filter_set import CONFIRMED, OPENING_SIZE, RETURNED, SIGNATURE_SIZE, SIZE_MAX, STAGED, TRIAL
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

# Who is told of a phase: those who may pull the set, and the gateway.
NEIGHBOURS = const(1)
EVERYBODY = const(3)

# A set comes within this time or not at all.
PULL_MS = const(15_000)
# After a failure wait 1 s, 2 s, 4 s ... 64 s before the next try.
RETRY_MS = const(1_000)
RETRY_SHIFT_MAX = const(6)
# Completed cycles until a set counts as confirmed.
TRIAL_CYCLES = const(3)
# So many cycles in a row are opened for another version than the one on trial: the trial is over.
STRAY_CYCLES = const(10)
# After a failed pull so many frames of that neighbour are passed over, for in that time the others speak too.
PASSED_OVER = const(3)


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
        news: who has still to be told of the present phase, NEIGHBOURS or EVERYBODY, or 0; who tells them clears this.
        refused: sets refused since the start.
        completed: cycles of the set on trial that came to their end here; whoever computes them counts. One without a
            reading counts too: where the sensor is broken, no other set could ever be taken.
        stray: opened cycles in a row that were of another version than the one on trial.
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
        self.news = EVERYBODY if self.phase != CONFIRMED else 0
        self.refused = self.stray = 0
        self._trace = trace
        if self.phase == RETURNED:
            trace.fault(SET_RETURNED)
        self._work = None
        self._digest = b""
        self._slot_path = ""
        self._due_ms = None
        self._failures = self.completed = 0
        self._asked = -1  # the latest neighbour that was asked
        self._passes = 0

    # Towards a newer set

    def notice(self, slot: int, version: int, now_ms: int) -> None:
        """A neighbour holds the set with this version (its low half): pull it if it is newer than all there was."""
        ahead = (version - self._least()) & 0xFFFF
        if self.state == QUIET and ahead < 0x8000:
            if slot == self._asked and self._passes:
                self._passes -= 1
                return
            self.slot = self._asked = slot
            self._passes = 0
            self._go(PULLING, ticks_add(now_ms, PULL_MS))

    def feed(self, at: int, size: int, data, now_ms: int) -> None:
        """Take in the bytes from offset `at` of a set of `size` bytes."""
        if at == 0 and (self.state == QUIET or self.state == PULLING):
            self._open_slot(size, data, now_ms)
        if self.state == RECEIVING and self._work.feed(data):
            self._go(RECEIVED, None)

    def step(self, now_ms: int) -> bool:
        """Do a small piece of work, if there is any; True if there is more to do at once."""
        state = self.state
        if state < RECEIVED:
            if self.completed >= TRIAL_CYCLES:
                self._confirm()
            if self._due_ms is not None and ticks_diff(self._due_ms, now_ms) <= 0:
                self._give_up(now_ms)
            return False
        try:
            if state == PROVING:
                valid = next(self._work)
                if valid is not None:
                    self._work = valid  # the machine goes, for what comes next needs its room
                    self._go(PROVEN, None)
            elif state == RECEIVED:
                self._begin_proof()
            elif state == PROVEN:
                self._read_back(now_ms)
            elif self._passes_tests():
                self._hold()
            else:
                self._fail(REFUSED_SELF_TEST, now_ms)
        except (OSError, MemoryError):
            self._work = None
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
            self._work = receive(self._slot_path, size)
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
        signed, signature = self._work.finish(), self._work.signature
        self._work = None  # its code goes before that of the proof comes
        self._digest = slots.digest_of(signed, signature)
        self._work = ed25519.verify(self._key, signature, signed)
        self._go(PROVING, None)

    @cold
    def _read_back(self, now_ms: int) -> None:
        """The signature is checked: take the set apart, or refuse it."""
        self.slot = -1  # not before: whoever leaves a topic is answered, and the proof leaves no room for much
        valid, self._work, reason = self._work, None, REFUSED_SIGNATURE
        if valid:
            self._work, reason = read_back(self._slot_path, self._site, self._least(), self._digest)
        if self._work is None:
            self._fail(reason, now_ms)
        else:
            self._go(READ, None)

    @cold
    def _passes_tests(self) -> bool:
        """The set is well-formed: whether this node computes what it says."""
        found = self._work
        self._work = Filters(found)
        return passes(self._work, found.tests)

    @cold
    def _hold(self) -> None:
        """Nothing speaks against the set: keep it for a later cycle, and offer it."""
        staged, self._work = self._work, None
        slots.stage(self._path, staged.version, self._digest)
        self.staged, self.offers = staged, self._slot_path
        self.highest = staged.version
        self._failures = 0
        self._change(STAGED, QUIET)

    @rare
    def _fail(self, reason: int, now_ms: int) -> None:
        """Give up this set for now."""
        if self.state == RECEIVING:
            try:
                self._work.finish()
            except OSError:
                pass  # nobody will read it
        self._work = None
        self._passes = PASSED_OVER
        self.slot = -1
        self._trace.fault(reason)
        if reason != WAVE_BROKEN:
            self.refused += 1
            self.news = EVERYBODY
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

    def take_staged(self, version: int) -> bool:
        """Compute with the staged set from now on, if it is the one with this version (its low half)."""
        return self.staged.version & 0xFFFF == version & 0xFFFF and self._switch()

    @rare
    def _switch(self) -> bool:
        try:
            slots.mark(self._path, TRIAL, self.highest)
        except (OSError, MemoryError):
            self._trace.fault(WAVE_BROKEN)
            return False
        self.active, self.staged = self.staged, None
        self._own_offer = self.offers
        self.slot = -1
        self.completed = self.stray = 0
        self._change(TRIAL, RESTING)
        return True

    @cold
    def told(self, version: int) -> None:
        """A beacon opened a cycle that is computed with the set of this version."""
        self.stray = self.stray + 1 if self.phase == TRIAL and version != self.active.version else 0

    @rare
    def go_back(self) -> bool:
        """Compute with the set before the one on trial again, as after a reset; False while that cannot be had."""
        self.completed = self.stray = 0
        try:
            tried, phase, _, digests = slots.read_record(self._path)
            path, digest = slots.slot_path(self._path, 1 - tried), digests[1 - tried]
            before = slots.load(path, digest, filter_set.read) if phase == TRIAL else None
            if before is None:
                raise OSError
            before = Filters(before)
            slots.mark(self._path, RETURNED, self.highest)
        except (OSError, ValueError, MemoryError):
            self._trace.fault(WAVE_BROKEN)
            return False
        self.active = before
        self.offers = self._own_offer = slots.offer(path, digest)
        self._trace.fault(SET_RETURNED)
        self._change(RETURNED, QUIET)
        return True

    @rare
    def _confirm(self) -> None:
        """Enough cycles of the set on trial were computed to their end."""
        self.completed = 0
        try:
            slots.mark(self._path, CONFIRMED, self.highest)
            self._change(CONFIRMED, QUIET)
        except (OSError, MemoryError):
            self.completed = TRIAL_CYCLES - 1  # once more after the next cycle
            self._trace.fault(WAVE_BROKEN)

    @cold
    def _change(self, phase: int, state: int) -> None:
        self.phase = phase
        self.news = EVERYBODY
        self._go(state, None)

    def _go(self, state: int, due_ms) -> None:
        self.state = state
        self._due_ms = due_ms
