"""Frames, beacon, report and health against golden bytes, both ways, and everything else refused."""

import json
import random

import numpy as np
import pytest
from on_micropython import run
from packing import BEACON_FIELDS, counted, gathered, pack

from firmware.pool import Block
from protocol import beacon, frame, health
from protocol.filter_set import PHASES
from protocol.report import Report
from tools.rig import interpreter
from tools.rig.make_vectors import FOLDER

GOLDEN = json.loads((FOLDER / "frames.json").read_text(encoding="utf-8"))
VERSIONED = ("reading", "no_reading", "activations", "member", "filters", "report", "state", "refresh", "proof")
NODE_KINDS = (*VERSIONED, "value", "challenge")
RANDOM_FRAMES = 20_000
RANDOM_SIZE_MAX = 600

PACK_ALL = f"""
import json, sys
sys.path.append({str(interpreter.SOURCES / "tests")!r})
from packing import pack
with open({str(FOLDER / "frames.json")!r}) as file:
    print(*[pack(golden["fields"]).hex() for golden in json.load(file)])
"""


def golden(*kinds):
    """A parametrisation over the golden frames of some kinds: fields, data."""
    chosen = [(entry["says"], entry["fields"], entry["hex"]) for entry in GOLDEN if entry["fields"]["kind"] in kinds]
    params = [pytest.param(fields, bytes.fromhex(data), id=says) for says, fields, data in chosen]
    assert params
    return pytest.mark.parametrize(("fields", "data"), params)


def is_refused(data):
    """Whether neither a node nor a gateway takes it for anything."""
    kind = frame.kind_of(data)
    if kind == frame.REPORT:
        try:
            Report(data)
        except ValueError:
            return True
        return False
    return kind == 0 or (kind == frame.BEACON and beacon.unpack(data) is None)


@golden("beacon", "health", *NODE_KINDS)
def test_packing_gives_the_golden_bytes(fields, data):
    assert data == pack(fields)


def test_packing_gives_the_golden_bytes_on_micropython():
    assert [entry["hex"] for entry in GOLDEN] == run(PACK_ALL).split()


@golden(*NODE_KINDS)
def test_every_header_is_read_as_packed(fields, data):
    assert frame.KINDS[frame.kind_of(data)] == fields["kind"]
    assert (fields["row"], fields["col"]) == (frame.row_of(data), frame.col_of(data))
    assert fields["run"] & 0xFF == frame.run_of(data)


@golden(*VERSIONED)
def test_every_header_but_a_values_tells_the_version(fields, data):
    assert fields["version"] & 0xFFFF == frame.version_of(data)


@golden("value")
def test_a_value_is_read_as_packed(fields, data):
    assert fields["reading_ccel"] == frame.i16(data, frame.VALUE_READING)


@golden("state", "proof")
def test_a_state_is_read_as_packed(fields, data):
    assert fields["state"] == data[frame.HEADER_SIZE]
    assert fields.get("reading_ccel") == (frame.i16(data, frame.HEADER_SIZE + 1) if fields["kind"] == "proof" else None)


@golden("challenge")
def test_a_challenge_is_read_as_packed(fields, data):
    members, words_ccel = data[frame.CHALLENGE_MEMBERS], fields["words_ccel"]
    assert fields["place"] == members >> 4
    for place, word_ccel in enumerate(words_ccel):
        assert (word_ccel is not None) == bool(members >> place & 1)
        assert (word_ccel or 0) == frame.i16(data, frame.CHALLENGE_READINGS + 2 * place)


@golden(*NODE_KINDS)
@pytest.mark.parametrize("away", [-32767, -1, 0, 1, 32768])
def test_the_whole_cycle_is_found_from_half_a_cycle_count_around(fields, data, away):
    assert fields["cycle"] == frame.cycle_of(data, fields["cycle"] + away)


@golden("reading")
def test_a_reading_is_read_as_packed(fields, data):
    assert fields["reading_ccel"] == frame.i16(data, frame.HEADER_SIZE)


