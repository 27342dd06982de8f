"""Filter sets on their way to the nodes: signed here, and followed from node to node until each of them is done.

The gateway hands a signed set to the nodes next to it; the mesh passes it on by itself (firmware/wave.py). What nodes
hold they say in FILTERS frames: when it changes, and when the beacon asks, because a cycle brought nothing new. When
every node that is counted on holds the new set, the next beacon names it: from that cycle on nodes compute with it, and
the head that belongs to it decides.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import twin
from gateway.model import SIGN, Filters, Model, NodeLayer
from gateway.site import Cell
from protocol import frame
from protocol.filter_set import CONFIRMED, PHASES, SIGNATURE_SIZE, STAGED, next_input
from protocol.fixed import INPUT_ZERO

# Seeds of the self-tests; any would do, except with a sign: there they are found.
SELF_TEST_SEEDS = (1, 2)
# Cycles without any progress after which a roll-out goes on without the nodes that are missing.
PATIENCE_CYCLES = 10
# Who is waited for is asked in the first cycle that brought nothing new, and again after so many more.
_ASK_CYCLES = 3
# A set goes out without the last ones only if so many of the nodes that are counted on hold it.
QUORUM = 0.5


class Holding(NamedTuple):
    """What a node said of its filters: version in use, highest ever held, phase, sets refused modulo 256."""

    version: int
    highest: int
    phase: int
    refused: int

    @property
    def phase_name(self) -> str:
        """confirmed, trial, staged or returned."""
        return PHASES[self.phase]

    def holds(self, version: int) -> bool:
        """Whether the node could compute with this version."""
        return self.version == version or (self.phase == STAGED and self.highest == version)

    def has_confirmed(self, version: int) -> bool:
        """Whether the node computes with this version for good."""
        return self.version == version and self.phase == CONFIRMED


def holding_of(data: bytes, near: int) -> Holding:
    """What a FILTERS frame says.

    Args:
        data: a well-formed frame (protocol/frame.py).
        near: a version that the sender's lies near, to make its low half whole.
    """
    version = near + ((frame.version_of(data) - near + 0x8000) & 0xFFFF) - 0x8000
    return Holding(version, frame.highest_of(data), min(frame.phase_of(data), len(PHASES) - 1), frame.refused_of(data))


def signed(filters: Filters, site_name: str, key: Ed25519PrivateKey) -> bytes:
    """A filter set as nodes take it: with self-tests, signed for this site.

    Args:
        filters: what the nodes shall compute with.
        site_name: of the site; a node takes no other site's sets.
        key: the site's private key.
    """
    unsigned = filters.pack(site_name, self_tests(filters))[:-SIGNATURE_SIZE]
    return unsigned + key.sign(hashlib.sha256(unsigned).digest())


def self_tests(filters: Filters) -> list[tuple[int, bytes]]:
    """(seed, activations of all layers) each: what a node's own kernel has to give for these inputs."""
    first = filters.layers[0]
    seeds = _telling_seeds(first) if first.activation == SIGN else SELF_TEST_SEEDS
    return [(seed, _activations(filters, seed)) for seed in seeds]


def _telling_seeds(layer: NodeLayer) -> list[int]:
    """The seeds whose inputs bring the largest sum of a layer with sign nearest to 0: from above, from below if any do.

    Among inputs from all of int16 nearly every window has some difference over a few degrees: seeds taken as they come
    would all give 1, as a kernel that knows nothing else.
    """
    following = np.array([next_input(state) for state in range(1 << 16)])
    states, inputs = np.arange(1 << 16), []
    for _ in range(layer.weights[0].size):
        states = following[states]
        inputs.append(states - INPUT_ZERO)
    sums = layer.weights.reshape(layer.filters, -1).astype(np.int64) @ np.stack(inputs)
    margins = (sums + layer.bias[:, np.newaxis]).max(axis=0)
    above, below = np.where(margins >= 0, margins, 1 << 40), np.where(margins < 0, margins, -1 << 40)
    return sorted({int(above.argmin()), int(below.argmax())})


def _activations(filters: Filters, seed: int) -> bytes:
    state, found = seed, b""
    for index, layer in enumerate(filters.layers):
        taps = layer.weights[0].size
        inputs = np.empty(taps, np.int64)
        for tap in range(taps):
            state = next_input(state)
            inputs[tap] = state - INPUT_ZERO if index == 0 else state >> 8
        found += twin.unit(layer, inputs).tobytes()
    return found


class Rollout:
    """One model on its way.

    Attributes:
        model: filters and head to switch to.
        data: the signed filter set.
        ready: enough nodes hold it.
        switched: the beacon names it.
        gave_up: too few nodes hold it, and none more comes.
        asks: nodes are to say what they hold: some never did, or a cycle brought nothing new, the first that did not
            and every third behind it.
    """

    def __init__(self, model: Model, data: bytes):
        """Nobody holds it yet."""
        self.model = model
        self.data = data
        self.ready = self.switched = self.gave_up = self.asks = False
        self._heard_most = self._held_most = -1
        self._still_cycles = 0
        self._idle_cycles = 0

    def start_cycle(self, holdings: dict[Cell, Holding], counted_on: set[Cell]) -> None:
        """See whether the cycle that opens now can be computed with it.

        Args:
            holdings: what nodes said last.
            counted_on: cells that are there.
        """
        if not counted_on:
            return  # nobody could take it yet: that is no reason to lose patience, nor to go on without them
        version = self.model.filters.version
        known = [holdings[cell] for cell in counted_on if cell in holdings]
        held = sum(holding.holds(version) for holding in known)
        heard = held + sum(holding.has_confirmed(version) for holding in known)
        self._still_cycles = 0 if heard > self._heard_most else self._still_cycles + 1
        self._heard_most = max(heard, self._heard_most)
        self.asks = len(known) < len(counted_on) or self._still_cycles % _ASK_CYCLES == 1
        # A node that comes and goes is no progress.
        self._idle_cycles = 0 if held > self._held_most else self._idle_cycles + 1
        self._held_most = max(held, self._held_most)
        if self.ready or self.gave_up:
            return
        if held == len(counted_on):
            self.ready = True
        elif self._idle_cycles >= PATIENCE_CYCLES:
            self.ready = held >= QUORUM * len(counted_on)
            self.gave_up = not self.ready

    def is_over(self, holdings: dict[Cell, Holding], counted_on: set[Cell]) -> bool:
        """Whether nothing more is to be expected: every node confirmed it, or patience is at its end."""
        version = self.model.filters.version
        done = all(cell in holdings and holdings[cell].has_confirmed(version) for cell in counted_on)
        return self.gave_up or (self.switched and (done or self._idle_cycles >= PATIENCE_CYCLES))
