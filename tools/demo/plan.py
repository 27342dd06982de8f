"""What a demo will do: its site and its readings, worked out before anything is started."""

import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.carried_reports import THRESHOLD_CCEL
from gateway.config import MODES
from gateway.model import SPEC_CHOICE, SPECS, ModelSpec
from gateway.site import Site, load_site, lounge, site_of_cells
from protocol.beacon import COPIES_MAX
from protocol.grid import node_name
from sim.field.lounge import simulate
from tools import readings as readings_file
from tools.mesh.mesh import NodeKind, node_kind
from tools.model_choice import Stage, room_of

# A day of half hours; with the slow broker a quarter of it.
CYCLES = 48
CYCLES_AMQTT = 12
CYCLES_MAX = 1_000_000
DAYS = 60
# Of mode change, degrees Celsius; two bytes of ccel in the beacon.
THRESHOLD_MAX = 655.35
READINGS_SITE = "readings"


class DemoError(ValueError):
    """The demo cannot do what was asked; one line with field, value and remedy."""


class Options(NamedTuple):
    """What was asked on the command line."""

    site: Path | None = None
    readings: Path | None = None
    spec: str = "seed"
    mode: str = "always"
    threshold: float | None = None
    copies: int = 0
    cycles: int | None = None
    train_cycles: int | None = None
    seed: int = 0
    broker: str = "auto"
    runtime: str = "auto"
    heap: str = "32K"
    out: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What will be run.

    Attributes:
        site: where nodes stand.
        spec: the network.
        kind: what nodes run on.
        readings_ccel: int16 [cycles there are, cells], by the site's order of cells.
        present: bool [cycles there are, cells].
        cycles_asked: how many were asked for, None for the default.
        options: as asked.
        threshold_ccel: further from the reading a node's last word never is; 0 but in mode change.
    """

    site: Site
    spec: ModelSpec
    kind: NodeKind
    readings_ccel: NDArray[np.int16]
    present: NDArray[np.bool_]
    cycles_asked: int | None
    options: Options
    threshold_ccel: int = 0

    def fields(self, cycles: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """The first cycles as the site stands: readings int16 and where there are any, bool, [cycles, rows, cols]."""
        rows, cols = np.transpose(self.site.cells)
        values, present = (np.zeros((cycles, *self.site.mask.shape), kind) for kind in (np.int16, np.bool_))
        values[:, rows, cols], present[:, rows, cols] = self.readings_ccel[:cycles], self.present[:cycles]
        return values, present

    def cycles(self, broker_name: str) -> tuple[int, str]:
        """How many cycles to run on a broker, and a line that says why, if that needs saying."""
        wanted = self.cycles_asked or (CYCLES_AMQTT if broker_name.startswith("amqtt") else CYCLES)
        there = len(self.readings_ccel)
        if there < wanted and self.cycles_asked:
            return there, f"{self.options.readings} holds {there} cycles, not {wanted}: running these"
        if there < wanted or self.cycles_asked or wanted == CYCLES:
            return min(there, wanted), ""
        return wanted, f"amqtt is right but slow: {wanted} cycles instead of {CYCLES}; install mosquitto for more"


def make_plan(options: Options, stage: Stage) -> Plan:
    """Check everything that can be checked before the start, and get the readings.

    Raises:
        DemoError, and the errors of the files and options that are named: one line each.
    """
    if options.spec not in SPECS:
        raise DemoError(f"--spec {options.spec}: is not {SPEC_CHOICE}")
    if options.mode not in MODES:
        raise DemoError(f"--mode {options.mode}: is not {', '.join(MODES)}")
    if options.mode == "event" and options.spec != "zone":
        raise DemoError(f"--mode event: spec {options.spec} has no zones to be silent in; write --spec zone")
    threshold_ccel = _threshold_ccel(options)
    _check_copies(options)
    kind = node_kind(options.runtime, options.heap)
    site = load_site(options.site) if options.site else None
    if options.readings:
        file = readings_file.read(options.readings)
        site = site or site_of_cells(READINGS_SITE, set(file.cells))
        values, present = _by_site(file, site, options)
    else:
        site = site or lounge()
        values = _simulated(site, options, stage)
        present = np.ones_like(values, np.bool_)
    return Plan(site, SPECS[options.spec], kind, values, present, options.cycles, options, threshold_ccel)


def _threshold_ccel(options: Options) -> int:
    """The threshold of mode change, rounded half up; 0 in other modes."""
    if options.threshold is None:
        return THRESHOLD_CCEL if options.mode == "change" else 0
    if options.mode != "change":
        raise DemoError(f"--threshold {options.threshold:g}: only mode change has one; write --mode change")
    if not 0 <= options.threshold <= THRESHOLD_MAX:
        raise DemoError(f"--threshold {options.threshold:g}: is not in 0..{THRESHOLD_MAX} degrees Celsius")
    return math.floor(100 * options.threshold + 0.5)


def _check_copies(options: Options) -> None:
    if not 0 <= options.copies <= COPIES_MAX:
        raise DemoError(f"--copies {options.copies}: is not in 0..{COPIES_MAX}")
    if options.copies and options.mode != "event":
        raise DemoError(f"--copies {options.copies}: only mode event has them; write --spec zone --mode event")


def only_ours(site: Site) -> Site:
    """The site under a name that nobody else on a shared broker has."""
    return replace(site, name=f"{site.name[:24]}-{secrets.token_hex(3)}")


def _by_site(file: readings_file.Readings, site: Site, options: Options) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """The file's columns in the site's order; a node without a column has no readings."""
    foreign = sorted(set(file.cells) - set(site.cells))
    if foreign:
        name = node_name(*foreign[0])
        raise DemoError(f"{options.readings}: column {name} is no node of {options.site}; drop it or add the node")
    values = np.zeros((len(file.ccel), len(site.cells)), np.int16)
    present = np.zeros(values.shape, np.bool_)
    places = {cell: place for place, cell in enumerate(site.cells)}
    columns = [places[cell] for cell in file.cells]
    values[:, columns], present[:, columns] = file.ccel, file.present
    return values, present


def _simulated(site: Site, options: Options, stage: Stage) -> NDArray[np.int16]:
    """Days of a simulated room from midnight on; the seed makes the room and picks the day."""
    cycles = options.cycles or CYCLES
    first = CYCLES * int(np.random.default_rng(options.seed).integers(DAYS))
    fields = simulate(room_of(site, options.seed), first + cycles, stage("simulating the room"))[first:]
    rows, cols = np.array(site.cells).T
    return fields[:, rows, cols]
