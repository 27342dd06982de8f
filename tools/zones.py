"""What spec zone is worth in simulated rooms: `python -m tools.zones [first last]`, rooms 0 to 9 without numbers.

Each room is split as it happened (R0-14): filters are fitted to its first 2,400 cycles and judged on the 561 behind
them, beside the filters that are set by hand to compute the rule. Bytes are those of mode event without loss and
without heartbeats, on the air: with this project's frames, a VALUE for each value and a STATE for each node whose state
changed; and with the least that would do, a kind, a cycle's low byte and the value, and a bit for each block whose
state changed. The run ends with an error after the first cycle in which not every node's state is that of a full
exchange.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from gateway.ledger import AIR_OVERHEAD
from gateway.model import SPECS, Filters
from gateway.rule import abnormal
from gateway.samples import Samples
from gateway.sign_fit import fit_filters
from gateway.site import Site, lounge
from gateway.start_weights import start_filters
from protocol.frame import HEADER_SIZE
from sim.field.lounge import Lounge, simulate
from sim.zones import simulate as zones

TRAIN, TEST = 2_400, 561
SEED = 1
# Payloads in bytes: of a VALUE and a STATE, and of the least that tells a value and a block's bit.
FRAMES, LEAST = (HEADER_SIZE, HEADER_SIZE + 1), (4, 2)
_HEADER = "accuracy  values  states  bits  rounds  bytes (frames)  bytes (least)"


def main(first: int = 0, last: int = 9) -> None:
    """Fit, simulate and print a line for each room, then the means."""
    site, rows = lounge(), []
    print(f"room  {'':12} {_HEADER}")
    for room in range(first, last + 1):
        fitted, samples = fitted_room(site, room)
        rows.append([judged(filters, site, samples) for filters in (fitted, start_filters(SPECS["zone"]))])
        for name, values in zip(("fitted", "set by hand"), rows[-1], strict=True):
            print(_line(f"{room:4}  {name:12}", values), flush=True)
    for name, values in zip(("fitted", "set by hand"), np.mean(rows, axis=0), strict=True):
        print(_line(f"mean  {name:12}", values))


def fitted_room(site: Site, room: int) -> tuple[Filters, Samples]:
    """A simulated room of TRAIN + TEST cycles, as large as the site, and filters fitted to the first of them."""
    fields = simulate(Lounge(site.rows, site.cols, seed=room), TRAIN + TEST)
    samples = Samples(fields, np.broadcast_to(site.mask, fields.shape), abnormal(fields, site.mask))
    return fit_filters(SPECS["zone"], site, samples.part(slice(TRAIN)), SEED), samples


def judged(filters: Filters, site: Site, samples: Samples) -> NDArray[np.float64]:
    """Accuracy, values, states, blocks' bits and rounds, bytes in FRAMES and LEAST, a cycle, over those behind TRAIN.

    The last cycle of training goes before, for in the first one everybody speaks.
    """
    later = samples.part(slice(TRAIN - 1, None))
    traffic = zones(filters, later.readings_ccel, later.present, site)
    right = traffic.states.any(axis=(1, 2)) == later.abnormal
    changed = np.diff(traffic.states, axis=0, prepend=False).sum(axis=(1, 2))
    value, state = (AIR_OVERHEAD + size for size in FRAMES)
    counts = [right, traffic.broadcasts, changed, traffic.upward.sum(axis=(1, 2)), traffic.rounds]
    counts += [value * traffic.broadcasts + state * changed, traffic.bytes_on_air(*LEAST)]
    return np.array([count[1:].mean() for count in counts])


def _line(name: str, values: NDArray[np.float64]) -> str:
    right, said, states, bits, rounds, frames, least = values
    shares = f"{name} {100 * right:7.2f} {said:8.1f} {states:7.2f} {bits:5.2f} {rounds:7.2f}"
    return f"{shares} {frames:15.0f} {least:14.0f}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
