"""The promise of the project: over every transport each feature that can be compared equals the twin's, bit for bit."""

import random

import numpy as np
import pytest
from mesh_in_memory import TIMING, Lossy, MeshInMemory, OneFrameAtATime, Perfect, Sensor, Slow, make_model, make_site

from gateway import twin
from gateway.model import SPECS
from protocol import frame
from protocol.compat import TICKS_PERIOD, ticks_diff

ROWS, COLS, CYCLES = 5, 7, 30
HOLES = ((0, 0), (2, 3), (3, 3), (4, 6))
SITE = make_site(ROWS, COLS, HOLES)
SEEDS = 3

TRANSPORTS = {
    "perfect": lambda seed: Perfect(),
    "one frame at a time": lambda seed: OneFrameAtATime(),
    "losing one in ten": lambda seed: Lossy(seed, 0.1),
    "losing one in five hundred": lambda seed: Lossy(seed, 0.002),
    "slow": lambda seed: Slow(seed),
}
every_spec = pytest.mark.parametrize("spec", SPECS)
every_transport = pytest.mark.parametrize("transport", TRANSPORTS)
without_loss = pytest.mark.parametrize("transport", ["perfect", "one frame at a time"])


def made_up_readings(rng):
    """A warm room with steps in it, every tenth reading missing: [cycles, rows, cols], and where one is."""
    fields = rng.integers(2100, 2300, (CYCLES, ROWS, COLS)) + 600 * (rng.random((CYCLES, ROWS, COLS)) < 0.2)
    return fields, rng.random(fields.shape) >= 0.1


def sensor_at(readings, present, cell):
    values = zip(readings[:, *cell].tolist(), present[:, *cell].tolist(), strict=True)
    return Sensor([value if there else None for value, there in values])


class Run:
    """One mesh over 30 cycles."""

    def __init__(self, spec, transport, seed):
        self.readings, self.present = made_up_readings(np.random.default_rng(seed))
        self.model = make_model(spec, SITE)
        sensors = {cell: sensor_at(self.readings, self.present, cell) for cell in SITE.cells}
        self.mesh = MeshInMemory(SITE, self.model, sensors, transport)

    def check(self, outcome):
        """What holds for every cycle: features equal the twin's, readings equal the sensors'."""
        record, cycle = outcome.record, outcome.record.cycle
        assert outcome.exact.compared == outcome.exact.equal, f"cycle {cycle}"
        has = record.has_reading
        assert np.array_equal(self.readings[cycle][has], record.readings_ccel[has])
        assert not (has & ~self.present[cycle]).any()
        if record.late == 0:
            self.check_from_readings_alone(record)

    def check_from_readings_alone(self, record):
        """In a cycle where nothing was late the features follow from readings and no_reading and nothing else."""
        present = SITE.mask & ~record.no_reading
        assert np.array_equal(present, record.has_reading), f"cycle {record.cycle}"
        expected = twin.features(self.model.filters, record.readings_ccel[np.newaxis], present[np.newaxis], SITE)[0]
        assert np.array_equal(expected, record.features), f"cycle {record.cycle}"


@pytest.mark.parametrize("part", range(SEEDS))
@every_spec
@every_transport
def test_every_compared_feature_equals_the_twin(transport, spec, part, seed):
    run = Run(spec, TRANSPORTS[transport](seed + part), seed + part)
    outcomes = [run.mesh.run_cycle() for _ in range(CYCLES)]
    for outcome in outcomes:
        run.check(outcome)
    assert list(range(CYCLES)) == [outcome.record.cycle for outcome in outcomes]
    assert 0 < sum(outcome.exact.compared for outcome in outcomes)
    lates = [outcome.record.late for outcome in outcomes]
    if transport in ("perfect", "one frame at a time"):
        assert [0] * CYCLES == lates
        blocks = len(SITE.blocks) * SPECS[spec].channels
        assert 0.95 * blocks * CYCLES < sum(outcome.exact.compared for outcome in outcomes)
    else:
        assert max(lates) > 0
    if transport == "losing one in five hundred":
        assert 3 < lates.count(0) < CYCLES


