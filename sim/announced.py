"""A study: mode event for layers that clamp, without loss, where each node still hears its eight neighbours only.

A unit's 3x3 window has members up to two cells apart; so unlike those of a 2x2 window (sim/zones.py) they cannot all
derive the same zone. The unit's own node can, for it hears all nine; so it announces how far they may go. For each
channel of the conv3x3 that can reach the last activations, with acc its sum + bias by the view and A the sum of its
weights' magnitudes, absent taps merged into C:

    limit    the channel's activation stays what it is while the members together raise acc by at most top - acc, and
             lower it by at most acc - bottom: so each of them by (top - acc) // A and (acc - bottom) // A, a rise where
             its weight is positive, a fall where it is negative. An activation of 0 has no bottom, one of 255 no top.
    byte     a share of the limit, in steps of 2 ccel: upwards alone at 0, else both ways

A node is silent while its reading is within what it heard announced by the units that it is a member of, its own
included. Else it says its reading, and its unit's limits with it. A node whose limits have become narrower than those
that it announced announces anew; wider ones wait for its next reading. So on, round by round, until nobody speaks. Then
no channel's activation is another one than by the view: all last activations, and the features, are those of a full
exchange, bit for bit. A node that has just said its reading stands on its view, within all limits there can be, so it
says it once a cycle; limits may be announced more often.

Where the taps that matter lie in one 2x2 window, as those of the hand-set filters of lean do (C, E, S), all members
hear each other, know the limits without being told, and nothing is announced: `share` is None.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import twin
from gateway.model import CONV1X1, CONV3X3, Filters
from gateway.site import Site
from protocol.filter_set import WINDOW_TAPS
from protocol.fixed import ACTIVATION_MAX, READING_MAX, READING_MIN
from protocol.frame import HEADER_SIZE
from protocol.grid import CENTRE, TAPS
from sim.change import Words
from sim.zones import UNBOUNDED, Bools, Ints, Limits

STEP_CCEL = 2
# Seven bits of a limit; the eighth says whether it holds both ways.
LIMIT_MAX = 127 * STEP_CCEL


class Silence(NamedTuple):
    """What was said, cycle by cycle.

    Attributes:
        heard: words of the nodes; nobody has heartbeats.
        renewed: int64 [cycles, rows, cols], how often each node announced limits without a reading.
        rounds: int64 [cycles], until nobody spoke.
    """

    heard: Words
    renewed: Ints
    rounds: Ints

    @property
    def announced(self) -> Ints:
        """How many limits were announced without a reading, int64 [cycles]."""
        found: Ints = self.renewed.sum(axis=(1, 2))
        return found


class Units:
    """The units of a mesh in which these nodes have a reading.

    Attributes:
        channels: of the conv3x3 that can reach the last activations: as many bytes say a unit's limits.
    """

    def __init__(self, filters: Filters, present: Bools, site: Site):
        """Merge absent neighbours into the units' own taps.

        Args:
            filters: one conv3x3, and conv1x1 behind it.
            present: bool [rows, cols], which nodes have a reading.
            site: where nodes stand.

        Raises:
            ValueError: there are other layers; their units have no limits here.
        """
        kinds = [layer.kind for layer in filters.layers]
        if kinds != [CONV3X3] + [CONV1X1] * (len(kinds) - 1):
            raise ValueError(f"filters: layers {', '.join(kinds)}; only a conv3x3 with conv1x1 behind it has limits")
        reaching, first = _reaching(filters), filters.layers[0]
        self.channels = int(reaching.sum())
        self._present, self._shift = present, first.shift
        used = twin.slots_of(site.neighbour_masks & twin.neighbours_where(present))
        there = np.insert(used, CENTRE, values=True, axis=0)
        taps = first.weights[reaching, 0].astype(np.int64)[..., np.newaxis, np.newaxis]
        self._weights = taps * there
        self._weights[:, CENTRE] += (taps * ~there).sum(axis=1)
        self._magnitudes = np.abs(self._weights).sum(axis=1)
        self._bias = first.bias[reaching].astype(np.int64)[:, np.newaxis, np.newaxis]

    def limits(self, taps: Ints) -> Limits:
        """How far all members of each unit may go at once, for each channel: int64 [channels, rows, cols] each.

        Args:
            taps: int64 [9, rows, cols], the view at each tap as the first layer takes readings.
        """
        sums, half = (self._weights * taps).sum(axis=1) + self._bias, 1 << (self._shift - 1)
        activations = ((sums + half) >> self._shift).clip(0, ACTIVATION_MAX)
        top, bottom = ((activations + 1) << self._shift) - half - 1, (activations << self._shift) - half
        free = self._magnitudes == 0
        rise = np.where(free | (activations == ACTIVATION_MAX), UNBOUNDED, self._each(top - sums))
        fall = np.where(free | (activations == 0), UNBOUNDED, self._each(sums - bottom))
        return Limits(rise, fall)

    def room(self, limits: Limits) -> Limits:
        """How far each node may go by the limits of all units that it is a member of: int64 [rows, cols] each."""
        rise, fall = limits.rise[:, np.newaxis], limits.fall[:, np.newaxis]
        up = np.where(self._weights > 0, rise, np.where(self._weights < 0, fall, UNBOUNDED)).min(axis=0)
        down = np.where(self._weights > 0, fall, np.where(self._weights < 0, rise, UNBOUNDED)).min(axis=0)
        return Limits(self._tightest(up), self._tightest(down))

    def _each(self, slack: Ints) -> Ints:
        found: Ints = np.minimum(slack // np.maximum(self._magnitudes, 1), UNBOUNDED)
        return found

    def _tightest(self, by_tap: Ints) -> Ints:
        """Of each node over its units: who stands at a unit's tap sees the unit at the opposite one."""
        heard = np.where(self._present, by_tap, UNBOUNDED)[::-1]
        found: Ints = np.min([around(each, UNBOUNDED)[tap] for tap, each in enumerate(heard)], axis=0)
        return found


