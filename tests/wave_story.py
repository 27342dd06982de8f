"""What happens to a node's filter slots, step by step, on CPython and MicroPython alike, and what may come of it."""

from wave_bench import SITE, Bench, content

from firmware import slots
from firmware.start import prepare_filters
from protocol.filter_set import CONFIRMED, RETURNED, STAGED

STORIES = ("whole", "returned", "replaced")


class Story:
    """What happens to a node until it is cut off, and what it may be when it comes back.

    Attributes:
        may_be: what `prepare_filters` may find: (active, staged or 0, phase, highest) each, versions of sets.
        bench: the node.
    """

    def __init__(self, path, key, sets, make=Bench, tell=None):
        """Start a node on the files that lie at `path`; `tell` is called with `may_be` whenever it changes."""
        self._path, self._key, self._sets, self._make, self._tell = path, key, sets, make, tell
        self._boot()
        self._expect([found(self.bench.wave)])

    def _boot(self):
        self.bench = self._make(self._path, self._key)

    def _expect(self, states):
        self.may_be = states
        if self._tell:
            self._tell(states)

    def _do(self, action, argument, after, between=()):
        """Let something happen: until it is over the node may be as before, in between, or after it."""
        self._expect(self.may_be + list(between) + [after])
        action(*argument)
        self._expect([after])

    def take_in(self):
        """The next set is received, proven and held; one that was held until then is given up first."""
        version = self.bench.wave.highest + 1
        active, _, phase, highest = self.may_be[0]
        between = [(active, 0, CONFIRMED, highest)] if phase == STAGED else []
        self._do(self.bench.take_in, (self._sets[version],), (active, version, STAGED, version), between)

    def switch(self):
        """The set is on trial: a node that starts again now is back at the one before."""
        active, _, _, highest = self.may_be[0]
        self._do(self.bench.switch, (highest,), (active, 0, RETURNED, highest))

    def confirm(self):
        """The set has passed its trial."""
        highest = self.may_be[0][3]
        self._do(self.bench.confirm, (), (highest, 0, CONFIRMED, highest))

    def whole(self):
        """A set comes in, is tried and confirmed."""
        self.take_in()
        self.switch()
        self.confirm()

    def returned(self):
        """The node is reset while the set is on trial; then a better one comes."""
        self.take_in()
        self.switch()
        self._boot()
        self.whole()

    def replaced(self):
        """A newer set takes the place of one that waits for its cycle."""
        self.take_in()
        self.whole()


def found(prepared):
    """What a node holds: of a Wave."""
    staged = prepared.staged.version if prepared.staged else 0
    return prepared.active.version, staged, prepared.phase, prepared.highest


def check(path, may_be, key, sets):
    """The node comes back as one of those it may be, with whole sets, and takes the next one."""
    bench = Bench(path, key)
    state = found(bench.wave)
    if state not in may_be:
        raise RuntimeError(f"is {state}, not one of {may_be}")
    active = slots.read_record(path)[0]
    if content(slots.slot_path(path, active)) != sets[state[0]]:
        raise RuntimeError("the active slot is not whole")
    if state[1] and content(bench.wave.offers) != sets[state[1]]:
        raise RuntimeError("the staged slot is not whole")
    if state != found(Bench(path, key).wave):
        raise RuntimeError("a second start finds something else")
    version = state[3] + 1
    bench.take_in(sets[version])
    if not bench.switch(version):
        raise RuntimeError("takes nothing more")
    bench.confirm()
    prepared = prepare_filters(path, SITE, key)
    if (prepared[0].version, prepared[2]) != (version, CONFIRMED):
        raise RuntimeError("did not keep the next set")
