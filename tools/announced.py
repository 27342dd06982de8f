"""What mode event would cost spec lean: `python -m tools.announced [first last]`, rooms 0 to 2 without numbers.

The filters that lean begins with, set by hand, over the 561 cycles behind the first 2,400 (R0-14); the run ends with an
error after a cycle in which some node's last activation is not that of a full exchange. Bytes a cycle on the air,
without loss, heartbeats and control traffic:

    mesh     readings with limits, and limits alone (sim/announced.py)
    upward   MEMBER and REPORT frames, each when it says something new (sim/change.py)

A quarter of a minute a room on one core.
"""

import sys

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from gateway.ledger import AIR_OVERHEAD
from gateway.model import SPECS, Filters
from gateway.site import Site, lounge
from gateway.start_weights import start_filters
from sim.announced import simulate, sizes
from sim.change import traffic
from sim.field.lounge import Lounge
from sim.field.lounge import simulate as room_of
from tools.zones import TEST, TRAIN

SHARES = {"announced in full": 1.0, "three quarters": 0.75, "half": 0.5, "known without": None}
_HEADER = "readings  limits  rounds    mesh  upward   total"


def main(first: int = 0, last: int = 2) -> None:
    """Simulate and print lines for each room, then the means."""
    site, filters = lounge(), start_filters(SPECS["lean"])
    found: list[list[NDArray[np.float64]]] = []
    print(f"room  {'limits':18} {_HEADER}")
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("lean in mode event", total=(last - first + 1) * len(SHARES))
        for room in range(first, last + 1):
            fields = room_of(Lounge(seed=room), TRAIN + TEST)[TRAIN - 1 :]
            found.append([])
            for name, share in SHARES.items():
                found[-1].append(counted(filters, fields, site, share))
                bars.advance(task)
                print(_line(f"{room:4}  {name:18}", found[-1][-1]), flush=True)
    for name, values in zip(SHARES, np.mean(found, axis=0), strict=True):
        print(_line(f"mean  {name:18}", values))


def counted(filters: Filters, fields: NDArray[np.int16], site: Site, share: float | None) -> NDArray[np.float64]:
    """Readings, limits alone, rounds, bytes in the mesh and upward, a cycle; the first cycle is not counted."""
    silence = simulate(filters, fields, np.broadcast_to(site.mask, fields.shape), site, share)
    value, limits = (AIR_OVERHEAD + size for size in sizes(filters, site, share))
    said = silence.heard.said.sum(axis=(1, 2))
    mesh = value * said + limits * silence.announced
    everything = traffic(filters, silence.heard, site)
    behind_words = tuple(frames for frames in everything.sent if frames.kind in ("member", "report"))
    upward = everything._replace(sent=behind_words).bytes_on_air()
    return np.array([each[1:].mean() for each in (said, silence.announced, silence.rounds, mesh, upward)])


def _line(name: str, values: NDArray[np.float64]) -> str:
    said, limits, rounds, mesh, upward = values
    return f"{name} {said:8.1f} {limits:7.1f} {rounds:7.2f} {mesh:7.0f} {upward:7.0f} {mesh + upward:7.0f}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
