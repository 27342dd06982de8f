"""A mesh in memory for tests: real nodes and the real gateway on one virtual clock, joined by a pluggable transport.

A transport is asked once for each delivery of a frame and says after how many ms each copy arrives: () loses it, two
numbers double it, unequal ones reorder. Each node counts its own time and starts just before its ticks wrap.
"""

import heapq
import itertools
import math
import random
from functools import partial

import numpy as np
from wave_bench import PIECE

from firmware.node import Node
from firmware.stages import TO_BLOCK, TO_GATEWAY, TO_HALO
from firmware.start import prepare_filters
from gateway.gateway import Gateway, Timing
from gateway.model import SPECS, Head, Model, feature_len
from gateway.site import Site, site_of_cells
from gateway.start_weights import start_filters
from protocol import filter_set, grid, topic
from protocol.compat import TICKS_PERIOD, ticks_add
from protocol.grid import BLOCK_SIDE

TIMING = Timing(period_ms=10_000)
RUN = 0x01020304
# The first node's ticks wrap this long after the start, each further node's as much later: 7 s to 4 min for 35 nodes.
WRAPS_AFTER_MS = 7_000


class Perfect:
    """Everything arrives, what was sent together arrives together."""

    def delays_ms(self, _now_ms):
        return (1,)


class OneFrameAtATime:
    """Everything arrives, and no two frames in the same ms: whoever gets one acts before the next."""

    def __init__(self):
        self._free_ms = 0

    def delays_ms(self, now_ms):
        self._free_ms = max(self._free_ms, now_ms) + 1
        return (self._free_ms - now_ms,)


class Lossy:
    """Loses a share of the deliveries, doubles a fifth of the rest, and lets all of them overtake each other."""

    def __init__(self, seed, share):
        self._random, self._share = random.Random(seed), share

    def delays_ms(self, _now_ms):
        if self._random.random() < self._share:
            return ()
        return tuple(self._random.randint(1, 50) for _ in range(1 + (self._random.random() < 0.2)))


class Slow:
    """One delivery in twenty comes after the deadlines that wait for it, or after the cycle."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def delays_ms(self, _now_ms):
        return (self._random.randint(2_000, 12_000) if self._random.random() < 0.05 else self._random.randint(1, 20),)


class Sensor:
    """A sensor that knows its cycles' readings: `values` by cycle number, None where it gives nothing."""

    def __init__(self, values):
        self._values = values

    def read(self, cycle):
        return self._values[cycle]


def make_model(spec_name, site):
    """Start filters and a head that says nothing."""
    spec = SPECS[spec_name]
    widths = (feature_len(site, spec) + spec.appends_maximum, *spec.hidden, 2)
    layers = tuple((np.zeros(pair, np.float32), np.zeros(pair[1], np.float32)) for pair in itertools.pairwise(widths))
    return Model(spec_name, start_filters(spec), Head(1, layers))


def make_site(rows, cols, holes=()):
    """A grid with holes."""
    grid = ((row, col) for row in range(rows) for col in range(cols))
    return Site("memory", rows, cols, tuple(cell for cell in grid if cell not in holes))


def random_site(rng):
    """Up to 6 x 6 nodes, some left out."""
    rows, cols = rng.integers(1, 7, 2)
    cells = {(row, col) for row in range(rows) for col in range(cols) if rng.random() < 0.85}
    return site_of_cells("random", cells or {(0, 0)})


BOOTS = itertools.count(0xB00700)


def make_node(site, cell, filters, sensor):
    """One real node, started anew, with a gateway.model.Filters of its own; without a key, so it takes no others."""
    exists = int(site.neighbour_masks[cell])
    active = filter_set.unpack(filters.pack(site.name))
    held = (active, None, filter_set.CONFIRMED, active.version, "", ("", ""), site.name, b"")
    return Node(*cell, exists, held, sensor, boot=next(BOOTS))


