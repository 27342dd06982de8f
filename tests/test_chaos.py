"""Broker, gateway and nodes are killed in the middle of a wave and started again: the site comes back, the wave too.

Everything is real: mosquitto, `thermesh gateway`, MicroPython nodes with the smallest heap. Killed is SIGKILL.
"""

import json
import random
import subprocess
import sys
import time
from functools import partial
from typing import NamedTuple

import pytest
from broker_bench import Observer, mosquitto_on, needs_mosquitto, until
from live_site import NAMES, ROLLOUT_S_MAX, LiveSite, rolled
from on_micropython import require_micropython

from gateway.backup import RUNS_AHEAD
from gateway.broker import LOOPBACK, free_port
from gateway.recompute import recompute

# From the start of the last thing that was killed until every node is ready and in an exact cycle.
BACK_S_MAX = 10.0
# How many nodes hold the new filters at most when something is killed: then the beacon cannot name them yet.
HOLDING_MAX = len(NAMES) // 2
VICTIMS = len(NAMES) // 3
OWN_CLOCK_S_MAX = 10.0
AWAY_S = 3


class Back(NamedTuple):
    """Seconds from the last start until each node was ready, in an exact cycle, and had confirmed the new filters."""

    ready_s: float
    whole_s: float
    confirmed_s: float


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    require_micropython()
    with LiveSite(tmp_path_factory.mktemp("site"), 1) as live:
        yield live


# What is done to a site, before everything runs again


def without_broker(away_s, site, _rng):
    site.kill("broker")
    time.sleep(away_s)
    site.start_broker()
    return {}


def without_some_nodes(site, rng):
    """A third of them, those first that are at work on the new filters."""
    victims = chosen(site, rng)
    boots = {name: site.observer.boots[name] for name in victims}
    site.mesh.restart([NAMES[name] for name in victims])
    return boots


def without_gateway(site, _rng):
    """It stays away until the nodes of every block have gone on by their own clock."""
    site.kill("gateway")
    run, cycle = site.latest()

    def went_on():
        reports = site.observer.reports.values()
        return all(report[0] == run & 0xFF and report[1] >= cycle + 3 for report in reports)

    until(went_on, lambda: (cycle, site.observer.reports), OWN_CLOCK_S_MAX)
    site.start_gateway()
    return {}


def without_anything(site, rng):
    victims = chosen(site, rng)
    boots = {name: site.observer.boots[name] for name in victims}
    site.mesh.kill([NAMES[name] for name in victims])
    site.kill("gateway")
    site.kill("broker")
    time.sleep(2)
    site.start_broker()
    site.start_gateway()
    site.mesh.restart([NAMES[name] for name in victims])
    return boots


SCENARIOS = {
    "broker away for 2 s": partial(without_broker, 2),
    "broker away for 5 s": partial(without_broker, 5),
    "a third of the nodes": without_some_nodes,
    "the gateway": without_gateway,
    "all three at once": without_anything,
}


def chosen(site, rng):
    """Neighbours of nodes that hold the newest filters already are receiving or proving them: those, and others."""
    newest = max(held.highest for held in site.observer.holdings.values())
    holding = [NAMES[name] for name in site.observer.holding(newest)]
    near = [name for name, cell in NAMES.items() if min(distance(cell, other) for other in holding) == 1]
    others = [name for name in NAMES if name not in near]
    return (rng.sample(near, len(near)) + rng.sample(others, len(others)))[:VICTIMS]


def distance(cell, other):
    return max(abs(cell[0] - other[0]), abs(cell[1] - other[1]))


def disturb(site, scenario, rng):
    """A wave, the scenario in the middle of it, and how long everything takes to be well again."""
    version = site.push(rolled(site.store.active_model().model.filters))
    holding = rng.randint(1, HOLDING_MAX)
    print(f"killed when {holding} nodes hold filters {version}")
    until(lambda: len(site.observer.holding(version)) >= holding, site.problems, ROLLOUT_S_MAX)
    boots = scenario(site, rng)
    begin_s = time.monotonic()

    def seconds():
        return time.monotonic() - begin_s

    until(partial(site.observer.ready, boots), site.problems, BACK_S_MAX)
    ready_s = seconds()
    until(partial(site.decided_by_all, site.latest()), site.problems, BACK_S_MAX - ready_s)
    whole_s = seconds()
    until(partial(site.confirmed_by_all, version), site.problems, ROLLOUT_S_MAX)
    return Back(ready_s, whole_s, seconds())


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_site_is_back_within_ten_seconds_and_its_wave_completes(site, name, seed):
    until(partial(site.decided_by_all, site.latest()), site.problems, BACK_S_MAX)  # whatever another test left
    begin = site.latest()
    print(name, disturb(site, SCENARIOS[name], random.Random(f"{seed} {name}")))
    assert [] == site.mesh.problems()
    assert {0} == {node["refused"] for node in site.status()["nodes"].values()}
    check_cycles(site, begin)


