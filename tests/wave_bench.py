"""One node's wave on a bench, on CPython and MicroPython alike: the real machine, real files, a hand on its clock."""

from firmware import slots, wave
from firmware.filters import convolve_layer
from firmware.start import prepare_filters
from firmware.trace import Trace
from firmware.wave import EVERYBODY, PROVEN, PROVING, PULLING, QUIET, READ, RECEIVED, RECEIVING, RESTING, Wave
from protocol.compat import TICKS_PERIOD, ticks_add
from protocol.health import MALFORMED

# Where every machine's clock starts in the tests: its ticks wrap within the first things it waits for.
BEFORE_WRAP = TICKS_PERIOD - 1_000
SITE = "memory"
# A set is handed on in such pieces unless a test says otherwise: no divisor of a set's size.
PIECE = 100
# What may follow each state.
ALLOWED = {
    RESTING: (QUIET, RESTING),
    QUIET: (PULLING, RECEIVING, RESTING),
    PULLING: (RECEIVING, RESTING),
    RECEIVING: (RECEIVED, RESTING),
    RECEIVED: (PROVING, RESTING),
    PROVING: (PROVEN, RESTING),
    PROVEN: (READ, RESTING),
    READ: (QUIET, RESTING),
}


class Watched(Wave):
    """A Wave that remembers its changes of state and makes none that the table does not allow."""

    def __init__(self, prepared, trace):
        self.changes = []
        Wave.__init__(self, prepared, trace)

    def _go(self, state, due_ms):
        if state not in ALLOWED[self.state]:
            raise RuntimeError(f"wave: from state {self.state} to {state}")
        self.changes.append((self.state, state))
        Wave._go(self, state, due_ms)


class Bench:
    """A node's filters and what is done with them, without the rest of the node."""

    def __init__(self, path, key, site=SITE):
        """Start on the files that lie there."""
        self.path, self.key, self.site = path, key, site
        self.now_ms = BEFORE_WRAP
        self.boot()

    def boot(self):
        """Start again: only the files are left of the time before."""
        self.trace = Trace()
        self.wave = Watched(prepare_filters(self.path, self.site, self.key), self.trace)

    def wait(self, duration_ms):
        self.now_ms = ticks_add(self.now_ms, duration_ms)
        return self.wave.step(self.now_ms)

    def feed(self, data, piece=PIECE, start=0, end=None):
        """Hand on a set, or what of it lies between two places, as the MQTT client does."""
        end = len(data) if end is None else end
        at = start
        while at < end or end == 0:
            stop = min(end, at + max(piece, 1 if at else 8))
            self.wave.feed(at, len(data), memoryview(data)[at:stop], self.now_ms)
            if stop == end:
                return
            at = stop

    def work(self):
        """Step until nothing is left to do. Returns the number of steps."""
        steps = 1
        while self.wave.step(self.now_ms):
            steps += 1
        return steps

    def take_in(self, data, piece=PIECE):
        """From the first byte to the verdict."""
        self.feed(data, piece)
        return self.work()

    def switch(self, version):
        """The cycle that asks for the staged set begins."""
        return self.wave.take_staged(version)

    def confirm(self):
        for _ in range(wave.TRIAL_CYCLES):
            self.complete_cycle()

    def complete_cycle(self):
        """A cycle of the set on trial comes to its end."""
        self.wave.completed += 1
        self.wave.step(self.now_ms)

    def rest(self):
        """Wait until the next try is allowed: never longer than the longest wait."""
        self.wait(wave.RETRY_MS << wave.RETRY_SHIFT_MAX)

    def faults(self):
        """The counters that are not zero: {place: count}."""
        counters = self.trace.counters
        return {place: counters[place] for place in range(MALFORMED, len(counters)) if counters[place]}

    def files(self):
        """What lies in the flash: what the record says of the slot that it counts on, and that slot."""
        active, phase, _, digests = slots.read_record(self.path)
        return [active, phase, digests[active], content(slots.slot_path(self.path, active))]

    def computed(self):
        """What the active filters make of inputs that are always the same."""
        filters, found = self.wave.active, b""
        for layer in range(len(filters.values)):
            for tap in range(len(filters.inputs[layer])):
                filters.inputs[layer][tap] = (tap * 7919 + 30_000) & (255 if layer else 65_535)
            convolve_layer(filters, layer)
            found += bytes(filters.values[layer])
        return filters.version, found


def refusal(bench, data, following):
    """What becomes of a node that is handed a set it has to refuse, and then, if there is one, the right set.

    Returns:
        [{place of each fault counted: how often}, sets refused, whether the node rests with nothing left to do,
        whether active filters, record and active slot are as before, whether it says so, what followed]
    """
    was, computed = [bench.wave.active.version, bench.files(), bench.wave.highest], bench.computed()
    bench.take_in(data)
    wave = bench.wave
    found = [bench.faults(), wave.refused, [wave.state, wave.phase, wave.slot, wave.staged] == [RESTING, 0, -1, None]]
    is_as_before = [wave.active.version, bench.files(), wave.highest] == was and bench.computed() == computed
    found += [is_as_before, wave.news == EVERYBODY]
    took = None
    if following:
        bench.rest()
        bench.take_in(following)
        took = [wave.state, wave.phase, wave.staged.version if wave.staged else 0, wave.highest]
        took += [bench.switch(wave.highest), bench.computed() != computed]
    found.append(took)
    return found


def content(path):
    """The bytes of a file, or None."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
