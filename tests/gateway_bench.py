"""A gateway without I/O for tests: a site of two blocks, and the reports of its owners."""

import itertools

from mesh_in_memory import RUN, TIMING, make_model, make_site

from gateway.gateway import Gateway
from protocol import beacon, frame, grid, report, topic

# Blocks: (0, 0) of four, (0, 1) of two.
SITE = make_site(2, 3)
VERSION = 1
NUMBERS = itertools.count(1)


class Gathered:
    """What an owner gathered, as protocol.report.pack wants it; everybody had to do without one cell."""

    exchanges, readings, with_readings = 1, (2200,) * 4, True

    def __init__(self, owner, pooled, without):
        self.pooled, self.no_reading = pooled, 0
        top, left = owner[0] // 2 * 2, owner[1] // 2 * 2
        slots = [grid.slot_of(top + corner // 2, left + corner % 2, *without) for corner in range(4)] if without else []
        self.absence = bytes(1 << slot if slot >= 0 else 0 for slot in slots) or bytes(4)


def gateway():
    return Gateway(SITE, make_model("lean", SITE), TIMING, RUN)


def name_of(cell, leaf="up"):
    return topic.of_node(SITE.name, *cell, leaf)


def report_of(owner, cycle, pooled, without=None, header=(RUN, VERSION), seq=None):
    """Each has a number of its own, unless it is given."""
    head = frame.header(frame.REPORT, *owner, header[0], cycle, header[1])
    return report.pack(head, 1, seq or next(NUMBERS), Gathered(owner, pooled, without), b"\x10")


def say(site, owner, cycle, pooled, **options):
    site.on_message(name_of(owner), report_of(owner, cycle, pooled, **options))


def all_report(site, cycle, without=None):
    say(site, (0, 0), cycle, 0b0111 if without == (1, 1) else 0b1111, without=without)
    say(site, (0, 2), cycle, 0b0101, without=without)


def beacon_fields(data):
    fields = beacon.unpack(data)
    assert fields is not None
    return fields
