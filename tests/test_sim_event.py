"""Mode event on the simulated network: the promises that hold in it, what losses do, and how a death is noticed."""

import json
from collections import Counter

import numpy as np
import pytest
from simulated import broken, run
from typer.testing import CliRunner

from firmware.quiet import HEARTBEAT
from gateway import twin
from protocol import frame
from protocol.grid import node_name
from sim.network import faults
from sim.network.agreement import figures
from sim.network.faults import SCENARIOS, Scenario
from sim.network.gateway_shell import TIMING, changed
from sim.network.promises import RECOVERY_CYCLES
from sim.network.scene import Scene, make_model, make_quiet_readings, make_site
from sim.network.simulation import CALM_CYCLES, CYCLES, CYCLES_MIN, Plan, Simulation
from tools.cli import app
from tools.event_loss import judged
from tools.sim import lines
from tools.zones_loss import WARM

EVENT = {"spec": "zone", "mode": "event"}
LEAST = CYCLES_MIN + RECOVERY_CYCLES
SMALL = {"rows": 4, "cols": 4, "cycles": LEAST + 6, **EVENT}
HOT_CCEL, COLD_CCEL = 3_200, 2_200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_every_promise_of_mode_event_holds_whatever_goes_wrong(seed):
    summary = run(Plan(seed, "chaos", cycles=CYCLES["event"], **EVENT))
    assert [] == summary["broken"], "\n".join(lines(summary))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_promise_of_mode_event_holds_on_a_small_site_in_each_scenario(scenario, seed):
    """With faults too every node's own state is exact again when two heartbeats have passed behind the last of them."""
    summary = run(Plan(seed, scenario, **SMALL))
    assert [] == summary["broken"], "\n".join(lines(summary))
    assert summary["nodes"] == summary["filters"]["confirmed"]
    assert CALM_CYCLES <= summary["checked"]["states"]


def test_without_faults_all_states_and_the_answer_are_those_of_a_full_exchange_in_every_cycle(seed):
    summary = run(Plan(seed, "calm", **SMALL))
    faulty = SMALL["cycles"] - CALM_CYCLES - RECOVERY_CYCLES
    assert SMALL["cycles"] == summary["checked"]["states"]
    found = summary["event"]["faults"]
    assert (faulty, faulty, faulty) == (found["cycles"], found["answers"], found["states"])
    assert {"1", "2"} == set(summary["versions"])
    assert 0 < found["air"]["mesh"] < 16 * 29 / 3, "most nodes keep silent in most cycles"


def test_the_filters_that_are_rolled_out_take_more_windows_for_abnormal_and_not_all(seed):
    site, shape = make_site(7, 7, None), (-1, 7, 7)
    model = make_model(seed, "zone", site)
    fields = np.array(make_quiet_readings(seed, len(site.cells), 0), np.int16).T.reshape(shape)
    before, after = (
        twin.features(filters, fields, np.ones(fields.shape, np.bool_), site)
        for filters in (model.filters, changed(model).filters)
    )
    assert before.sum() < after.sum() < after.size / 4


def test_the_same_seed_gives_the_same_bytes_in_mode_event_too(seed):
    first, again = (run(Plan(seed, "chaos", **(SMALL | {"cols": 2}))) for _ in range(2))
    for summary in (first, again):
        del summary["seconds"]
    assert first == again


def test_words_that_are_lost_between_nodes_make_states_differ_and_nothing_else(monkeypatch, seed):
    """The gateway hears and is heard: each node proves its state in each cycle. Watched, nearly all are right."""
    right = []
    for copies in (0, 4):
        monkeypatch.setitem(SCENARIOS, "loss30", Scenario(lost_in_mesh=0.3, copies=copies))
        with Simulation(Plan(seed, "loss30", 6, 6, LEAST + 30, False, **EVENT)) as simulation:
            summary, found = simulation.run(), simulation.agreement.judged
        right.append(summary["event"]["faults"]["states"])
        assert CALM_CYCLES == summary["event"]["recovered"]["states"]
        assert not any(entry.unproven for entry in found)
    cycles = summary["event"]["faults"]["cycles"]
    assert right[0] < 0.9 * cycles <= right[1], right


def test_a_node_that_computes_with_other_numbers_than_its_filters_say_proves_a_wrong_state(seed):
    def spoil(simulation):
        def flip():
            shell = simulation.network.shells[1, 1]
            _, _, bias, _ = shell.node.wave.active.layers[0]
            for place in range(len(bias)):
                bias[place] = (1 << 29) + 100_000

        simulation.clock.after(25_000, flip)

    assert {"exact", "states"} == broken(run(Plan(seed, "calm", **SMALL, holes=False), spoil))


