"""Mode event of a layer with sign, without loss: who speaks in each cycle, and the proof that silence changes nothing.

A node's *state* is that of the 2x2 window whose corner it is. The *view* is everybody's last broadcast. From it and the
public filters all members of a window derive the same box around their values in which the window's state is constant;
a node's *zone* is what its (at most four) windows leave it. It is silent while its reading lies in its zone, else it
broadcasts, and so on until nobody speaks. Then every window lies in its box: the states from the view are those from
the readings. A node that has just spoken stands inside its zone whatever the others say, so each speaks once at most.

With acc_f the sum + bias of filter f in a window, w_fj its weights there and A_f the sum of their magnitudes, a box is
    normal (all acc_f < 0)   each f bounds each member j by (-1 - acc_f) // A_f: its rise where w_fj > 0, its fall where
                             w_fj < 0; all members together raise acc_f by A_f times that at most, and not to 0
    abnormal                 the witness g alone does, the first f with the largest acc_f // A_f >= 0: by that, the fall
                             where w_gj > 0, the rise where w_gj < 0
Absent members (border, hole, no reading) first merge into the corner's own tap. Where that leaves A_f = 0 the filter
bounds nothing. A node that loses or regains its reading says so at once.

Up to the gateway goes one bit when a block's state, whether any member's is abnormal, changes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.ledger import AIR_OVERHEAD
from gateway.model import SIGN, Filters
from gateway.site import Site
from gateway.twin import pool
from protocol.filter_set import WINDOW_TAPS
from protocol.fixed import READING_MAX, READING_MIN

# Further than any reading lies from another.
UNBOUNDED = 1 << 20

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Traffic(NamedTuple):
    """What was said, cycle by cycle; in the first one everybody speaks, up to the gateway too.

    Attributes:
        said: bool [cycles, rows, cols], who said its value, or that it has none.
        rounds: int64 [cycles], until nobody spoke.
        upward: bool [cycles, block rows, block cols], whether the block said its state.
        states: bool [cycles, rows, cols], abnormal windows by their corner; False where no reading is.
    """

    said: Bools
    rounds: Ints
    upward: Bools
    states: Bools

    @property
    def broadcasts(self) -> Ints:
        """How many nodes said something, int64 [cycles]."""
        found: Ints = self.said.sum(axis=(1, 2))
        return found

    def bytes_on_air(self, value_size: int, bit_size: int) -> Ints:
        """Per cycle, for payloads of these sizes; one frame for each broadcast and for each block's bit."""
        bits = self.upward.sum(axis=(1, 2))
        found: Ints = self.broadcasts * (AIR_OVERHEAD + value_size) + bits * (AIR_OVERHEAD + bit_size)
        return found


class Limits(NamedTuple):
    """How far each node may go unheard, int64 [rows, cols]; UNBOUNDED or more: as far as it likes."""

    rise: Ints
    fall: Ints


class Windows:
    """The 2x2 windows of a mesh in which these nodes have a reading."""

    def __init__(self, filters: Filters, present: Bools):
        """Merge absent members into their corners.

        Args:
            filters: one layer with sign.
            present: bool [rows, cols], which nodes have a reading.
        """
        (layer,) = filters.layers
        if layer.activation != SIGN:
            raise ValueError(f"filters: activation {layer.activation}; only windows of a layer with sign have zones")
        self._corners = present
        self._bias = layer.bias.astype(np.int64).reshape(-1, 1, 1)
        taps = layer.weights[:, 0, WINDOW_TAPS].astype(np.int64)[..., np.newaxis, np.newaxis]
        there = np.stack([_member(present, place) for place in range(len(WINDOW_TAPS))])
        self._weights = np.where(there, taps, 0)
        self._weights[:, 0] = np.where(there, 0, taps)[:, 1:].sum(axis=1) + taps[:, 0]
        self._weights *= present
        self._magnitudes = np.abs(self._weights).sum(axis=1)

    def sums(self, values: Ints) -> Ints:
        """Each filter's sum + bias in each window: values [rows, cols] -> [filters, rows, cols]."""
        members = np.stack([_member(values, place) for place in range(len(WINDOW_TAPS))])
        found: Ints = (self._weights * members).sum(axis=1) + self._bias
        return found

    def states(self, values: Ints) -> Bools:
        """Which windows are abnormal, by their corner; a node without a reading is the corner of none."""
        found: Bools = (self.sums(values) >= 0).any(axis=0) & self._corners
        return found

    def limits(self, view: Ints) -> Limits:
        """The zones around a view."""
        sums, weights = self.sums(view), self._weights
        abnormal = (sums >= 0).any(axis=0)
        normal_room = _room(-1 - sums, self._magnitudes)
        witness_room = np.where(sums >= 0, _room(sums, self._magnitudes), -1)
        witness = witness_room.argmax(axis=0) == np.arange(len(sums)).reshape(-1, 1, 1)
        bounding = np.where(abnormal, witness, True)
        room = np.where(bounding, np.where(abnormal, witness_room, normal_room), UNBOUNDED)[:, np.newaxis]
        upward = np.where(abnormal, weights < 0, weights > 0)
        downward = np.where(abnormal, weights > 0, weights < 0)
        return Limits(
            _tightest(np.where(upward, room, UNBOUNDED).min(axis=0)),
            _tightest(np.where(downward, room, UNBOUNDED).min(axis=0)),
        )