def simulate(
    filters: Filters, readings_ccel: NDArray[np.int16], present: Bools, site: Site, share: float | None
) -> Silence:
    """Run a room through mode event with announced limits.

    Args:
        filters: one conv3x3, and conv1x1 behind it.
        readings_ccel: int16 [cycles, rows, cols], in the order in which they happened.
        present: bool, of the readings' shape: which nodes have one.
        site: where nodes stand.
        share: of its limits that a unit announces, above 0 and up to 1: the rest lets the view move without news.
            None: all members know them.

    Raises:
        ValueError: these layers have no limits here, or there is no share and some members do not hear each other.
        ArithmeticError: after some cycle last activations by the view are not those by the readings, or a node would
            say its reading twice in it.
    """
    present = present & site.mask
    if share is None and not _in_one_window(filters):
        raise ValueError("share: is None, but taps that matter lie outside of C E S SE; announce limits")
    centred = np.clip(readings_ccel.astype(np.int64) - filters.reference_ccel, READING_MIN, READING_MAX)
    mesh = _Mesh(filters, site, share)
    found = [mesh.cycle(values, here) for values, here in zip(centred, present, strict=True)]
    views, said, renewed, rounds = (np.array(part) for part in zip(*found, strict=True))
    view_ccel = np.where(present, views + filters.reference_ccel, 0).astype(np.int16)
    by_view, by_readings = (twin.activations(filters, each, present, site) for each in (view_ccel, readings_ccel))
    wrong = (present & (by_view != by_readings).any(axis=-1)).any(axis=(1, 2))
    if wrong.any():
        raise ArithmeticError(f"cycle {int(wrong.argmax())}: activations by the view are not those by the readings")
    return Silence(Words(view_ccel, present, said, np.zeros_like(said)), renewed, rounds)