@golden("activations")
def test_activations_are_read_as_packed(fields, data):
    assert bytes([fields["exchange"], *fields["activations"]]) == data[frame.HEADER_SIZE :]


@golden("member")
def test_a_member_is_pooled_as_packed(fields, data):
    block = Block(len(fields["activations"]), len(fields["absence"]))
    assert block.put_frame(2, data)
    assert fields["activations"] == list(block.maximum)
    assert fields["absence"] == list(block.absence)[2 * block.exchanges : 3 * block.exchanges]
    assert (fields["reading_ccel"] is not None) == block.with_readings
    assert (fields["reading_ccel"] or 0) == block.readings[2]
    assert fields["activations"] == list(data[frame.member_activations(data) :])


@golden("filters")
def test_a_filters_frame_is_read_as_packed(fields, data):
    assert fields["highest"] == frame.highest_of(data)
    assert fields["phase"] == PHASES[frame.phase_of(data)]
    assert fields["refused"] % 256 == frame.refused_of(data)


@golden("beacon")
def test_a_beacon_is_read_as_packed(fields, data):
    assert frame.kind_of(data) == frame.BEACON
    assert len(data) <= beacon.BEACON_MAX
    assert {name: fields[name] for name in BEACON_FIELDS} == beacon.unpack(data)._asdict()
    acknowledged = [[row, col] for row in range(20) for col in range(20) if beacon.acknowledged(data, row, col)]
    assert sorted(fields["acknowledged"]) == acknowledged


@golden("report")
def test_a_report_is_read_as_packed(fields, data):
    parsed, block = Report(data), gathered(fields)
    members = [member if isinstance(member, dict) else None for member in fields["members"]]
    assert (fields["boot"], fields["seq"], fields["exchanges"]) == (parsed.boot, parsed.seq, parsed.exchanges)
    assert sum(1 << corner for corner in range(4) if members[corner]) == parsed.pooled
    assert [corner for corner in range(4) if fields["members"][corner] == "no_reading"] == [
        corner for corner in range(4) if parsed.no_reading >> corner & 1
    ]
    assert [tuple(member["absence"]) if member else (0,) * parsed.exchanges for member in members] == parsed.absence
    known = [member["reading_ccel"] if member and block.with_readings else None for member in members]
    assert known == parsed.readings
    columns = zip(*(member["activations"] for member in members if member), strict=True)
    assert [max(column) for column in columns] == list(parsed.features)


@golden("health")
def test_a_health_message_is_read_as_counted(fields, data):
    counters = np.frombuffer(data, "<u4")
    assert len(counters) == health.COUNTERS
    assert fields["sent"] + fields["sent_bytes"] == counters[: health.TAKEN].tolist()
    assert fields["mqtt"] == counters[health.MQTT_PACKETS_IN : health.MALFORMED].tolist()
    assert [fields["faults"].get(name, 0) for name in health.FAULTS] == counters[health.MALFORMED :].tolist()


@golden("health")
def test_counters_wrap_at_2_to_the_30(fields, data):
    trace = counted(fields)
    before = int(trace.counters[health.SENT])
    trace.add(health.SENT, health.WRAP_MASK)
    assert (before - 1) % 2**30 == trace.counters[health.SENT]


