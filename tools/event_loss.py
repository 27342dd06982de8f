"""Mode event when frames between nodes are lost, with the real code: `python -m tools.event_loss [first last]`, room 0.

Rooms, fitted filters and the cycles that are judged are those of tools/zones_loss.py, so the figures stand beside each
other: there the rules in numpy, here the nodes as they are, on the simulator's network. Printed for each room and loss:

    mesh, up, total  bytes a cycle on the air: what nodes say to each other; to the gateway; both
    beats            heartbeats, which with beacons and the proofs by which this is judged come on top
    agree            share of cycles in which the gateway's 'abnormal somewhere' is that of a full exchange, %
    all              share of cycles in which every node's state is, %
    speed            simulated cycles in a second of one core

Exit code 1: a promise was broken; the states behind the losses are among them.
"""

import sys
from dataclasses import replace
from typing import Any

from gateway.site import Site, lounge
from sim.network.agreement import figures
from sim.network.promises import RECOVERY_CYCLES
from sim.network.scene import Scene, make_model
from sim.network.simulation import CALM_CYCLES, SPEC_OF_MODE, Plan, Simulation
from tools.zones import TEST, TRAIN, fitted_room
from tools.zones_loss import WARM

SCENARIOS = ("calm", "loss10", "loss30")
_SPEC = SPEC_OF_MODE["event"]


def main(first: int = 0, last: int = 0) -> int:
    """Fit, simulate, print a line for each room and loss; 1 when a promise was broken."""
    broken = 0
    print("room  loss      mesh    up  total  beats   agree     all  speed")
    for room in range(first, last + 1):
        print(f"event_loss: room {room} of {first}..{last}: fitting", file=sys.stderr)
        scene = room_scene(lounge(), room)
        for scenario in SCENARIOS:
            print(f"event_loss: room {room}: {scenario}", file=sys.stderr)
            found = judged(scene, scenario, room)
            print(f"{room:4}  {scenario:6} {_line(found)}", flush=True)
            for entry in found["broken"]:
                print(f"BROKEN {entry['promise']} at {entry['now_ms']} ms, {entry['who']}: {entry['what']}")
                broken = 1
    return broken


def room_scene(site: Site, room: int) -> Scene:
    """A simulated room behind the cycles that its filters were fitted to, with WARM cycles before."""
    filters, samples = fitted_room(site, room)
    fields = samples.readings_ccel[TRAIN - WARM :]
    model = make_model(room, _SPEC, site)
    readings: list[list[int | None]] = [fields[:, row, col].tolist() for row, col in site.cells]
    return Scene(site, replace(model, filters=filters), readings)


def judged(scene: Scene, scenario: str, seed: int, cycles: int = WARM + TEST) -> dict[str, Any]:
    """Figures of the cycles under loss behind the first WARM, how fast all went, and what was broken."""
    calm_cycles = CALM_CYCLES + RECOVERY_CYCLES
    plan = Plan(seed, scenario, cycles=cycles + calm_cycles, spec=_SPEC, mode="event", rolls_out=False)
    with Simulation(plan, scene=scene) as simulation:
        summary = simulation.run()
        under_loss = simulation.agreement.judged[WARM:cycles]
    speed = summary["cycles"] / summary["seconds"]["cpu"]
    return figures(under_loss) | {"speed": speed, "broken": summary["broken"]}


def _line(found: dict[str, Any]) -> str:
    cycles, air = max(found["cycles"], 1), found["air"]
    shares = [100 * found[name] / cycles for name in ("answers", "states")]
    cost = f"{air['mesh']:7.0f} {air['up']:5.0f} {air['mesh'] + air['up']:6.0f} {air['heartbeats']:6.0f}"
    return f"{cost} {shares[0]:7.2f} {shares[1]:7.2f} {found['speed']:6.1f}"


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