def sizes(filters: Filters, site: Site, share: float | None) -> tuple[int, int]:
    """Bytes of a reading with limits, and of limits alone in the place of the version, as VALUE has its reading."""
    limits = 0 if share is None else Units(filters, site.mask, site).channels
    return HEADER_SIZE + limits, HEADER_SIZE - 2 + limits


def around(values: Ints, outside: int) -> Ints:
    """What stands at each tap of every node, `outside` beyond the grid: [rows, cols] -> [9, rows, cols]."""
    rows, cols = values.shape
    padded = np.pad(values, 1, constant_values=outside)
    return np.stack([padded[tap // 3 :, tap % 3 :][:rows, :cols] for tap in range(TAPS)])


class _Mesh:
    """The view and what was announced, from cycle to cycle."""

    def __init__(self, filters: Filters, site: Site, share: float | None):
        self._filters, self._site, self._share = filters, site, share
        self._view = np.zeros(site.mask.shape, np.int64)
        self._had: Bools | None = None
        self._told: Limits | None = None

    def cycle(self, values: Ints, here: Bools) -> tuple[Ints, Bools, Ints, int]:
        """One cycle: (view, who said a word, how often each announced limits alone, rounds)."""
        units = Units(self._filters, here, self._site)
        said, announced, rounds = np.zeros_like(here), np.zeros_like(values), 0
        speaking = self._site.mask if self._had is None else here != self._had
        while True:
            before, self._view = self._view, np.where(speaking & here, values, self._view)
            renewed = self._tell(units, before, speaking & here) & here
            said, announced = said | speaking, announced + renewed
            rounds += int((speaking | renewed).any())
            room = units.room(self._told) if self._told else Limits(*(np.zeros_like(values),) * 2)
            speaking = here & ((values > self._view + room.rise) | (values < self._view - room.fall))
            if not speaking.any():
                self._had = here
                return self._view, said, announced, rounds
            if (speaking & said).any():
                raise ArithmeticError("a node that has said its reading stands outside its limits")

    def _tell(self, units: Units, before: Ints, speaking: Bools) -> Bools:
        """Announce what has to be; returns who announced limits alone.

        Those who say a reading say limits with it, which know nothing of what others say at the same time.
        """
        found = units.limits(around(self._view, 0))
        if self._share is None:
            self._told = found
            return np.zeros_like(speaking)
        if self._told is None:
            self._told = _byte(found, self._share)
            return np.ones_like(speaking)
        taps = around(before, 0)
        taps[CENTRE] = self._view
        self._told = _where(speaking, _byte(units.limits(taps), self._share), self._told)
        narrower = np.asarray(((found.rise < self._told.rise) | (found.fall < self._told.fall)).any(axis=0), np.bool_)
        self._told = _where(narrower, _byte(found, self._share), self._told)
        return narrower


def _byte(limits: Limits, share: float) -> Limits:
    """What a byte for each channel says of limits."""
    tightest = np.floor(share * np.minimum(*limits)).astype(np.int64)
    told = np.minimum(tightest // STEP_CCEL * STEP_CCEL, LIMIT_MAX)
    return Limits(told, np.where(limits.fall < UNBOUNDED, told, UNBOUNDED))


def _where(chosen: Bools, limits: Limits, others: Limits) -> Limits:
    return Limits(np.where(chosen, limits.rise, others.rise), np.where(chosen, limits.fall, others.fall))


def _reaching(filters: Filters) -> Bools:
    """Which channels of the first layer have a way to the last activations whose weights are not 0: bool [filters]."""
    reaching: Bools = np.ones(filters.layers[-1].filters, np.bool_)
    for layer in filters.layers[:0:-1]:
        reaching = np.asarray((layer.weights[reaching] != 0).any(axis=(0, 2)), np.bool_)
    return reaching


def _in_one_window(filters: Filters) -> bool:
    taps = (filters.layers[0].weights[_reaching(filters), 0] != 0).any(axis=0)
    return set(np.flatnonzero(taps).tolist()) <= set(WINDOW_TAPS)