class MeshInMemory:
    """Nodes, gateway and everything that is under way between them.

    Attributes:
        nodes: the Node of each living cell.
        gateway: the Gateway.
        now_ms: virtual time since the start.
        sent: (sender, destination, frame) of every frame that a node sent; the tests may clear it.
    """

    def __init__(self, site, model, sensors, transport):
        self.nodes = {cell: make_node(site, cell, model.filters, sensors[cell]) for cell in site.cells}
        self.gateway = Gateway(site, model, TIMING, RUN)
        self.now_ms = 0
        self.sent = []
        self._site, self._transport = site, transport
        self._wrap_ms = {cell: WRAPS_AFTER_MS * (k + 1) for k, cell in enumerate(site.cells)}
        self._events, self._order, self._poll_ms = [], itertools.count(), {}

    def ticks(self, cell):
        """What a node's own clock shows."""
        return ticks_add(TICKS_PERIOD - self._wrap_ms[cell], self.now_ms)

    def at(self, delay_ms, action, *arguments):
        """Do something later."""
        heapq.heappush(self._events, (self.now_ms + delay_ms, next(self._order), partial(action, *arguments)))

    def run_cycle(self):
        """One period: the beacon goes out, the outcome comes back, the rest of the period passes."""
        end_ms, outcome = self.now_ms + TIMING.period_ms, None
        for cell, data in self.gateway.acknowledgements():
            self.at(0, self._acknowledge, cell, data)
        self._spread(self.nodes, self.gateway.start_cycle(self.now_ms))
        self.at(self.gateway.due_ms() - self.now_ms, int)  # nothing happens then but the look at the gateway below
        while self._events and self._events[0][0] < end_ms:
            self._next_event()
            outcome = outcome or self._outcome()
        self.now_ms = end_ms
        return outcome

    def run_alone(self, duration_ms):
        """Time passes in which the gateway hears and sends no beacon."""
        end_ms = self.now_ms + duration_ms
        while self._events and self._events[0][0] < end_ms:
            self._next_event()
        self.now_ms = end_ms

    def kill(self, cell, will=False):
        """End a node as a power cut would; with `will` the broker tells the gateway."""
        if self.nodes.pop(cell, None) and will:
            self.gateway.on_message(topic.of_node(self._site.name, *cell, "state"), b"lost")

    def _outcome(self):
        outcome = self.gateway.poll(self.now_ms)
        if outcome:
            self.gateway.settle(outcome, True)
        return outcome

    def _acknowledge(self, cell, data):
        if cell in self.nodes:
            self.nodes[cell].on_acknowledgement(data)

    def _next_event(self):
        self.now_ms, _, action = heapq.heappop(self._events)
        action()

    def _spread(self, cells, frame):
        for cell in cells:
            for delay_ms in self._transport.delays_ms(self.now_ms):
                self.at(delay_ms, self._arrive, cell, frame)

    def _arrive(self, cell, frame):
        if cell in self.nodes:
            self.nodes[cell].on_frame(frame, self.ticks(cell))
            self._poll_at(cell, self.now_ms)

    def _arrive_at_gateway(self, cell, frame):
        self.gateway.on_message(topic.of_node(self._site.name, *cell, "up"), frame)

    def _poll_at(self, cell, due_ms):
        """Poll a node then, unless it is polled earlier anyway."""
        if due_ms < self._poll_ms.get(cell, math.inf):
            self._poll_ms[cell] = due_ms
            self.at(due_ms - self.now_ms, self._poll, cell)

    def _poll(self, cell):
        if cell not in self.nodes or self._poll_ms.get(cell) != self.now_ms:
            return
        del self._poll_ms[cell]
        frames, wake_ms = self.nodes[cell].poll(self.ticks(cell))
        for destination, data in frames:
            self._send(cell, destination, data)
        self._poll_at(cell, self.now_ms + max(wake_ms, 1))

    def _send(self, cell, destination, data):
        self.sent.append((cell, destination, data))
        row, col = cell
        if destination == TO_HALO:
            around = itertools.product(range(row - 1, row + 2), range(col - 1, col + 2))
            self._spread([other for other in around if other in self._site.cells and other != cell], data)
        elif destination == TO_BLOCK:
            top, left = row // BLOCK_SIDE * BLOCK_SIDE, col // BLOCK_SIDE * BLOCK_SIDE
            block = itertools.product(range(top, top + BLOCK_SIDE), range(left, left + BLOCK_SIDE))
            self._spread([other for other in block if other in self._site.cells], data)  # the sender hears itself too
        elif destination == TO_GATEWAY:
            for delay_ms in self._transport.delays_ms(self.now_ms):
                self.at(delay_ms, self._arrive_at_gateway, cell, data)


class WaveMesh(MeshInMemory):
    """The same with files and a key; sets go to whoever asks for them, as firmware/link.py has a broker do it.

    Attributes:
        handed: (giver, taker) of every set handed over; the gateway gives as None.
    """

    def __init__(self, site, model, sensors, transport, *, folder, key):
        """Each node is flashed with the model's filters; its files lie in the folder."""
        super().__init__(site, model, sensors, transport)
        self.handed = []
        self._folder, self._key, self._sensors = folder, key, sensors
        self._pulled = {}
        for cell in site.cells:
            self.path(cell).write_bytes(model.filters.pack(site.name))
            self.boot(cell)

    def path(self, cell):
        """The file of a node's slot 0."""
        return self._folder / grid.node_name(*cell)

    def boot(self, cell):
        """Start a node on its files, whether it ran or not."""
        prepared = prepare_filters(str(self.path(cell)), self._site.name, self._key)
        exists = int(self._site.neighbour_masks[cell])
        self.nodes[cell] = Node(*cell, exists, prepared, self._sensors[cell], boot=next(BOOTS))
        self._pulled[cell] = -1
        self._poll_ms.pop(cell, None)  # of the time before

    def push(self, model, data):
        """The gateway begins to roll out a model; the nodes next to it get the signed set."""
        self.gateway.push(model, data)
        for cell in self._site.next_to_gateway:
            self.hand(cell, data)

    def hand(self, cell, data, giver=None):
        """Give a node a set, piece by piece, a ms apart."""
        self.handed.append((giver, cell))
        for number, at in enumerate(range(0, max(len(data), 1), PIECE)):
            self.at(1 + number, self._feed, cell, at, len(data), data[at : at + PIECE])

    def _feed(self, cell, at, size, piece):
        if cell in self.nodes:
            self.nodes[cell].wave.feed(at, size, piece, self.ticks(cell))
            self._poll_at(cell, self.now_ms)

    def _poll(self, cell):
        super()._poll(cell)
        if cell not in self.nodes or self._pulled[cell] == self.nodes[cell].wave.slot:
            return
        slot = self._pulled[cell] = self.nodes[cell].wave.slot
        if slot >= 0:
            giver = grid.neighbour_of(*cell, slot)
            offers = self.nodes[giver].wave.offers if giver in self.nodes else ""
            if offers:
                with open(offers, "rb") as file:
                    self.hand(cell, file.read(), giver)