def test_the_longest_frames_fit_their_limits():
    sizes = {kind: [] for kind in ("beacon", "health", *NODE_KINDS)}
    for entry in GOLDEN:
        sizes[entry["fields"]["kind"]].append(len(entry["hex"]) // 2)
    assert max(max(sizes[kind]) for kind in NODE_KINDS) <= frame.NODE_FRAME_MAX
    assert {health.COUNTERS * 4} == set(sizes["health"])
    assert beacon.SIZE + beacon.BITMAP_MAX + 2 == beacon.BEACON_MAX


# Refusals


@golden("reading", "no_reading", "filters", "beacon", "value", "state", "refresh", "proof", "challenge")
def test_a_frame_of_fixed_length_is_refused_at_every_other_length(fields, data):
    for size in range(beacon.BEACON_MAX + 2):
        assert (size != len(data)) == is_refused((data + bytes(600))[:size]), size


@golden("activations", "member", "report")
def test_a_frame_without_activations_or_with_seventeen_is_refused(fields, data):
    channels = len(fields["activations"]) if "activations" in fields else len(Report(data).features)
    start = len(data) - channels
    for size in range(start + 1 + frame.CHANNELS_MAX + 3):
        has_channels = 0 < size - start <= frame.CHANNELS_MAX
        fits = has_channels if channels else size == start
        assert fits != is_refused((data + bytes(20))[:size]), size


@golden("report")
def test_a_report_longer_than_a_node_may_send_is_refused(fields, data):
    assert frame.kind_of(data + bytes(frame.NODE_FRAME_MAX + 1 - len(data))) == 0


@golden("beacon", *NODE_KINDS)
def test_every_other_wire_version_is_refused(fields, data):
    for version in {*range(16)} - {frame.WIRE_VERSION}:
        assert is_refused(bytes([version << 4 | data[0] & 0x0F]) + data[1:])


@golden("beacon", *NODE_KINDS)
def test_unknown_kinds_are_refused(fields, data):
    for kind in (0, *range(len(frame.KINDS), 16)):
        assert frame.kind_of(bytes([data[0] & 0xF0 | kind]) + data[1:]) == 0


@golden("report")
def test_a_report_that_contradicts_itself_is_refused(fields, data):
    pooled = data[16] & 15
    if pooled:
        assert is_refused(data[:16] + bytes([pooled << 4 | pooled]) + data[17:])
    if pooled != 15:
        stranger = ~pooled & 15 & -(~pooled & 15)
        absent = bytes([stranger]) + bytes(fields["exchanges"])
        assert is_refused(data[:17] + bytes([data[17] & 0xF0]) + absent + data[-Report(data).exchanges :])


@pytest.mark.parametrize("too_many", [False, True])
def test_a_beacon_for_more_blocks_than_a_bitmap_holds_is_refused(too_many):
    rows = beacon.BITMAP_MAX // 4 + too_many
    shape = beacon.Beacon(0, 1, 1, 1, 1, 1, 1, 0, rows, 32, 0)
    assert too_many == (beacon.unpack(beacon.pack(shape, bytes(4 * rows))) is None)


def random_frames(seed):
    """Noise of every length, noise behind a good first byte, and golden frames with a byte changed or cut."""
    rng = random.Random(seed)
    samples = [bytes.fromhex(entry["hex"]) for entry in GOLDEN]
    for _ in range(RANDOM_FRAMES):
        noise = bytearray(rng.randbytes(rng.randint(0, RANDOM_SIZE_MAX)))
        if noise:
            noise[0] = rng.choice((noise[0], frame.WIRE_VERSION << 4 | rng.randint(0, len(frame.KINDS))))
        yield bytes(noise)
        yield bytes(noise[: rng.randint(0, 40)])
        changed = bytearray(rng.choice(samples))
        changed[rng.randrange(min(len(changed), 30))] = rng.randrange(256)
        yield bytes(changed[: rng.randint(1, len(changed))])


def test_whatever_arrives_is_taken_or_refused_and_nothing_else_is_raised(seed):
    taken = dict.fromkeys(range(len(frame.KINDS)), 0)
    for data in random_frames(seed):
        kind = frame.kind_of(data)
        found = beacon.unpack(data)
        if found:
            assert not beacon.acknowledged(data, found.block_rows, 0)
            beacon.acknowledged(data, max(found.block_rows - 1, 0), max(found.block_cols - 1, 0))
        try:
            Report(data)
        except ValueError:
            taken[kind] -= kind == frame.REPORT
        if kind == frame.MEMBER:
            Block(5, 2).put_frame(0, data)
        if kind > frame.BEACON:
            frame.cycle_of(data, 0)
        taken[kind] += 1
    assert all(taken.values()), taken  # every kind was met
