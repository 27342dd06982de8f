"""What loss does to mode event, and to readings that are gathered, in one room.

Mode event is that of tools/zones_loss.py, with some of its policies. Readings are gathered in the star, each sent once
and never again; a link from each node to the gateway fails as those between nodes do. The gateway judges what it has by
the closed-form rule: of raw readings those of this cycle, of send-on-change the last one heard of each node.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway import rule
from gateway.carried_reports import THRESHOLD_CCEL
from gateway.ledger import AIR_OVERHEAD
from gateway.model import Filters
from gateway.samples import Samples
from gateway.site import Site
from protocol.frame import HEADER_SIZE
from protocol.grid import CENTRE
from sim.change import Words, words
from sim.zones_faults import NEVER, Faults, Links
from tools.zones import TRAIN
from tools.zones_loss import LOSSES, POLICIES, WARM, faults_of, figures, run_later

REPORTED = ("1 x", "1 x, challenge", "watched 2 x", "watched 4 x")
RAW, CHANGED = "raw readings", f"readings that moved by more than {THRESHOLD_CCEL / 100:.2f} degrees"
READING_BYTES = AIR_OVERHEAD + HEADER_SIZE + 2

Row = dict[str, float]
Bools = NDArray[np.bool_]


def under_loss(
    site: Site, filters: Filters, samples: Samples, room: int, advance: Callable[[], None]
) -> dict[str, dict[str, Row]]:
    """By loss and way: `bytes` a cycle on the air without heartbeats, `agree`, %, and more in mode event.

    Args:
        site: where nodes stand.
        filters: of spec zone.
        samples: all cycles of the room.
        room: its number; each draws its own losses.
        advance: told after each policy.
    """
    found: dict[str, dict[str, Row]] = {}
    for loss in LOSSES:
        faults, rows = faults_of(loss, site, samples, room), {}
        for name in REPORTED:
            run = run_later(filters, site, samples, POLICIES[name], faults)
            mesh, up, beats, agree, states, missed, false, gone, longest = figures(run).tolist()
            rows[name] = {"bytes": mesh + up, "heartbeats": beats, "agree": agree, "states": states}
            rows[name] |= {"missed": missed, "false": false}
            if gone:
                rows[name] |= {"gone": gone, "gone_max": longest}
            advance()
        found[loss] = rows | gathered_under(site, samples, faults)
    return found


def gathered_under(site: Site, samples: Samples, faults: Faults) -> dict[str, Row]:
    """Raw gather and send-on-change, judged on the same cycles."""
    later = samples.part(slice(TRAIN - WARM, None))
    alive = site.mask & ((NEVER if faults.dies is None else faults.dies) > np.arange(later.cycles).reshape(-1, 1, 1))
    present = later.present & alive
    expected = rule.abnormal(later.readings_ccel, present)
    arrives = ~_lost(site, later.cycles, faults)
    moved = words(later.readings_ccel, present, site, THRESHOLD_CCEL, heartbeats=False)
    heard = moved.said & present & arrives
    view, known = _last_heard(moved, heard)
    ways = {
        RAW: (rule.abnormal(later.readings_ccel, present & arrives), present),
        CHANGED: (rule.abnormal(view, known), moved.said & alive),
    }
    return {
        name: {
            "bytes": READING_BYTES * float(sent[WARM:].sum(axis=(1, 2)).mean()),
            "agree": 100 * float((found == expected)[WARM:].mean()),
        }
        for name, (found, sent) in ways.items()
    }


def _lost(site: Site, cycles: int, faults: Faults) -> Bools:
    """Whose one frame of a cycle the gateway does not hear: bool [cycles, rows, cols]."""
    links, found = Links(site.mask.size, faults), []
    for cycle in range(cycles):
        links.start_cycle(cycle)
        found.append(links.lost(1)[:, CENTRE].reshape(site.mask.shape))
    return np.array(found)


def _last_heard(moved: Words, heard: Bools) -> tuple[NDArray[np.int16], Bools]:
    """The last reading of each node that arrived, and whether there is one; the dead keep theirs: nobody knows."""
    view, known = np.zeros_like(moved.view_ccel), np.zeros_like(heard)
    last, any_yet = np.zeros_like(moved.view_ccel[0]), np.zeros_like(heard[0])
    for cycle, (words_ccel, arrived) in enumerate(zip(moved.view_ccel, heard, strict=True)):
        last, any_yet = np.where(arrived, words_ccel, last), any_yet | arrived
        view[cycle], known[cycle] = last, any_yet
    return view, known
