"""Mode event of a layer with sign under loss: every node has a view of its own, and some of them are wrong.

The rules are those of firmware/quiet.py and docs/zones.md. First in a cycle speak those whom nothing keeps silent, who
lost or regained the reading or whose heartbeat is due. Then, round by round, those whose reading lies outside the zone
by their own view. When nobody has to speak, each window that somebody saw turn abnormal is challenged: the first member
that saw it says what it saw, once, and members whose own last word was another one repeat it. A cycle ends when all are
silent. `Policy` has more that nodes may do.

In the first cycle nothing is lost: a new node asks until it knows its neighbours. What nodes find is compared with the
states of a full exchange among those that live.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware import zone
from firmware.quiet import turn_of
from gateway.ledger import AIR_OVERHEAD
from gateway.model import Filters
from gateway.site import Site
from protocol.filter_set import WINDOW_TAPS
from protocol.fixed import READING_MAX, READING_MIN
from protocol.grid import CENTRE, TAPS
from sim.zones import UNBOUNDED, Bools, Ints, Windows
from sim.zones_faults import NEVER, Blocks, Faults, Links

# What is still to be said after so many rounds waits for the next cycle.
ROUNDS_MAX = 64
# Payload of a CHALLENGE frame, in bytes.
CHALLENGE_SIZE = 15
# Neighbours that are silent for longer than so many heartbeats are gone, as in firmware/quiet.py.
_HEARTBEATS = 1
# Taps of the members C E S SE of each of a node's windows; who is at a place of a window has it as its window of that
# number: place 1 is E, and E's window 1 is the one whose corner lies W.
_MEMBERS = np.array(list(zone.WINDOWS)).reshape(len(WINDOW_TAPS), len(WINDOW_TAPS))
_PLACES = np.arange(len(_MEMBERS))


class Policy(NamedTuple):
    """What nodes do against loss.

    Attributes:
        copies: how often each value is sent, 1 or more.
        heartbeat: cycles after which a last word is said again; 0: never, and nobody is ever given up.
        challenge: how often each challenge is sent; 0: there are none.
        again: cycles after which the corner of a window that is still abnormal, and the only such window it is in,
            challenges it again; 0: it does not.
        learns: whether members take the readings in a challenge for last words.
        answers: how often a challenged word is sent, 0: as often as others.
        returns: how often a value is sent that makes a window normal again in its sender's view, 0: as often as others.
    """

    copies: int = 1
    heartbeat: int = 48
    challenge: int = 1
    again: int = 0
    learns: bool = False
    answers: int = 0
    returns: int = 0


def watched(copies: int) -> Policy:
    """What nodes do that are told to say `copies` times what matters, 2 or more (firmware/watch.py)."""
    usual = copies // 2
    return Policy(usual, challenge=copies, again=3, learns=True, answers=copies + 1, returns=copies)


class Lossy(NamedTuple):
    """What was said and what came of it, cycle by cycle.

    Attributes:
        values: int64 [cycles], frames with a value, all copies.
        heartbeats: int64 [cycles], frames with a last word because its turn had come, all copies.
        challenges: int64 [cycles], frames with a challenge, all copies.
        upward: int64 [cycles], blocks' bits.
        answers: bool [cycles], whether the gateway knows of an abnormal block.
        states: bool [cycles, rows, cols], what each living node takes its own window for.
        expected: bool [cycles, rows, cols], the states of a full exchange among the living.
        noticed: int64 [nodes that died and were given up], cycles from death until no neighbour counted on them.
    """

    values: Ints
    heartbeats: Ints
    challenges: Ints
    upward: Ints
    answers: Bools
    states: Bools
    expected: Bools
    noticed: Ints

    def bytes_in_mesh(self, value_size: int) -> Ints:
        """Per cycle, of values with this payload and of challenges, without heartbeats."""
        values = self.values * (AIR_OVERHEAD + value_size)
        return values + self.challenges * (AIR_OVERHEAD + CHALLENGE_SIZE)

    def bytes_of_heartbeats(self, size: int) -> Ints:
        """Per cycle, of heartbeats with this payload."""
        return self.heartbeats * (AIR_OVERHEAD + size)

    def bytes_upward(self, bit_size: int) -> Ints:
        """Per cycle, of blocks' bits with this payload."""
        return self.upward * (AIR_OVERHEAD + bit_size)


