"""One real node on a test bench, with a hand on its clock, and every frame that it could hear."""

from mesh_in_memory import RUN, TIMING, MeshInMemory, Perfect, Sensor, make_model, make_node, make_site
from wave_bench import BEFORE_WRAP

from gateway.model import SPECS
from gateway.start_weights import start_filters
from protocol import beacon, frame, health
from protocol.compat import ticks_add

PERIOD_MS, EXCHANGE_MS, GATHER_MS = TIMING.period_ms, TIMING.exchange_ms, TIMING.gather_ms
SQUARE = make_site(3, 3)
CENTRE = (1, 1)  # member of the block (0, 0), of which (0, 0) is the lowest
MATES = ((0, 0), (0, 1), (1, 0))
AROUND = tuple(cell for cell in SQUARE.cells if cell != CENTRE)
READING_CCEL = 2_200
VERSION = 1


class Steady:
    """The same reading in every cycle; remembers which cycles it was asked for."""

    def __init__(self, reading_ccel=READING_CCEL):
        self.asked = []
        self._reading_ccel = reading_ccel

    def read(self, cycle):
        self.asked.append(cycle)
        return self._reading_ccel


class Raising:
    def __init__(self, error):
        self._error = error

    def read(self, cycle):
        raise self._error


class Bench:
    """One node on the bench: what it says, with a hand on its clock."""

    def __init__(self, cell=CENTRE, site=SQUARE, spec="seed", sensor=None):
        self.cell, self.spec = cell, SPECS[spec]
        self.node = make_node(site, cell, start_filters(self.spec), sensor or Steady())
        self.now_ms = BEFORE_WRAP
        self.said = []

    def hear(self, *frames):
        for data in frames:
            self.node.on_frame(data, self.now_ms)
        return self.poll()

    def poll(self):
        """What the node says now."""
        said, self.wake_ms = self.node.poll(self.now_ms)
        self.said += said
        return said

    def wait(self, duration_ms):
        self.now_ms = ticks_add(self.now_ms, duration_ms)
        return self.poll()

    def kinds(self):
        return [frame.KINDS[data[0] & 15] for _, data in self.said]

    def count(self, place):
        return self.node.trace.counters[place]

    def faults(self):
        """Counters of faults that are not zero, by name."""
        counted = zip(health.FAULTS, self.node.trace.counters[health.MALFORMED :], strict=True)
        return {name: count for name, count in counted if count}

    def memory(self):
        """Everything the node knows but its counters, by name."""
        node, around, block = self.node, self.node.mode._neighbours, self.node.mode._block
        return {
            "place": (node.state, node.run, node.cycle, node.exchange, node._entered_ms),
            "told": (node.beacon, list(node.ring), list(node._out)),
            "halo": [bytes(part) for part in (*around.inputs, around.arrived, around.absence)],
            "alive": bytes(around._silent),
            "unwilling": (around.no_reading, around.other_version),
            "block": (block.pooled, block.no_reading, bytes(block.maximum), bytes(block.absence), list(block.readings)),
        }


def beacon_of(cycle, run=RUN, flags=0, version=VERSION, acked=(), acked_cycle=None):
    """A beacon for a site of 2 x 2 blocks that acknowledges some of the cycle before; its threshold is 0.25 degrees."""
    acked_cycle = max(cycle - 1, 0) if acked_cycle is None else acked_cycle
    setting = {beacon.MODE_CHANGE: 25}.get(flags & beacon.MODE_MASK, 0)
    fields = beacon.Beacon(
        flags, run, cycle, PERIOD_MS, EXCHANGE_MS, GATHER_MS, version, acked_cycle, 2, 2, setting
    )
    return beacon.pack(fields, bytes((sum(1 << (row * 2 + col) for row, col in acked),)))


def head_of(kind, cell, cycle, run=RUN, version=VERSION):
    return frame.header(kind, *cell, run, cycle, version)


def reading_of(cell, cycle, reading_ccel=READING_CCEL, **header):
    return frame.reading(head_of(frame.READING, cell, cycle, **header), reading_ccel)


def no_reading_of(cell, cycle, **header):
    return head_of(frame.NO_READING, cell, cycle, **header)


def activations_of(cell, cycle, values=(0,) * 5, exchange=1, **header):
    return frame.activations(head_of(frame.ACTIVATIONS, cell, cycle, **header), exchange, values)


def member_of(cell, cycle, values=(0,) * 5, absence=(0, 0), **header):
    return frame.member(head_of(frame.MEMBER, cell, cycle, **header), absence, READING_CCEL, values)


def readings_of(cells, cycle):
    return [reading_of(cell, cycle) for cell in cells]


def whole_cycle(bench, cycle, cells=AROUND):
    """The frames of a seed cycle in which these neighbours take part; the beacon comes first."""
    mates = [cell for cell in cells if cell in MATES]
    bench.hear(beacon_of(cycle))
    bench.hear(*readings_of(cells, cycle))
    bench.hear(*[activations_of(cell, cycle) for cell in cells])
    return bench.hear(*[member_of(cell, cycle) for cell in mates])


def quiet_mesh(site=SQUARE, spec="seed", readings=None, cycles=60):
    """A whole mesh over a perfect transport; readings that differ from cell to cell, or as given, by cycle."""
    values = {cell: [READING_CCEL + 40 * cell[0] - 300 * cell[1]] * cycles for cell in site.cells}
    values |= readings or {}
    return MeshInMemory(site, make_model(spec, site), {cell: Sensor(values[cell]) for cell in values}, Perfect())
