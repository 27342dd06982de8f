"""Messages that nobody means: honest ones with bytes changed, cut or made longer, and random bytes, on every topic."""

import fnmatch
import json
import random

import numpy as np
from mesh_in_memory import RUN
from node_bench import quiet_mesh

from firmware import start
from firmware.stages import TO_BLOCK, TO_GATEWAY, TO_HALO
from gateway.site import sender_of
from protocol import beacon, frame, topic
from protocol.filter_set import CONFIRMED
from protocol.grid import node_name
from protocol.health import COUNTERS

SIZE_MAX = 600
LEAVES = ("state", "about", "health")
# How often each kind is the beginning of a message. A beacon reaches every node, and a believed one starts a cycle.
WEIGHTS = {"random": 20, "beacon": 1, "reading": 8, "no_reading": 2, "activations": 8, "member": 6, "report": 12}
WEIGHTS |= {"filters": 2, "value": 2, "refresh": 1} | dict.fromkeys(LEAVES, 4)


class Noise:
    """A seeded source of (topic, payload).

    No message that is whole takes a node from the gateway: whoever may say `lost` in a node's name is believed.

    Attributes:
        cycle: what most of the frames claim to be of, or up to three cycles later.
    """

    def __init__(self, seed, site):
        self.cycle = 0
        self._random = random.Random(seed)
        self._honest = honest_messages(site)
        self._topics = all_topics(site)

    def message(self):
        dice = self._random
        (kind,) = dice.choices(list(WEIGHTS), WEIGHTS.values())
        if kind == "random":
            return dice.choice(self._topics), self._random_bytes()
        name, payload = dice.choice(self._honest[kind])
        if dice.random() < 0.2:
            name = dice.choice(self._topics)
        return name, bytes(self._changed(self._dated(kind, bytearray(payload))))

    def _random_bytes(self):
        dice = self._random
        noise = bytearray(dice.randbytes(dice.randint(0, dice.choice((40, SIZE_MAX)))))
        if noise and dice.random() < 0.5:
            noise[0] = frame.WIRE_VERSION << 4 | dice.randint(0, len(frame.KINDS))
        return bytes(noise)

    def _dated(self, kind, payload):
        cycle = self.cycle + self._random.randint(0, 3)
        if kind == "beacon":
            payload[6:10] = (cycle & 0xFFFFFFFF).to_bytes(4, "little")
        elif kind in frame.KINDS and kind not in LEAVES:  # a topic and a kind are both called state
            payload[4:6] = (cycle & 0xFFFF).to_bytes(2, "little")
        return payload

    def _changed(self, payload):
        dice = self._random
        for _ in range(dice.choice((0, 1, 1, 2, 5))):
            payload[dice.randrange(len(payload))] = dice.randrange(256)
        end = dice.random()
        if end < 0.1:
            return payload[: dice.randrange(len(payload) + 1)]
        return payload + dice.randbytes(dice.randint(1, 20)) if end > 0.9 else payload


class ModeNoise(Noise):
    """The same in a mesh of mode change or event: every other message begins as a frame that only they have."""

    def __init__(self, seed, site):
        super().__init__(seed, site)
        self._site = site

    def message(self):
        dice = self._random
        if dice.random() < 0.5:
            return super().message()
        kind = dice.choice((frame.VALUE, frame.STATE, frame.REFRESH, frame.PROOF, frame.CHALLENGE))
        cell, near = dice.choice(self._site.cells), self.cycle + dice.randint(-2, 3)
        payload = self._changed(bytearray(mode_frame(kind, cell, near, dice)))
        leaf = "up" if kind in (frame.STATE, frame.PROOF) else "halo"
        return topic.of_node(self._site.name, *cell, leaf), bytes(payload)


def mode_frame(kind, cell, cycle, dice):
    """A whole frame of a kind that mode always does not have."""
    head, reading_ccel = frame.header(kind, *cell, RUN, cycle, 1), dice.randint(-32_768, 32_767)
    if kind == frame.VALUE:
        return frame.value(head, reading_ccel)
    if kind == frame.CHALLENGE:
        return frame.challenge(head, dice.randint(0, 15), dice.randint(0, 15), [reading_ccel] * 4)
    if kind == frame.PROOF:
        return frame.proof(head, dice.randint(0, 3), reading_ccel)
    return head + bytes((dice.randint(0, 3),)) if kind == frame.STATE else head


def honest_messages(site):
    """By kind the (topic, payload) of three cycles of a mesh, and what a node says of itself."""
    mesh = quiet_mesh(site, readings={site.cells[-1]: [None] * 60})
    honest = {kind: [] for kind in WEIGHTS if kind != "random"}
    for _ in range(3):
        mesh.run_cycle()
    for cell, destination, data in mesh.sent:
        honest[frame.KINDS[data[0] & 15]].append((topic_of(site, cell, destination), data))
    for cell in site.cells:
        data = frame.filters(frame.header(frame.FILTERS, *cell, RUN, 0, 1), 1, CONFIRMED, 0)
        for kind in ("value", "refresh"):  # of mode event: late, in a mesh in mode always
            frame_of = frame.header(frame.KINDS.index(kind), *cell, RUN, 0, 2_200)
            honest[kind].append((topic_of(site, cell, TO_HALO), frame_of))
        honest["filters"] += [(topic_of(site, cell, where), data) for where in (TO_HALO, TO_GATEWAY)]
    beacons = mesh.gateway.start_cycle(0), mesh.gateway.ask_health()
    honest["beacon"] = [(topic.cycle(site.name), data) for data in beacons]
    said = {"state": b"ready", "about": json.dumps(start.about(7, 1)).encode(), "health": bytes(4 * COUNTERS)}
    for cell in site.cells:
        for leaf in LEAVES:
            honest[leaf].append((topic.of_node(site.name, *cell, leaf), said[leaf]))
    return honest


def topic_of(site, cell, destination):
    if destination == TO_BLOCK:
        return topic.of_member(site.name, *cell)
    return topic.of_node(site.name, *cell, {TO_HALO: "halo", TO_GATEWAY: "up"}[destination])


def may_say(site, data, name):
    """Whether whose topic it is may say this."""
    if data[0] & 15 == frame.BEACON:
        return name == topic.cycle(site.name)
    return node_name(*sender_of(data)) in name


def all_topics(site):
    """Every topic that a node or the gateway hears."""
    names = {topic.cycle(site.name)}
    for cell in site.cells:
        names |= {topic.of_member(site.name, *cell)}
        names |= {topic.of_node(site.name, *cell, leaf) for leaf in ("halo", "up", *LEAVES)}
    return sorted(names)


def hearers(site):
    """By topic the cells of the nodes that hear it."""
    found = {name: [] for name in all_topics(site)}
    for cell in site.cells:
        for heard in start.heard_topics(site.name, *cell, int(site.neighbour_masks[cell])):
            for name in fnmatch.filter(found, heard.replace("+", "*")):
                found[name].append(cell)
    return found


def verdict(site, cell, data, name=None):
    """What a node has to count a frame as whatever it is doing: "malformed", "stranger", "own" or None: it depends.

    With the topic it came on, not everybody may have said it there.
    """
    if name is not None and len(data) >= frame.HEADER_SIZE and not may_say(site, data, name):
        return "stranger"
    kind = frame.kind_of(data)
    if kind in (0, frame.REPORT):
        return "malformed"
    if kind == frame.BEACON:
        return "malformed" if beacon.unpack(data) is None else None
    sender = sender_of(data)
    if sender == cell:
        return "own"
    away = np.abs(np.subtract(sender, cell)).max()
    return None if away == 1 and sender in site.cells else "stranger"
