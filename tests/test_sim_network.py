import json
from pathlib import Path

import pytest
from simulated import broken, run
from typer.testing import CliRunner

from firmware import slots
from sim.network.faults import SCENARIOS
from sim.network.simulation import CYCLES_MIN, Plan
from tools.cli import app
from tools.sim import lines

SEEDS = range(20)
SMALL = {"rows": 4, "cols": 4, "cycles": CYCLES_MIN + 4}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_whatever_goes_wrong(seed):
    summary = run(Plan(seed, "chaos"))
    assert [] == summary["broken"], "\n".join(lines(summary))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_promise_holds_on_a_small_site_in_each_scenario(scenario, seed):
    summary = run(Plan(seed, scenario, **SMALL))
    assert [] == summary["broken"], "\n".join(lines(summary))
    assert summary["nodes"] == summary["filters"]["confirmed"]


def test_a_gateway_that_stood_still_gives_no_number_to_two_passes_of_the_mesh():
    """What both came to would be put together in one cycle, and differ from what the twin makes of it, as with 55."""
    summary = run(Plan(55, "stalls", rows=5, cols=5))
    assert [] == summary["broken"], "\n".join(lines(summary))
    assert summary["faults"]["gateway stalls"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(seed):
    first, again, other = (run(Plan(number, "chaos", **SMALL)) for number in (seed, seed, seed + 1))
    for summary in (first, again):
        del summary["seconds"]
    assert first == again
    assert first["digest"] != other["digest"]


def test_without_faults_every_feature_of_every_cycle_is_compared_and_equal(seed):
    summary = run(Plan(seed, "calm", 5, 6, CYCLES_MIN, holes=False))
    expected = 3 * 3 * 5 * CYCLES_MIN
    assert (expected, expected, 0) == (summary["exact"]["compared"], summary["exact"]["equal"], summary["late"])
    assert {"1", "2"} == set(summary["versions"])


def test_a_gateway_that_names_a_version_before_nodes_hold_it_is_found_out_by_the_missing_nodes(seed):
    def impatient(simulation):
        simulation.gateway.on_push = lambda data, version: (
            simulation.promises.know(data, version),
            setattr(simulation.gateway.gateway.rollout, "ready", True),
        )

    assert "calm" in broken(run(Plan(seed, "calm", **SMALL), impatient))


def test_a_node_that_computes_with_other_numbers_than_its_filters_say_breaks_exactness(seed):
    def spoil(simulation):
        def flip():
            shell = next(iter(simulation.network.shells.values()))
            _, weights, _, _ = shell.node.wave.active.layers[0]
            for place in range(len(weights)):
                weights[place] ^= 0x40

        simulation.clock.after(25_000, flip)

    assert {"exact"} == broken(run(Plan(seed, "calm", **SMALL, holes=False), spoil))


def test_a_damaged_slot_in_use_breaks_the_promise_of_a_whole_set(seed):
    def damage(simulation):
        def flip():
            shell = next(iter(simulation.network.shells.values()))
            path = Path(slots.slot_path(shell.path, slots.read_record(shell.path)[0]))
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            simulation.network.reset(shell, 1_000)

        simulation.clock.after(25_000, flip)

    assert "P4" in broken(run(Plan(seed, "reboots", **SMALL), damage))


def test_whatever_a_node_raises_breaks_a_promise_and_names_the_place(seed):
    def sabotage(simulation):
        simulation.clock.after(25_000, lambda: setattr(simulation.network.shells[0, 0].node.mode, "_neighbours", None))

    summary = run(Plan(seed, "calm", **SMALL, holes=False), sabotage)
    assert {"P6"} == broken(summary)
    assert "AttributeError" in summary["broken"][0]["what"]
    assert "firmware/layerwise.py" in summary["broken"][0]["what"]


def test_the_command_prints_one_json_object_writes_the_trace_and_replays_itself(tmp_path, seed):
    trace = tmp_path / "trace.jsonl"
    words = f"sim --seed {seed} --scenario lossy --rows 3 --cols 3 --cycles 30 --json --trace {trace}"
    done = CliRunner().invoke(app, words.split(), standalone_mode=False)
    summary = json.loads(done.stdout)
    events = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    assert summary["frames"] == sum(event["what"] == "sent" for event in events)
    again = CliRunner().invoke(app, [*summary["replay"].split()[1:], "--json"], standalone_mode=False)
    assert summary["digest"] == json.loads(again.stdout)["digest"]


@pytest.mark.parametrize("field", [{"scenario": "storm"}, {"spec": "none"}, {"cycles": CYCLES_MIN - 1}])
def test_a_plan_that_cannot_be_simulated_is_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{next(iter(field))}: .*write"):
        Plan(0, **field)
