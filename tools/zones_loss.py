"""Spec zone when frames are lost: `python -m tools.zones_loss [first last]`, rooms 0 to 9 without numbers.

Rooms and fitted filters are those of tools/zones.py; the cycles behind TRAIN are judged, after some that only let
losses leave their mark. Printed are means over the rooms, for each kind of loss and each policy:

    mesh, up, total  bytes a cycle on the air: values and challenges; blocks' bits; both
    beats            heartbeats, on top
    agree            share of cycles in which the gateway's 'abnormal somewhere' is that of a full exchange, %
    all              share of cycles in which every node's state is, %
    missed, false    cycles a day in which the gateway knows of nothing abnormal and there is, or the other way round
    gone             cycles from a node's death until all its neighbours have given it up, mean and longest of those
                     that have by the end
"""

import sys

import numpy as np
from numpy.typing import NDArray

from gateway.model import Filters
from gateway.samples import Samples
from gateway.site import Site, lounge
from sim.zones_faults import Faults, deaths
from sim.zones_loss import Lossy, Policy, simulate, watched
from tools.zones import TRAIN, fitted_room

# Cycles before those that are judged: two heartbeats, and the first cycle, in which everybody speaks.
WARM = 97
# One every ten minutes. The rooms' own cycles are half hours: by their clock a day has 48, and a third of the errors.
CYCLES_A_DAY = 144
# Payloads in bytes of a value, a heartbeat, which has a version, and a block's state.
VALUE_SIZE, HEARTBEAT_SIZE, BIT_SIZE = 8, 10, 12
LOSSES = {
    "no loss": Faults(),
    "10 % lost": Faults(0.1),
    "30 % lost": Faults(0.3),
    "10 % lost, in bursts of 4 copies": Faults(0.1, burst=4),
    "10 % lost, links out for 4 cycles": Faults(0.1, outage=4),
    "no loss, 5 % of the nodes die": Faults(),
}
DYING, SHARE_DYING = "no loss, 5 % of the nodes die", 0.05
# All with heartbeats; the last two are the firmware's, told so many copies by the beacon.
POLICIES = {f"{copies} x": Policy(copies, challenge=0) for copies in (1, 2, 3)}
POLICIES |= {f"{copies} x, challenge": Policy(copies) for copies in (1, 2, 3)}
POLICIES |= {f"watched {copies} x": watched(copies) for copies in (2, 4)}
_HEADER = "   mesh  up  total  beats   agree     all  missed  false    gone"


def main(first: int = 0, last: int = 9) -> None:
    """Fit and simulate, tell on stderr how far it is, print the means."""
    site, rows = lounge(), []
    for room in range(first, last + 1):
        print(f"zones_loss: room {room} of {first}..{last}: fitting", file=sys.stderr)
        filters, samples = fitted_room(site, room)
        rows.append(np.array([judged(filters, site, samples, loss, room) for loss in LOSSES]))
    means, longest = np.mean(rows, axis=0), np.max(rows, axis=0)
    for loss, by_policy, most in zip(LOSSES, means, longest, strict=True):
        print(f"\n{loss:34} {_HEADER}")
        for policy, values, worst in zip(POLICIES, by_policy, most, strict=True):
            print(f"  {policy:32} {_line(values, worst)}")


def judged(filters: Filters, site: Site, samples: Samples, loss: str, room: int) -> NDArray[np.float64]:
    """What the header says but the total, of each policy: [policies, 9]; every room draws its own losses."""
    faults, found = faults_of(loss, site, samples, room), []
    for name, policy in POLICIES.items():
        print(f"zones_loss: room {room}: {loss}: {name}", file=sys.stderr)
        found.append(figures(run_later(filters, site, samples, policy, faults)))
    return np.array(found)


def faults_of(loss: str, site: Site, samples: Samples, room: int) -> Faults:
    """One of LOSSES in a room, over the cycles that `run_later` simulates."""
    faults = LOSSES[loss]._replace(seed=room + 1)
    if loss != DYING:
        return faults
    return faults._replace(dies=deaths(site, SHARE_DYING, range(WARM, samples.cycles - TRAIN + WARM), faults.seed))


def run_later(filters: Filters, site: Site, samples: Samples, policy: Policy, faults: Faults) -> Lossy:
    """The cycles behind TRAIN, and WARM before them."""
    later = samples.part(slice(TRAIN - WARM, None))
    return simulate(filters, later.readings_ccel, later.present, site, policy, faults)


def figures(run: Lossy) -> NDArray[np.float64]:
    """What the header says but the total, and the longest of `gone`: [9]; 0 for the last two where nobody is gone."""
    expected = run.expected.any(axis=(1, 2))
    by_cycle = [run.bytes_in_mesh(VALUE_SIZE), run.bytes_upward(BIT_SIZE), run.bytes_of_heartbeats(HEARTBEAT_SIZE)]
    by_cycle += [100 * (run.answers == expected)]
    by_cycle += [100 * (run.states == run.expected).all(axis=(1, 2))]
    by_cycle += [CYCLES_A_DAY * (expected & ~run.answers), CYCLES_A_DAY * (run.answers & ~expected)]
    gone = [run.noticed.mean(), run.noticed.max()] if len(run.noticed) else [0, 0]
    return np.array([values[WARM:].mean() for values in by_cycle] + gone)


def _line(values: NDArray[np.float64], worst: NDArray[np.float64]) -> str:
    mesh, up, beats, agree, every, missed, false, gone, _ = values
    cost = f"{mesh:7.0f} {up:3.0f} {mesh + up:6.0f} {beats:6.0f}"
    noticed = f"{gone:4.0f} {worst[-1]:4.0f}" if gone else "   -    -"
    return f"{cost} {agree:7.2f} {every:7.2f} {missed:7.2f} {false:6.2f} {noticed}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
