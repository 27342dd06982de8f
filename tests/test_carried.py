"""Mode event at the gateway: cycles whose blocks were carried on are kept, and decided once more from the store."""

from dataclasses import replace

import numpy as np
import pytest
from mesh_in_memory import RUN, TIMING, Lossy, MeshInMemory, Perfect, Sensor, make_model, make_site
from store_bench import NOON_S, active, same

from gateway import decision
from gateway.cycles import blocks_with
from gateway.gateway import Gateway
from gateway.model import Head
from gateway.recompute import recompute
from gateway.service import Recorder
from gateway.store import Store
from protocol import frame, topic
from protocol.beacon import MODE_EVENT, acknowledged

SITE = make_site(4, 6, {(0, 5)})
CYCLES = 12


def quiet_readings(seed):
    """Readings that stay for cycles on end, with now and then a jump over the threshold."""
    draw = np.random.default_rng(seed)
    jumps = np.where(draw.random((CYCLES, len(SITE.cells))) < 0.03, 700, 0)
    values = 2_200 + np.cumsum(jumps, axis=0) % 1_400
    return {cell: Sensor([int(value) for value in values[:, place]]) for place, cell in enumerate(SITE.cells)}


def event_mesh(seed, transport, wants_proof):
    draw = np.random.default_rng(seed)
    model = make_model("zone", SITE)
    layers = tuple((draw.normal(0, 1, x.shape).astype(np.float32), bias) for x, bias in model.head.layers)
    mesh = MeshInMemory(SITE, replace(model, head=Head(1, layers)), quiet_readings(seed), transport)
    mesh.gateway.mode, mesh.gateway.wants_proof = MODE_EVENT, wants_proof
    return mesh


def restart(mesh, run):
    """Another gateway takes over; it goes on counting so that sensors do not begin again."""
    before = mesh.gateway
    mesh.gateway = Gateway(SITE, before.model, TIMING, run)
    mesh.gateway.mode, mesh.gateway.wants_proof = before.mode, before.wants_proof
    mesh.gateway.numbers.next = before.numbers.next


def is_carried(record):
    """Blocks whose feature is known though no node of them said anything in the cycle."""
    return (record.features[..., 0] >= 0) & ~blocks_with(record.pooled, SITE)


@pytest.mark.parametrize("transport", [Perfect(), Lossy(1, 0.2)], ids=["perfect", "lossy"])
@pytest.mark.parametrize("wants_proof", [False, True])
def test_cycles_with_carried_blocks_are_decided_once_more_from_the_store_over_a_restart(
    tmp_path, seed, transport, wants_proof
):
    mesh, outcomes = event_mesh(seed, transport, wants_proof), []
    with Store(tmp_path, SITE, create=True) as store:
        store.add_model(active(mesh.gateway.model, SITE))
        for run in (RUN, RUN + 1):
            recorder = Recorder(store, run, decision.LIMITS_DEFAULT, lambda: NOON_S)
            for _ in range(CYCLES // 2):
                outcomes.append(mesh.run_cycle())
                assert recorder.keep(outcomes[-1])
            restart(mesh, run + 1)
    with Store(tmp_path, SITE) as store:
        found = list(store.latest_cycles(CYCLES))
        again = [recompute(store, stored) for stored in found]
    assert all(is_carried(outcomes[start + 1].record).any() for start in (0, CYCLES // 2))
    assert wants_proof == any(outcome.exact.compared for outcome in outcomes)
    for outcome, stored, recomputed in zip(outcomes, found, again, strict=True):
        assert same(outcome.record, stored.outcome.record)
        assert outcome.decision.scores == pytest.approx(recomputed.decision.scores, abs=1e-5)
        assert outcome.decision[1:] == recomputed.decision[1:]
        assert outcome[2:] == recomputed[2:]


def test_a_node_that_comes_back_and_speaks_in_the_same_cycle_counts_in_it():
    mesh = event_mesh(0, Perfect(), wants_proof=True)
    mesh.run_cycle()
    state = topic.of_node(SITE.name, 1, 1, "state")
    mesh.gateway.on_message(state, b"lost")
    outcome = mesh.run_cycle()
    assert (0, outcome.exact.compared) == (outcome.record.late, outcome.exact.equal)
    assert not outcome.record.no_reading[1, 1]


def test_a_state_by_other_filters_than_the_cycles_is_left_out_and_not_acknowledged():
    gateway = Gateway(SITE, make_model("zone", SITE), TIMING, RUN)
    gateway.mode = MODE_EVENT
    gateway.start_cycle(0)
    state = frame.header(frame.STATE, 0, 0, RUN, 0, gateway.model.filters.version - 1) + b"\1"
    gateway.on_message(topic.of_node(SITE.name, 0, 0, "up"), state)
    outcome = gateway.poll(gateway.due_ms())
    assert (-1, False) == (outcome.record.features[0, 0, 0], acknowledged(gateway.ask_health(), 0, 0))
    assert 1 == gateway.faults["other_version"]


def test_a_state_that_comes_behind_its_cycle_takes_the_acknowledgement_back():
    """The stored cycle does not hold it, though another node of the block was heard in time."""
    gateway = Gateway(SITE, make_model("zone", SITE), TIMING, RUN)
    gateway.mode = MODE_EVENT
    gateway.start_cycle(0)
    version = gateway.model.filters.version
    first, second = (frame.header(frame.STATE, *cell, RUN, 0, version) + b"\0" for cell in ((0, 0), (0, 1)))
    gateway.on_message(topic.of_node(SITE.name, 0, 0, "up"), first)
    assert gateway.poll(gateway.due_ms()).record.pooled[0, 0]
    gateway.on_message(topic.of_node(SITE.name, 0, 0, "up"), first)
    assert acknowledged(gateway.ask_health(), 0, 0)
    gateway.on_message(topic.of_node(SITE.name, 0, 1, "up"), second)
    assert not acknowledged(gateway.ask_health(), 0, 0)