def test_a_node_whose_connection_comes_back_asks_for_the_last_words(seed):
    kinds = Counter()

    def watch(simulation):
        network, shell = simulation.network, simulation.network.shells[1, 1]
        take = network.on_frame

        def count(sender, destination, data):
            take(sender, destination, data)
            kinds[frame.KINDS[frame.kind_of(data)], sender is shell] += 1

        def break_link():
            kinds.clear()
            network.lose_link(shell)

        network.on_frame = count
        simulation.clock.after(25 * TIMING.period_ms, break_link)

    run(Plan(seed, "loss10", **SMALL, holes=False, rolls_out=False), watch)
    assert (1, 0) == (kinds["refresh", True], kinds["refresh", False])


def test_what_goes_over_the_air_is_counted_by_who_needs_it(seed):
    with Simulation(Plan(seed, "calm", **SMALL, holes=False, rolls_out=False)) as simulation:
        sent, take = Counter(), simulation.network.on_frame
        simulation.network.on_frame = lambda *call: (take(*call), sent.update([frame.KINDS[frame.kind_of(call[2])]]))
        simulation.run()
        found = simulation.agreement.judged
    air = sum((Counter(entry.air) for entry in found), Counter())
    assert (air["proofs"], air["up"]) == (len(found) * 16 * 32, sent["state"] * 30)
    assert air["mesh"] == (sent["value"] + sent["refresh"]) * 29 + sent["challenge"] * 36
    assert air["heartbeats"] == sent["reading"] * 31
    assert air["filters"] == sent["filters"] * 35
    assert air["beacons"] > len(found) * 21
    assert figures(found)["air"]["mesh"] == pytest.approx(air["mesh"] / len(found), abs=0.05)


# Deaths


def test_a_node_that_dies_without_a_word_is_given_up_by_all_neighbours_within_its_heartbeat(monkeypatch, seed):
    """`pytest -s -k given_up` prints after how many cycles.

    Each node that dies is hot among cold ones, so the states of its northern and its western neighbour, which compare
    themselves with it, tell whether they still count on it. Another hot one lives on.
    """
    monkeypatch.setitem(faults.SCENARIOS, "still", Scenario())
    deaths = {(1, 1 + 3 * k): 50 + 11 * k for k in range(4)}
    site = make_site(3, 15, None)
    readings = [[HOT_CCEL if cell in {*deaths, (1, 13)} else COLD_CCEL] for cell in site.cells]
    scene = Scene(site, make_model(seed, "zone", site), readings)
    plan = Plan(seed, "still", cycles=LEAST + max(deaths.values()), rolls_out=False, **EVENT)
    with Simulation(plan, scene=scene) as simulation:
        for cell, cycle in deaths.items():
            simulation.clock.after(cycle * TIMING.period_ms, simulation.network.shells[cell].halt)
        assert {"wave"} == broken(simulation.run()), "the dead have not confirmed the newest filters, no more than that"
        found = simulation.agreement.judged
    noticed = {}
    for (row, col), died in deaths.items():
        corners = {(row - 1, col), (row, col - 1)}
        wrong = [entry.cycle for entry in found if corners & {*entry.wrong}]
        assert all(corners <= {*found[cycle].wrong} for cycle in wrong), "all give it up in the same cycle"
        noticed[row, col] = wrong[-1] + 1 - died
        print(f"{node_name(row, col)} died in cycle {died} and was given up after {noticed[row, col]} cycles")
    assert 0 < min(noticed.values())
    assert max(noticed.values()) <= HEARTBEAT


# Commands


def test_the_command_says_what_agreed_and_replays_itself(seed):
    words = f"sim --mode event --seed {seed} --scenario loss10 --rows 3 --cols 3 --cycles {LEAST}"
    summary = json.loads(CliRunner().invoke(app, [*words.split(), "--json"], standalone_mode=False).stdout)
    again = CliRunner().invoke(app, [*summary["replay"].split()[1:], "--json"], standalone_mode=False)
    assert summary["digest"] == json.loads(again.stdout)["digest"]
    shown = "\n".join(lines(summary))
    assert "agreement  6 cycles: the answer is that of a full exchange in 100.00 %" in shown
    assert " bytes a cycle, " in shown


@pytest.mark.parametrize(
    "field", [{"mode": "change"}, {"mode": "event", "spec": "lean"}, {"cycles": LEAST - 1, **EVENT}]
)
def test_a_plan_of_mode_event_that_cannot_be_simulated_is_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{next(iter(field))}: .*write"):
        Plan(0, **field)


def test_the_figures_of_a_room_are_those_of_its_cycles_under_loss(monkeypatch, seed):
    monkeypatch.setitem(SCENARIOS, "loss30", Scenario(lost_in_mesh=0.3))
    site = make_site(4, 4, None)
    scene = Scene(site, make_model(seed, "zone", site), make_quiet_readings(seed, len(site.cells), 0))
    found = judged(scene, "loss30", seed, WARM + 20)
    assert 20 == found["cycles"] > found["states"]
    assert [] == found["broken"]