def test_every_nodes_ticks_wrap_in_the_course_of_these_runs():
    run = Run("lean", Perfect(), 1)
    before = {cell: run.mesh.ticks(cell) for cell in SITE.cells}
    run.mesh.now_ms = CYCLES * TIMING.period_ms
    assert all(ticks > TICKS_PERIOD // 2 for ticks in before.values())
    assert all(run.mesh.ticks(cell) < TICKS_PERIOD // 2 for cell in SITE.cells)
    assert all(CYCLES * TIMING.period_ms == ticks_diff(run.mesh.ticks(cell), before[cell]) for cell in SITE.cells)


@pytest.mark.parametrize("will", [True, False], ids=["with will", "without will"])
@every_spec
@every_transport
def test_nodes_that_die_in_mid_cycle_leave_the_rest_exact(transport, spec, will, seed):
    """Six nodes die at any instant of the first 40 ms of a cycle, which is when everything happens."""
    dice = random.Random(seed)
    run = Run(spec, TRANSPORTS[transport](seed), seed)
    outcomes = []
    for cycle in range(CYCLES):
        if cycle in (4, 5, 9, 13, 14, 20):
            instant_ms = dice.randint(0, 6 if transport == "perfect" else 40)
            run.mesh.at(instant_ms, run.mesh.kill, dice.choice(SITE.cells), will)
        outcomes.append(run.mesh.run_cycle())
        run.check(outcomes[-1])
    assert 0 < sum(outcome.exact.compared for outcome in outcomes)
    if transport in ("perfect", "one frame at a time"):
        lates = [outcome.record.late for outcome in outcomes]
        assert max(lates) > 0
        assert [0] * 6 == lates[-6:]


class LosesOne:
    """Perfect but for one delivery: that of the first frame of a kind in a cycle, to a node or to the gateway."""

    def __init__(self):
        self.lose_next = False

    def delays_ms(self, _now_ms):
        lost, self.lose_next = self.lose_next, False
        return () if lost else (1,)


VALUES = {"reading": frame.READING, "activations": frame.ACTIVATIONS, "member": frame.MEMBER, "report": frame.REPORT}


@pytest.mark.parametrize("kind", VALUES)
def test_late_tells_the_one_cycle_in_which_a_value_was_lost(kind, monkeypatch):
    """Everything else arrives, so every other cycle has late 0; a lost report costs its cycle only."""
    transport = LosesOne()
    run = Run("seed", transport, 1)
    run.present[:] = True
    run.mesh = MeshInMemory(
        SITE, run.model, {cell: sensor_at(run.readings, run.present, cell) for cell in SITE.cells}, transport
    )
    lose_first_of(run.mesh, transport, VALUES[kind], cycle=7)
    lates = [run.mesh.run_cycle().record.late for _ in range(12)]
    assert [7] == [cycle for cycle, late in enumerate(lates) if late]


def lose_first_of(mesh, transport, kind, cycle):
    """Let the transport lose one delivery of the first frame of a kind in a cycle; a MEMBER's that to its owner."""
    send = mesh._send

    def watch(cell, destination, data):
        wanted = data[0] & 15 == kind and frame.u16(data, 4) == cycle
        if wanted and not mesh.__dict__.setdefault("lost", False):
            mesh.lost = transport.lose_next = True
        send(cell, destination, data)

    mesh._send = watch


@pytest.mark.parametrize("lost", range(len(SITE.cells)))
def test_a_lost_beacon_costs_nothing_because_a_neighbour_opens_the_cycle(lost):
    transport = LosesOne()
    run = Run("seed", transport, 1)
    run.mesh.run_cycle()
    deliveries = iter(range(len(SITE.cells)))
    transport.delays_ms = lambda _now_ms: () if next(deliveries, None) == lost else (1,)
    outcome = run.mesh.run_cycle()
    assert 0 == outcome.record.late
    run.check(outcome)