@needs_mosquitto
@pytest.mark.slow
def test_nodes_killed_while_they_try_filters_get_the_same_weights_again_under_the_next_version(site, seed):
    begin = site.latest()
    version = site.push(rolled(site.store.active_model().model.filters))
    until(lambda: site.status()["rollout"]["nodes"]["trial"], site.problems, ROLLOUT_S_MAX)
    boots = without_some_nodes(site, random.Random(seed))
    until(partial(site.observer.ready, boots), site.problems, BACK_S_MAX)
    until(partial(site.confirmed_by_all, version + 1), site.problems, ROLLOUT_S_MAX)
    until(partial(site.decided_by_all, site.latest()), site.problems, BACK_S_MAX)
    check_cycles(site, begin)


@needs_mosquitto
@pytest.mark.slow
def test_a_gateway_replaced_from_a_backup_older_than_the_nodes_filters_decides_with_all_of_them_again(site, tmp_path):
    until(partial(site.decided_by_all, site.latest()), site.problems, BACK_S_MAX)
    site.backup(tmp_path / "old.backup")
    kept, run = site.store.active_model().model.filters, site.latest()[0]
    version = site.push(rolled(kept))
    until(partial(site.confirmed_by_all, version), site.problems, ROLLOUT_S_MAX)
    site.kill("gateway")
    site.restore(tmp_path / "old.backup")
    site.start_gateway()
    until(partial(site.confirmed_by_all, version + 1), site.problems, ROLLOUT_S_MAX)
    until(partial(site.decided_by_all, site.latest()), site.problems, BACK_S_MAX)
    assert site.latest()[0] > run + RUNS_AHEAD
    assert kept.layers[0].bias.tolist() == site.store.active_model().model.filters.layers[0].bias.tolist()


@needs_mosquitto
@pytest.mark.slow
def test_the_demo_goes_on_over_a_killed_broker_completes_its_wave_and_leaves_nothing_behind(tmp_path, seed):
    require_micropython()
    (tmp_path / "site.toml").write_text('name = "demo"\nrows = 6\ncols = 6\n')
    port, holding = free_port(), random.Random(seed).randint(1, 18)
    command = f"demo --site {tmp_path}/site.toml --broker {LOOPBACK}:{port} --cycles 48 --json"
    with mosquitto_on(port):
        observer = Observer(port, "+")
        demo = subprocess.Popen([sys.executable, "-m", "tools.cli", *command.split()], stdout=subprocess.PIPE)
        while len({name for name, *_ in observer.seen if name.endswith("/wave")}) < holding:
            assert demo.poll() is None
            observer.client.loop(0.02)
    time.sleep(AWAY_S)
    with mosquitto_on(port):
        summary = json.loads(demo.communicate(timeout=ROLLOUT_S_MAX)[0])
        late = Observer(port, "+")
        late.client.subscribe("tm/end", 1)
        late.client.publish("tm/end", b"", 1)
        late.until(lambda: late.words("tm/end"))
    assert 0 == demo.returncode
    assert (36, 0) == (summary["filters"]["confirmed"], summary["filters"]["refused"])
    assert summary["exact"]["compared"] == summary["exact"]["equal"] > 0
    assert {"1", "2"} == set(summary["filters"]["cycles"])
    assert ["tm/end"] == [name for name, *_ in late.seen]


def check_cycles(site, begin):
    """Every cycle since is exact by one version alone, versions only rise; a mixture with the old one would show."""
    cycles = [stored for stored in site.store.latest_cycles(1_000) if (stored.run, stored.outcome.record.cycle) > begin]
    used = [(stored.outcome.filter_version, stored.outcome.head_revision) for stored in cycles]
    assert sorted(used) == used
    assert len(set(used)) > 1
    heard = told_apart = 0
    for stored, model in zip(cycles, used, strict=True):
        exact = recompute(site.store, stored).exact
        assert exact == stored.outcome.exact
        assert exact.compared == exact.equal
        version, revision = used[-1] if model == used[0] else used[0]
        other = stored.outcome._replace(filter_version=version, head_revision=revision)
        by_other = recompute(site.store, stored._replace(outcome=other)).exact
        heard += exact.compared > 0
        told_apart += by_other.equal < by_other.compared
    assert told_apart > heard // 2  # not in a cycle that few nodes were back in
