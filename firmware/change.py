"""Mode change (send-on-change): a node speaks when something moved, and computes with what everybody said last.

Plan of a cycle: say the reading if it moved too far from the own last word, then for each exchange wait until its time
is over, compute, say the activations if they are others than before. The last ones go to the block's owner, which
gathers what members handed over last and reports if anything in it changed. Heartbeats say all of it anew.

Rules (docs/change.md has them in full): silence completes no neighbourhood; the own value is computed from the own last
word; what was said stays known (firmware/heard.py); who may have missed words asks for them with a REFRESH, and says
everything again itself. Only nodes in mode change load this module.
"""

from array import array

from firmware.filters import compute_unit
from firmware.heard import Heard
from firmware.neighbours import AHEAD_MAX
from firmware.quiet import GONE, heartbeat_due
from firmware.stages import COLLECT, DONE, GATHER, TO_BLOCK, TO_GATEWAY, TO_HALO
from protocol import beacon, frame, grid, report
from protocol.compat import cold, const, rare
from protocol.filter_set import TRIAL
from protocol.fixed import centred
from protocol.health import OTHER_SHAPE, STALE

# In place of a last word that nobody may know: further from every reading than any threshold, u16.
_UNTOLD = const(1 << 17)
# Of a report, behind its seq: what it says, three bytes of masks first.
_SAYS = const(16)
_MASKS = const(3)


