"""`make trial-crash`: gateway and broker are killed by SIGKILL again and again; then what was promised is checked.

425 nodes on real MicroPython report over mosquitto to `thermesh gateway`. It is killed at 200 random instants and, five
times each, where it publishes or commits something (hooks.py), in random order; then mosquitto at 20 instants, each
time with 4 nodes, which lose what they hold, so that there are gaps. QUICK=1: 20, once each, and 3. Then judge.py
holds the store against all that was said on the broker. The last line has the counts; exit code 1 where a promise
broke, 2 where mosquitto or MicroPython is missing, or the site did not come back.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gateway.broker import find_mosquitto
from tools.mesh.mesh import has_micropython
from tools.trial import Progress, TrialError, wait
from tools.trial_crash.hooks import HOOKS
from tools.trial_crash.judge import Verdict, judge
from tools.trial_crash.live import Ground, LiveSite

# Behind the last kill nodes say again what they hold, two reports a cycle each; so long at most.
_CALM_S_MAX = 60.0
# Beacons in a row before which nobody had to be told anything: nobody holds old reports.
_CALM_BEACONS = 3
_NODES_AT_ONCE = 4
# The gateway is started at once or so much later at most, by half.
_AWAY_S_MAX = 1.0
_HOOK_S_MAX = 60.0


class Plan(NamedTuple):
    """What is done.

    Attributes:
        ground: where nodes stand.
        instants: how often the gateway is killed at a random instant.
        each_hook: how often at each hook.
        brokers: how often mosquitto is killed.
        seed: of all that is random.
    """

    ground: Ground = Ground(17, 25, 2)
    instants: int = 200
    each_hook: int = 5
    brokers: int = 20
    seed: int = 0

    @property
    def quick(self) -> "Plan":
        """The same in a few minutes."""
        return self._replace(instants=20, each_hook=1, brokers=3)


class Found(NamedTuple):
    """What was done and found: the gateway killed at random and at hooks, mosquitto, nodes; the verdict, seconds."""

    instants: int
    hooks: int
    brokers: int
    nodes: int
    verdict: Verdict
    seconds: float

    def line(self) -> str:
        """All counts on one line."""
        killed = f"gateway {self.instants} times at random and at {self.hooks} hooks"
        killed += f", mosquitto {self.brokers} times, nodes {self.nodes} times"
        return f"killed: {killed}; {self.verdict.line()}"


def run(folder: Path, plan: Plan, say: bool) -> Found:
    """Start everything, kill, wait until it is calm, and judge.

    Args:
        folder: an empty one.
        plan: what is done.
        say: print how far it is.

    Raises:
        TrialError: the site did not come up or back.
    """
    rng, tell, begin_s = random.Random(plan.seed), Progress(say), time.monotonic()
    with LiveSite(folder, plan.ground) as site:
        tell(f"{len(site.site.cells)} nodes report")
        site.kill_gateway()
        _kill_gateways(site, plan, rng, tell)
        site.start_gateway()
        nodes = _kill_brokers(site, plan, rng, tell)
        _calm_down(site)
        tell("calm")
        site.kill_gateway()
    verdict = judge(site.state, site.site, site.said)
    hooks = len(HOOKS) * plan.each_hook
    return Found(plan.instants, hooks, plan.brokers, nodes, verdict, time.monotonic() - begin_s)


def _kill_gateways(site: LiveSite, plan: Plan, rng: random.Random, tell: Progress) -> None:
    """One life of the gateway after another, each from its start to its SIGKILL, in random order."""
    lives: list[str | None] = [None] * plan.instants + list(HOOKS) * plan.each_hook
    rng.shuffle(lives)
    for number, hook in enumerate(lives, 1):
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, _AWAY_S_MAX))
        if hook is None:
            site.start_gateway()
            site.wait_decided()
            time.sleep(rng.uniform(0, plan.ground.cycle_s))
            site.kill_gateway()
        else:
            _die_at(site, hook, _call_of(hook, site, rng))
        tell.count("gateway killed", number, len(lives))


def _die_at(site: LiveSite, hook: str, call: int) -> None:
    """A life of the gateway that ends at a hook; where that is the wave's, it gets one to roll out."""
    site.start_gateway((hook, call))
    if hook.endswith("wave"):
        wait(lambda: site.decided or site.killed_itself(), "the gateway decides", _HOOK_S_MAX)
        site.push()
    wait(site.killed_itself, f"the gateway ends {hook}", _HOOK_S_MAX)


def _call_of(hook: str, site: LiveSite, rng: random.Random) -> int:
    """At which call of a hook the gateway ends."""
    if hook.endswith("wave"):
        return 2  # it is published once at the start
    if hook.endswith("acknowledgement"):  # after a kill most blocks' owners are told
        return rng.randint(1, max(1, site.blocks // 2))
    return rng.randint(2, 3) if hook == "in commit" else rng.randint(1, 3)


def _kill_brokers(site: LiveSite, plan: Plan, rng: random.Random, tell: Progress) -> int:
    """Mosquitto and some nodes are killed at random instants and started again; returns how many nodes in all."""
    nodes = 0
    for number in range(1, plan.brokers + 1):
        site.wait_decided()
        time.sleep(rng.uniform(0, plan.ground.cycle_s))
        site.kill_broker()
        nodes += site.restart_nodes(_NODES_AT_ONCE, rng)
        site.start_broker()
        site.decided.clear()
        tell.count("mosquitto killed", number, plan.brokers)
    return nodes


def _calm_down(site: LiveSite) -> None:
    """Wait until nobody says anything again, or long enough."""
    site.wait_decided()
    site.said.calm = 0
    deadline = time.monotonic() + _CALM_S_MAX
    while site.said.calm < _CALM_BEACONS and time.monotonic() < deadline:
        time.sleep(0.1)


def main() -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.trial_crash")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not find_mosquitto() or not has_micropython():
        print("trial_crash: mosquitto or MicroPython is not installed", file=sys.stderr)
        return 2
    plan = Plan(seed=asked.seed)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder), plan.quick if asked.quick else plan, say=not asked.json)
    except TrialError as error:
        print(f"trial_crash: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trial_crash: stopped", file=sys.stderr)
        return 130
    verdict = found.verdict
    if asked.json:
        counts = {**found._asdict(), **verdict._asdict()}
        del counts["verdict"]
        print(json.dumps(counts))
    else:
        lines = [f"BROKEN  {what}" for what in verdict.broken]
        print(*lines, f"{verdict.cycles} cycles stored, {verdict.held} reports held by nodes", found.line(), sep="\n")
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