def simulate(filters: Filters, readings_ccel: NDArray[np.integer], present: Bools, site: Site) -> Traffic:
    """Run a room through mode event.

    Args:
        filters: one layer with sign.
        readings_ccel: int16 [cycles, rows, cols], in the order in which they happened.
        present: bool, of the readings' shape: which nodes have one.
        site: where nodes stand.

    Raises:
        ArithmeticError: after some cycle the states from the view are not those from the readings, or a node would
            speak twice in it.
    """
    centred = np.clip(readings_ccel.astype(np.int64) - filters.reference_ccel, READING_MIN, READING_MAX)
    present = present & site.mask
    told, view = np.zeros_like(site.mask), np.zeros(site.mask.shape, np.int64)
    said, rounds, states = [], [], []
    for cycle, (values, here) in enumerate(zip(centred, present, strict=True)):
        windows = Windows(filters, here)
        speaking = site.mask if cycle == 0 else told != here
        view, spoke, count = _settle(windows, np.where(speaking, values, view), values, here, speaking, cycle)
        found, told = windows.states(values), here
        if np.any(windows.states(view) != found):
            raise ArithmeticError(f"cycle {cycle}: states from the view are not those from the readings")
        said.append(spoke)
        rounds.append(count)
        states.append(found)
    return Traffic(np.array(said), np.array(rounds), _changes(np.array(states), site), np.array(states))


def _settle(
    windows: Windows, view: Ints, values: Ints, here: Bools, speaking: Bools, cycle: int
) -> tuple[Ints, Bools, int]:
    """Let nodes speak until nobody has to: (view, who spoke, rounds); `speaking` did already."""
    spoke, rounds = speaking, int(speaking.any())
    while True:
        rise, fall = windows.limits(view)
        outside = here & ((values > view + rise) | (values < view - fall))
        if not outside.any():
            return view, spoke, rounds
        if (outside & spoke).any():
            raise ArithmeticError(f"cycle {cycle}: a node that has spoken stands outside its zone")
        view, spoke, rounds = np.where(outside, values, view), spoke | outside, rounds + 1


def _room(slack: Ints, magnitudes: Ints) -> Ints:
    """How far every member may go at once before `slack` is used up; UNBOUNDED where no member matters."""
    return np.where(magnitudes > 0, slack // np.maximum(magnitudes, 1), UNBOUNDED)


def _member(values: NDArray[np.generic], place: int) -> NDArray[np.generic]:
    """Every window's member at a place 0..3, C E S SE; zero beyond the border: [rows, cols] -> [rows, cols]."""
    rows, cols = values.shape
    return np.pad(values, ((0, 1), (0, 1)))[place // 2 :, place % 2 :][:rows, :cols]


def _tightest(by_place: Ints) -> Ints:
    """The tightest limit of each node over its windows: [4, rows, cols], by window and place -> [rows, cols]."""
    rows, cols = by_place.shape[1:]
    found = np.full((rows + 1, cols + 1), UNBOUNDED)
    for place, limit in enumerate(by_place):
        part = found[place // 2 :, place % 2 :][:rows, :cols]
        np.minimum(part, limit, out=part)
    return found[:rows, :cols]


def _changes(states: Bools, site: Site) -> Bools:
    """Which blocks say their state: all at first, then those whose state changed."""
    blocks = pool(states[..., np.newaxis].astype(np.uint8), np.broadcast_to(site.mask, states.shape))[..., 0] == 1
    there = pool(site.mask[..., np.newaxis].astype(np.uint8), site.mask)[..., 0] == 1
    return np.concatenate([there[np.newaxis], blocks[1:] != blocks[:-1]]) if len(blocks) else blocks
