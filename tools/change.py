"""What mode change is worth in simulated rooms: `python -m tools.change [first last]`, rooms 0 to 9 without numbers.

Each room is split as it happened (R0-14): models learn from its first 2,400 cycles and are judged on the 561 behind
them. Seed and lean begin with the committed start weights and learn the room as a gateway does (gateway/acceptance.py);
zone's filters are fitted to the room; the rule is filters that are set by hand to compute it, and learns nothing. Then,
for each threshold, the same models learn from the views of mode change under the labels of the readings. Printed are:

    on readings, views, tuned  cycles decided right, %: the model that learned readings, on readings and on views; and
                               on views what it became by learning from views (the same where that was refused)
    taken                      share of rooms in which that was accepted
    frames by kind, bytes      a cycle, all nodes together, on the air, with heartbeats
    quiet                      bytes without heartbeats
    hottest                    frames a cycle of the node that sends most

No loss, no control traffic: beacons and health messages are those of mode always. Half a minute a room on one core,
seven minutes for ten on a busy one.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from gateway.acceptance import accuracy, train
from gateway.model import SPECS, Model
from gateway.samples import Samples
from gateway.site import Site, lounge
from gateway.start_weights import load_start, sign_head, start_filters
from sim.change import Traffic, Words, always, traffic, words
from tools.zones import SEED, TRAIN, fitted_room

THRESHOLDS_CCEL = (12, 25, 50)
RULE = "rule"
MODELS = ("seed", "lean", "zone", RULE)
_KINDS = ("reading", "activations", "member", "report")
_HEADER = "readings  views  tuned  taken reading activat.  member  report   bytes   quiet  hottest"


class Row(NamedTuple):
    """One model in one mode in one room, over the cycles that it is judged on.

    Attributes:
        name: the model, and the threshold or "always".
        on_readings, on_views, tuned: shares of cycles decided right, 0..1; in mode always three times the same.
        taken: whether what was learned from views decides.
        frames: a cycle, by kind.
        bytes_on_air, quiet: bytes a cycle, with and without heartbeats; in mode always twice the same.
        hottest: frames a cycle of the node that sends most.
    """

    name: str
    on_readings: float
    on_views: float
    tuned: float
    taken: bool
    frames: dict[str, float]
    bytes_on_air: float
    quiet: float
    hottest: float


def main(first: int = 0, last: int = 9) -> None:
    """Fit, simulate and print lines for each room, then the means."""
    site, found = lounge(), []
    steps = (last - first + 1) * len(MODELS) * (1 + len(THRESHOLDS_CCEL))
    print(f"room  {'':12} {_HEADER}")
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("rooms in mode change", total=steps)
        for room in range(first, last + 1):
            found.append(rows(site, room, lambda: bars.advance(task)))
            for row in found[-1]:
                print(_line(f"{room:4}", [row]), flush=True)
    for same in zip(*found, strict=True):
        print(_line("mean", list(same)))


def rows(site: Site, room: int, advance: Callable[[], None]) -> list[Row]:
    """Every model in mode always and in mode change with each threshold; `advance` is told after each."""
    models, samples = room_models(site, room)
    found = []
    for name in MODELS:
        found.append(in_mode_always(name, models[name], site, samples))
        advance()
        for threshold in THRESHOLDS_CCEL:
            found.append(in_mode_change(name, models[name], site, samples, threshold))
            advance()
    return found


def room_models(site: Site, room: int) -> tuple[dict[str, Model], Samples]:
    """What decides in a simulated room after it learned from the first TRAIN cycles' readings, and all its cycles."""
    filters, samples = fitted_room(site, room)
    head = sign_head(SPECS["zone"], site)
    models = {"zone": Model("zone", filters, head), RULE: Model("zone", start_filters(SPECS["zone"]), head)}
    for name in ("seed", "lean"):
        start = load_start(name, site)
        if start is None:
            raise FileNotFoundError(f"weights: there are none of {name} for this site; run python -m tools.fit_start")
        models[name], _ = learned(start, site, samples)
    return models, samples


def in_mode_always(name: str, model: Model, site: Site, samples: Samples) -> Row:
    """A model of `room_models` when everything is said in each cycle."""
    right = accuracy(model, site, samples.part(slice(TRAIN, None)))
    sent = later_traffic(model, always(samples.readings_ccel, samples.present, site), site)
    size = _mean_bytes(sent)
    return Row(f"{name} always", right, right, right, False, _mean_frames(sent), size, size, _hottest(sent))


def in_mode_change(name: str, model: Model, site: Site, samples: Samples, threshold_ccel: int) -> Row:
    """A model of `room_models` in mode change, before and after it learned from the first TRAIN cycles' views."""
    later = slice(TRAIN, None)
    heard = words(samples.readings_ccel, samples.present, site, threshold_ccel)
    stale = Samples(heard.view_ccel, heard.present, samples.abnormal)
    tuned, taken = (model, False) if name == RULE else learned(model, site, stale)
    sent = later_traffic(tuned, heard, site)
    rested = words(samples.readings_ccel, samples.present, site, threshold_ccel, heartbeats=False)
    return Row(
        f"{name} {threshold_ccel}",
        accuracy(model, site, samples.part(later)),
        accuracy(model, site, stale.part(later)),
        accuracy(tuned, site, stale.part(later)),
        taken,
        _mean_frames(sent),
        _mean_bytes(sent),
        _mean_bytes(later_traffic(tuned, rested, site)),
        _hottest(sent),
    )


def learned(model: Model, site: Site, samples: Samples) -> tuple[Model, bool]:
    """What a gateway would go on with after learning from the first TRAIN cycles, and whether that is another model."""
    trained = train(model, site, samples.part(slice(TRAIN)), model.filters.version + 1, SEED)
    return (trained.model if trained.accepted else model), trained.accepted


def later_traffic(model: Model, heard: Words, site: Site) -> Traffic:
    """What is sent from the cycle before those that are judged on; in that one everything is."""
    return traffic(model.filters, heard.part(slice(TRAIN - 1, None)), site)


def _mean_frames(sent: Traffic) -> dict[str, float]:
    return {kind: float(counts[1:].mean()) for kind, counts in sent.frames().items()}


def _mean_bytes(sent: Traffic) -> float:
    return float(sent.bytes_on_air()[1:].mean())


def _hottest(sent: Traffic) -> float:
    return float(sent.frames_by_node()[1:].mean(axis=0).max())


def _line(room: str, same: list[Row]) -> str:
    """The means of rows of one model in one mode."""
    shares = np.mean([(row.on_readings, row.on_views, row.tuned) for row in same], axis=0)
    right = " ".join(f"{100 * share:6.2f}" for share in shares)
    counts = " ".join(f"{np.mean([row.frames.get(kind, 0) for row in same]):7.1f}" for kind in _KINDS)
    taken, *sizes = np.mean([(row.taken, row.bytes_on_air, row.quiet, row.hottest) for row in same], axis=0)
    costs = "{:7.0f} {:7.0f} {:8.2f}".format(*sizes)
    return f"{room}  {same[0].name:12}   {right} {taken:6.1f} {counts} {costs}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