def simulate(
    filters: Filters, readings_ccel: NDArray[np.integer], present: Bools, site: Site, policy: Policy, faults: Faults
) -> Lossy:
    """Run a room through mode event under loss.

    Args:
        filters: one layer with sign.
        readings_ccel: int16 [cycles, rows, cols], in the order in which they happened; one cycle or more.
        present: bool, of the readings' shape: which nodes have one.
        site: where nodes stand.
        policy: what nodes do.
        faults: what is done to them.
    """
    centred = np.clip(readings_ccel.astype(np.int64) - filters.reference_ccel, READING_MIN, READING_MAX)
    dies = np.full(site.mask.shape, NEVER) if faults.dies is None else faults.dies
    mesh, blocks = _Mesh(filters, site, policy, faults), Blocks(site, faults)
    counts, states, expected = [], [], []
    noticed: dict[int, int] = {}
    for cycle, values in enumerate(centred):
        alive = site.mask & (dies > cycle)
        here, living = alive & present[cycle], alive.ravel()
        said = mesh.cycle(cycle, values.ravel(), here.ravel(), living)
        states.append(mesh.states())
        counts.append((*said, *blocks.cycle(states[-1], living)))
        expected.append(Windows(filters, here).states(values))
        for node in mesh.given_up():
            noticed.setdefault(node, cycle - int(dies.flat[node]))
    frames, heartbeats, challenges, upward, answers = np.array(counts, np.int64).T
    gone = np.array(list(noticed.values()), np.int64)
    found = np.array(states).reshape(centred.shape)
    return Lossy(frames, heartbeats, challenges, upward, answers == 1, found, np.array(expected), gone)