class Change:
    """What one node knows and does in mode change."""

    @cold
    def __init__(self, node):
        """Nobody is known yet; neighbours will be asked at the first cycle."""
        self._node = node
        self._heard = Heard(node.row, node.col, node.exists)
        self._own = array("H", (0,))
        self._word = _UNTOLD  # None: that there is no reading
        self._said = []  # by further exchange the activations said last, then what was handed over last
        self._told = 0  # which of them anybody may know
        self._reported = bytearray()  # the last report behind its seq; zeros: none
        self._run = -1
        self._filters = None
        self._missed = False  # what a neighbour said with other filters
        self._is_asked = self._is_due = self._has_spoken = self._is_computed = False

    @cold
    def begin(self) -> None:
        """A cycle begins, its sensor was read."""
        node = self._node
        if self._filters is not node.wave.active:
            self._filters = None  # it leaves its room to what comes
            self._change_filters()
        if self._run != node.run:
            self._run = node.run
            self._reported[0] = 0  # the gateway is another one, or started anew
        self._is_computed = False
        self._heard.grow_old()
        if node.rejoined:
            self._ask()
        self._is_due = heartbeat_due(node.row, node.col, node.cycle)
        self._has_spoken = self._is_due or self._is_news_of_reading()
        if self._has_spoken:
            self._word = node.reading_ccel
            self._say_word()
        node.abstain_unless_current()
        if self._word is None:
            self._told = 0  # all forget it; who regains a reading says everything again
        else:
            self._own[0] = centred(self._word, self._filters.reference_ccel)
        if node.state == DONE:
            if node.beacon.flags & beacon.WANT_PROOF:
                self._prove()
        elif self._word is None:
            node.go(GATHER)  # the owner is not known before all had time to speak
            self._count_trial()

    def feed(self, kind: int, slot: int, data, now_ms: int) -> None:
        """Take in a neighbour's frame."""
        node = self._node
        cycle, later_runs = frame.cycle_of(data, node.cycle), (frame.run_of(data) - node.run) & 0xFF
        if later_runs > 127:
            node.trace.fault(STALE)
            return
        if not later_runs and node.cycle < cycle <= node.cycle + AHEAD_MAX:
            node.enter(node.run, cycle, frame.version_of(data), now_ms)
        node.trace.take(kind, len(data))
        node.wave.notice(slot, frame.version_of(data), now_ms)
        same_version = frame.version_of(data) == self._filters.version & 0xFFFF
        self._heard.around.hear(slot, same_version)
        age = 0 if later_runs or cycle > node.cycle else min(node.cycle - cycle, GONE)
        if kind == frame.REFRESH:
            self._is_asked = True
            return
        taken = True
        if kind < frame.ACTIVATIONS:
            taken = self._heard.take_word(slot, data, age, self._filters.reference_ccel)
        elif not same_version:  # units of different filters are never convolved or pooled together
            self._missed = True
        elif kind == frame.ACTIVATIONS:
            taken = self._heard.take_activations(slot, data, age)
        else:
            taken = self._heard.take_member(slot, data, age, self._filters)
        if not taken:
            node.trace.fault(OTHER_SHAPE if taken is None else STALE)

    def step(self, is_over: bool) -> bool:
        """Take the next step if the time for what the node waits for is over; False: there is none to take now.

        One after the other, for a node has no room for the code of all at once.
        """
        node = self._node
        if self._is_asked:
            self._answer()
        if self._is_computed:
            self._hand_over()
        elif is_over and node.state == COLLECT:
            self._compute()
        elif is_over and node.state == GATHER:
            block = self._heard.gather(self._filters, self._word is not None)
            if block:
                self._report(block)
            node.go(DONE)
        else:
            return False
        if node.state == DONE and node.beacon.flags & beacon.WANT_PROOF:
            self._prove()
        return True

    @rare
    def _change_filters(self) -> None:
        """Words stand; all else will be said anew by everybody."""
        filters = self._node.wave.active
        self._heard.use_filters(filters)
        channels, exchanges = len(filters.values[-1]), len(filters.exchanges)
        self._said = [bytearray(len(filters.values[layer - 1])) for layer in filters.exchanges[1:]]
        self._said.append(bytearray(exchanges + channels))
        self._told = 0
        self._reported = bytearray(_MASKS + grid.CORNERS * exchanges + channels)
        self._filters = filters  # once all the rest is there: else the next cycle begins with this again
        if self._missed:
            self._missed = False
            self._node.rejoined = True

    @rare
    def _ask(self) -> None:
        """Have neighbours say their last words again, and say everything oneself."""
        self._node.rejoined = False
        self._word = _UNTOLD
        self._told = self._reported[0] = 0
        self._node.send(TO_HALO, self._node.header(frame.REFRESH))

    @cold
    def _is_news_of_reading(self) -> bool:
        """Whether the reading is not what was said last, or further from it than the threshold."""
        reading_ccel, word = self._node.reading_ccel, self._word
        if reading_ccel is None or word is None:
            return reading_ccel is not word
        return abs(reading_ccel - word) > self._node.beacon.setting

    @cold
    def _say_word(self) -> None:
        node = self._node
        if self._word is None:
            node.send(TO_HALO, node.header(frame.NO_READING))
        else:
            node.send(TO_HALO, frame.reading(node.header(frame.READING), self._word))

    @rare
    def _answer(self) -> None:
        """Say everything again; not the word if it was said in this cycle: who asks has been listening since before."""
        self._is_asked = False
        self._told = 0
        if not self._has_spoken:
            self._has_spoken = True
            self._say_word()

    @cold
    def _compute(self) -> None:
        """Compute the unit of an exchange; say the activations if another one follows and they are news."""
        node, filters = self._node, self._filters
        layer = filters.exchanges[node.exchange]
        self._heard.around.fill(node.exchange, filters.values[layer - 1] if layer else self._own)
        layer = compute_unit(filters, layer)
        if layer == len(filters.values):
            self._is_computed = True
            return
        values = filters.values[layer - 1]
        node.exchange += 1
        if self._is_news(node.exchange - 1, values):
            node.send(TO_HALO, frame.activations(node.header(frame.ACTIVATIONS), node.exchange, values))

    @cold
    def _is_news(self, place: int, content) -> bool:
        """Whether this has to be said, and is said then: it is not what was said last, or everything is said anew."""
        told, self._told = self._told, self._told | 1 << place
        return copied(self._said[place], content) or self._is_due or not told >> place & 1

    @cold
    def _hand_over(self) -> None:
        """Keep the last activations, or give them to the block's owner if they, or what is absent, changed."""
        node, absence, values = self._node, self._heard.around.absence, self._filters.values[-1]
        self._is_computed = False
        self._count_trial()
        if self._heard.is_owner():
            self._told &= (1 << len(absence) - 1) - 1  # the next owner knows nothing of it
            node.go(GATHER)
            return
        if self._is_news(len(absence) - 1, absence + values):
            node.send(TO_BLOCK, frame.member(node.header(frame.MEMBER), absence, None, values))
        node.go(DONE)

    @cold
    def _report(self, block) -> None:
        """Say what the block's last words come to, if that is news."""
        node = self._node
        data = report.pack(node.header(frame.REPORT), node.boot, node.seq + 1, block, block.features())
        # Those of another length have other masks, too; a report always names a member.
        if copied(self._reported, data[_SAYS:]) or self._is_due:
            node.seq += 1
            node.tell_gateway(data)

    @cold
    def _count_trial(self) -> None:
        if self._node.wave.phase == TRIAL:
            self._node.wave.completed += 1

    @rare
    def _prove(self) -> None:
        """Say the own last word to the gateway, because it asks."""
        node, word = self._node, self._word
        state = frame.STATE_NONE if word is None else 0
        node.send(TO_GATEWAY, frame.proof(node.header(frame.PROOF), state, word or 0))


@cold
def copied(buffer, content) -> bool:
    """Put a content into a buffer of its length or more, in place; whether it is another one than before."""
    differs = False
    for at in range(len(content)):
        if buffer[at] != content[at]:
            buffer[at] = content[at]
            differs = True
    return differs
