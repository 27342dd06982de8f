"""All that the report says of one room, as JSON: every scheme, every loss, a small site, and faster changes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.carried_reports import THRESHOLD_CCEL
from gateway.model import Filters
from gateway.samples import Samples
from gateway.site import Site, lounge, site_of_cells
from tools.change import MODELS, RULE, room_models
from tools.report.lossless import (
    gathering,
    in_mode_always,
    in_mode_change,
    in_mode_event,
    lean_in_mode_event,
)
from tools.report.lossy import REPORTED, under_loss
from tools.report.scheme import Scheme
from tools.zones import TRAIN, fitted_room
from tools.zones_loss import LOSSES

SMALL_SIDES = (2, 3, 5)
# Every so many cycles is one: readings that move more from one to the next. SHUFFLED: they have nothing to do with it.
STEPS = (1, 2, 4, 8, 16)
SHUFFLED = "shuffled"
EVENT, BY_HAND, CHANGED, RAW = "zone event", f"{RULE} event", f"send_on_change {THRESHOLD_CCEL}", "raw_gather"

# Told after each stage.
Advance = Callable[[], None]


def stages(thresholds_ccel: tuple[int, ...]) -> int:
    """How often `simulated` tells how far it is."""
    return 4 + len(thresholds_ccel) * len(MODELS) + len(LOSSES) * len(REPORTED)


def simulated(room: int, thresholds_ccel: tuple[int, ...], advance: Advance) -> dict[str, Any]:
    """One room of the lounge.

    Args:
        room: its number.
        thresholds_ccel: of mode change and of send-on-change, THRESHOLD_CCEL among them.
        advance: told after each stage.

    Returns:
        schemes: fields of Scheme, by name; losses: as of `under_loss`; small: the same of square sites with so many
        nodes a side, each a room of its own; steps: bytes a cycle on the air of EVENT, CHANGED and RAW, heartbeats
        among them, without control traffic, where only every so many cycles count, or all in any order.
    """
    site = lounge()
    models, samples = room_models(site, room)
    filters = models["zone"].filters
    advance()
    schemes = dict(gathering(site, samples, thresholds_ccel))
    schemes |= dict(in_mode_always(site, models, samples))
    advance()
    for threshold in thresholds_ccel:
        schemes |= dict(in_mode_change(site, models, samples, threshold, advance))
    schemes |= {
        EVENT: in_mode_event(site, filters, samples),
        BY_HAND: in_mode_event(site, models[RULE].filters, samples),
    }
    schemes |= dict(lean_in_mode_event(site, samples))
    advance()
    small = {str(side): _as_json(_small(side, room)) for side in SMALL_SIDES}
    faster = {str(step): _every(samples, step) for step in STEPS} | {SHUFFLED: _shuffled(samples, room)}
    steps = {name: _owns(_compared(site, part, filters)) for name, part in faster.items()}
    advance()
    losses = under_loss(site, filters, samples, room, advance)
    return {"schemes": _as_json(schemes), "losses": losses, "small": small, "steps": steps}


def _small(side: int, room: int) -> dict[str, Scheme]:
    """What is compared, on a small site in the same kind of room."""
    site = site_of_cells("small", set(np.ndindex(side, side)))
    filters, samples = fitted_room(site, room)
    return _compared(site, samples, filters)


def _compared(site: Site, samples: Samples, filters: Filters) -> dict[str, Scheme]:
    event = in_mode_event(site, filters, samples)
    return {EVENT: event} | dict(gathering(site, samples, (THRESHOLD_CCEL,)))


def _owns(schemes: dict[str, Scheme]) -> dict[str, float]:
    return {name: schemes[name].star for name in (EVENT, CHANGED, RAW)}


def _every(samples: Samples, step: int) -> Samples:
    """The cycles up to those that are judged, and of these every so many."""
    places = np.arange(samples.cycles)
    return samples.part((places < TRAIN) | ((places - TRAIN + 1) % step == 0))


def _shuffled(samples: Samples, seed: int) -> Samples:
    """The same, those that are judged in any order."""
    places = np.arange(samples.cycles)
    np.random.default_rng(seed).shuffle(places[TRAIN:])
    return samples.part(places)


def _as_json(schemes: dict[str, Scheme]) -> dict[str, Any]:
    return {name: scheme._asdict() for name, scheme in schemes.items()}