def limits(taps: Ints, bias: Ints, view: Ints, there: Bools) -> tuple[Ints, Ints, Bools]:
    """What firmware/zone.py works out, for many nodes at once, and the states of all their windows.

    Args:
        taps: int64 [filters, 4], weights of C E S SE.
        bias: int64 [filters].
        view: int64 [nodes, 9], last words, centred.
        there: bool [nodes, 9], whether they are readings.

    Returns:
        int64 [nodes], how far each may rise; the same, fall (UNBOUNDED or more: as it likes); bool [nodes, 4], abnormal
        windows, the own one first, then those whose corners are W, N and NW.
    """
    seen, corner = there[:, _MEMBERS, np.newaxis], there[:, _MEMBERS[:, 0], np.newaxis]
    weights = np.where(seen, taps.T, 0)
    weights[:, :, 0] = taps[:, 0] + np.where(seen, 0, taps.T)[:, :, 1:].sum(axis=2)
    sums = np.einsum("nwpf,nwp->nwf", weights, view[:, _MEMBERS]) + bias
    sizes = np.abs(weights).sum(axis=2)
    abnormal = (sums >= 0).any(axis=2, keepdims=True)
    slack = np.where(abnormal, sums, -1 - sums)
    room = np.where(sizes > 0, slack // np.maximum(sizes, 1), UNBOUNDED)
    room = np.where(abnormal & (sums < 0), -1, room)
    witness = np.arange(len(bias)) == room.argmax(axis=2)[..., np.newaxis]
    bounding = corner & (witness | ~abnormal)
    mine = weights[:, _PLACES, _PLACES]
    towards = np.where(abnormal, -mine, mine)
    rise = np.where(bounding & (towards > 0), room, UNBOUNDED).min(axis=(1, 2))
    fall = np.where(bounding & (towards < 0), room, UNBOUNDED).min(axis=(1, 2))
    return rise, fall, (abnormal & corner)[..., 0]


class _Mesh:
    """All nodes, each with its view: arrays [nodes, taps], cells in reading order, holes among them."""

    def __init__(self, filters: Filters, site: Site, policy: Policy, faults: Faults):
        Windows(filters, site.mask)  # refuses what has no zones
        (layer,) = filters.layers
        self._taps = layer.weights[:, 0, WINDOW_TAPS].astype(np.int64)
        self._bias = layer.bias.astype(np.int64)
        nodes = site.mask.size
        self._policy, self._links, self._near = policy, Links(nodes, faults), _near(site)
        self._phase = np.array([turn_of(*cell) for cell in np.ndindex(site.mask.shape)])
        self._first = np.random.default_rng((faults.seed, 2))
        self._view, self._silent = np.zeros((2, nodes, TAPS), np.int64)
        self._there, self._known = np.zeros((2, nodes, TAPS), np.bool_)
        self._rise, self._fall = np.full((2, nodes), UNBOUNDED)
        # Of each node's windows: abnormal by its view; to be challenged; challenged in this cycle, as far as it heard.
        self._abnormal, self._pending, self._heard = np.zeros((3, nodes, len(_MEMBERS)), np.bool_)
        self._values, self._here, self._alive = np.zeros(nodes, np.int64), np.zeros(nodes, np.bool_), site.mask.ravel()

    def cycle(self, cycle: int, values: Ints, here: Bools, alive: Bools) -> tuple[int, int, int]:
        """Let nodes speak until all are silent: frames with a value, heartbeats, frames with a challenge."""
        policy, values_said, challenges = self._policy, 0, 0
        self._values, self._here, self._alive = values, here, alive
        self._start(cycle)
        changed = alive & (~self._known[:, CENTRE] | (self._there[:, CENTRE] != here))
        speaking, copies = changed | self._due(cycle), policy.copies
        anew = changed | self._outside()
        heartbeats = int((speaking & ~anew).sum()) * copies
        for _ in range(ROUNDS_MAX):
            made = 0
            if not speaking.any():
                speaking = anew = self._outside()
            if not speaking.any() and policy.challenge:
                made, speaking = self._challenge()
                copies = policy.answers or copies
            if not made and not speaking.any():
                break
            values_said += self._say(speaking, anew, copies)
            challenges += made * policy.challenge
            speaking, copies = np.zeros_like(speaking), policy.copies
        return values_said - heartbeats, heartbeats, challenges

    def states(self) -> Bools:
        """What each living node takes its own window for."""
        found: Bools = self._abnormal[:, 0] & self._there[:, CENTRE] & self._alive
        return found

    def given_up(self) -> list[int]:
        """The dead nodes on which no living neighbour counts."""
        counting = np.append(self._known & self._alive[:, np.newaxis], np.zeros((1, TAPS), np.bool_), axis=0)
        counted = counting[self._near, TAPS - 1 - np.arange(TAPS)].any(axis=1)
        return [int(node) for node in np.flatnonzero(self._known[:, CENTRE] & ~self._alive & ~counted)]

    def _start(self, cycle: int) -> None:
        """A cycle begins: the silent are gone, and corners look again at what is still abnormal."""
        self._links.start_cycle(cycle)
        self._heard[:] = False
        self._silent += 1
        if self._policy.heartbeat:
            gone = self._known & (self._silent > _HEARTBEATS * self._policy.heartbeat)
            gone[:, CENTRE] = False
            self._known &= ~gone
            self._there &= ~gone
            self._work_out(gone.any(axis=1))
        if self._policy.again:
            alone = self._abnormal[:, 0] & ~self._abnormal[:, 1:].any(axis=1)
            self._pending[:, 0] |= alone & ((cycle + self._phase) % self._policy.again == 0)

    def _due(self, cycle: int) -> Bools:
        """Whose heartbeat it is."""
        every = self._policy.heartbeat
        if not every:
            return np.zeros_like(self._alive)
        due: Bools = self._alive & ((cycle + self._phase) % every == 0)
        return due

    def _outside(self) -> Bools:
        """Whose reading the own last word does not cover."""
        moved = self._values - self._view[:, CENTRE]
        covered = (moved <= self._rise) & (-moved <= self._fall)
        outside: Bools = self._here & self._alive & self._there[:, CENTRE] & ~covered
        return outside

    def _say(self, speaking: Bools, anew: Bools, copies: int) -> int:
        """Nodes say what they read, or that they have no reading, or else their last word; who hears it takes it in.

        Returns how many frames that took.
        """
        lost, more = self._links.lost(copies), np.zeros_like(speaking)
        if self._policy.returns > copies:
            more = self._returns(speaking & anew)
            lost &= self._links.lost(self._policy.returns - copies) | ~np.append(more, False)[self._near]
        words = np.append(np.where(anew, self._values, self._view[:, CENTRE]), 0)[self._near]
        there = np.append(np.where(anew, self._here, self._there[:, CENTRE]), False)[self._near]
        heard = np.append(speaking, False)[self._near] & ~lost
        heard[:, CENTRE] = speaking
        heard &= self._alive[:, np.newaxis]
        new = heard & (~self._known | (self._there != there) | (there & (self._view != words)))
        self._view = np.where(heard & there, words, self._view)
        self._there = np.where(heard, there, self._there)
        self._known |= heard
        self._silent[heard] = 0
        self._work_out(new.any(axis=1))
        return int(speaking.sum()) * copies + int(more.sum()) * (self._policy.returns - copies)

    def _returns(self, speaking: Bools) -> Bools:
        """Whose new word makes a window normal again, as far as it knows itself."""
        (nodes,) = np.nonzero(speaking)
        view, there, found = self._view[nodes], self._there[nodes], np.zeros_like(speaking)
        view[:, CENTRE], there[:, CENTRE] = self._values[nodes], self._here[nodes]
        if len(nodes):
            abnormal = limits(self._taps, self._bias, view, there)[2]
            found[nodes] = (self._abnormal[nodes] & ~abnormal).any(axis=1)
        return found

    def _challenge(self) -> tuple[int, Bools]:
        """For each window that has to be challenged one says what it saw: (challenges, who has to repeat its word)."""
        nodes, windows = np.nonzero(self._pending & ~self._heard & self._alive[:, np.newaxis])
        repeating, learned = np.zeros((2, len(self._alive)), np.bool_)
        if not len(nodes):
            return 0, repeating
        order = np.lexsort((self._first.random(len(nodes)), windows != 0))  # corners go first
        _, first = np.unique(self._near[nodes, _MEMBERS[windows, 0]][order], return_index=True)
        lost = self._links.lost(self._policy.challenge)
        for node, window in zip(nodes[order[first]], windows[order[first]], strict=True):
            self._heard[node, window] = True
            for place, tap in enumerate(_MEMBERS[window]):
                member = self._near[node, tap]
                if place == window or member == len(self._near) or lost[member, TAPS - 1 - tap]:
                    continue
                self._heard[member, place] = True
                repeating[member] |= self._known[member, CENTRE] and self._differs(node, tap, member)
                if self._policy.learns and self._alive[member]:
                    self._learn(node, window, member, place)
                    learned[member] = True
        self._work_out(learned)
        self._pending &= ~self._heard
        return len(first), repeating & self._alive

    def _differs(self, node: int, tap: int, member: int) -> bool:
        """Whether a node took the last word of a member, at this tap of its own, for another one."""
        there = self._there[member, CENTRE]
        same: bool = self._there[node, tap] == there and not (
            there and self._view[node, tap] != self._view[member, CENTRE]
        )
        return not same

    def _learn(self, node: int, window: int, member: int, place: int) -> None:
        """A member takes over what a node saw of a window; that is no sign of life of those who are in it."""
        said, own = _MEMBERS[window], _MEMBERS[place]
        new = self._there[node, said] & (place != _PLACES)
        self._view[member, own[new]] = self._view[node, said[new]]
        self._there[member, own[new]] = self._known[member, own[new]] = True

    def _work_out(self, changed: Bools) -> None:
        """Limits and windows' states of the nodes whose view has changed."""
        (nodes,) = np.nonzero(changed)
        if len(nodes):
            found = limits(self._taps, self._bias, self._view[nodes], self._there[nodes])
            self._rise[nodes], self._fall[nodes], abnormal = found
            self._pending[nodes] = (self._pending[nodes] | ~self._abnormal[nodes]) & abnormal
            self._abnormal[nodes] = abnormal


def _near(site: Site) -> Ints:
    """Which cell lies at each node's taps: int64 [nodes, 9], the number of cells where there is no node."""
    rows, cols = site.mask.shape
    cells = np.where(site.mask, np.arange(rows * cols).reshape(rows, cols), rows * cols)
    padded = np.pad(cells, 1, constant_values=rows * cols)
    return np.stack([padded[tap // 3 :, tap % 3 :][:rows, :cols].ravel() for tap in range(TAPS)], axis=1)
