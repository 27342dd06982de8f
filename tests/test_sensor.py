"""What a thermometer says and is no measurement is no reading, and is counted by its reason."""

import json
import math

import pytest
from node_bench import CENTRE, Bench, beacon_of, no_reading_of, reading_of
from on_micropython import run
from one_wire import MEASURED_85_BYTE, POWER_ON, POWER_ON_BYTE, POWER_ON_RAW, SEEN, OneWire, scratchpad

from firmware.reading import open_sensor
from firmware.sensor_ds18b20 import STUCK_CYCLES, Ds18b20, crc8
from firmware.sensor_offset import Offset
from firmware.stages import TO_HALO
from protocol.health import SENSOR_CRC, SENSOR_POWER_ON, SENSOR_RANGE, SENSOR_STUCK
from tools.flash.bundle import exported, module

RAW = 401  # 25.0625 degrees
ROOM = 22 * 16


def thermometer(bus):
    return Ds18b20({"kind": "ds18b20", "pin": 4}, bus, bus.sleep_ms)


def readings(bus, cycles):
    """What a thermometer gives in so many cycles: ccel, or the place of the counter that says why not."""
    sensor, found = thermometer(bus), []
    for cycle in range(cycles):
        try:
            found.append(sensor.read(cycle))
        except ValueError as error:
            found.append(error.args)
    return found


@pytest.mark.parametrize(("seen", "celsius"), SEEN.items())
def test_what_real_sensors_said_is_read_as_the_kernel_read_it(seen, celsius):
    assert [math.floor(100 * celsius + 0.5)] == readings(OneWire(bytes.fromhex(seen)), 1)


@pytest.mark.parametrize(("raw", "ccel"), [(401, 2506), (-8, -50), (-1, -6), (1, 6), (2000, 12500), (-880, -5500)])
def test_sixteenths_of_a_degree_round_half_up(raw, ccel):
    assert math.floor(raw * 100 / 16 + 0.5) == ccel
    assert [ccel] == readings(OneWire(raw), 1)


def test_each_cycle_is_measured_anew():
    bus = OneWire(320, 336, 352)
    assert [2000, 2100, 2200] == readings(bus, 3)
    assert 3 == bus.conversions


def test_every_single_wrong_bit_is_a_crc_error():
    right = scratchpad(RAW)
    assert 0 == crc8(right)
    for bit in range(8 * len(right)):
        wrong = int.from_bytes(right, "little") ^ 1 << bit
        assert [(SENSOR_CRC,)] == readings(OneWire(wrong.to_bytes(len(right), "little")), 1)


@pytest.mark.parametrize("level", [b"\0", b"\xff"])
def test_a_wire_that_is_held_high_or_low_is_a_crc_error(level):
    assert [(SENSOR_CRC,)] == readings(OneWire(level * 9), 1)


def test_85_degrees_from_power_on_are_no_reading():
    assert [(SENSOR_POWER_ON,)] == readings(OneWire(POWER_ON), 1)
    assert [2200, (SENSOR_POWER_ON,), 2200] == readings(OneWire(ROOM, POWER_ON, ROOM), 3)


def test_power_that_fails_while_the_sensor_measures_is_told():
    bus = OneWire(ROOM)
    bus.loses_power = True
    assert [(SENSOR_POWER_ON,)] == readings(bus, 1)


def test_85_degrees_that_were_measured_are_a_reading():
    assert [2200, 8500] == readings(OneWire(ROOM, scratchpad(POWER_ON_RAW, MEASURED_85_BYTE)), 2)


def test_85_degrees_of_a_clone_are_a_reading_where_those_before_lead_there():
    clone = [scratchpad(raw, POWER_ON_BYTE) for raw in (POWER_ON_RAW - 5 * 16 - 1, POWER_ON_RAW - 5 * 16, POWER_ON_RAW)]
    assert [7994, (SENSOR_POWER_ON,)] == readings(OneWire(clone[0], clone[2]), 2)
    assert [8000, 8500, 8500] == readings(OneWire(clone[1], clone[2]), 3)


@pytest.mark.parametrize("raw", [2001, -881, 0x07FF, -32768, 32767])
def test_what_the_sensor_cannot_measure_is_out_of_range(raw):
    assert [(SENSOR_RANGE,)] == readings(OneWire(raw), 1)


def test_a_value_that_stays_the_very_same_is_stuck_until_it_moves():
    bus = OneWire(*[ROOM] * (STUCK_CYCLES + 1), ROOM + 1)
    assert [2200] * 95 + [(SENSOR_STUCK,)] * 2 + [2206] == readings(bus, 98)


def test_other_faults_in_between_do_not_hide_a_stuck_value():
    bus = OneWire(*[ROOM] * 50, POWER_ON, bytes(9), *[ROOM] * 46)
    assert (SENSOR_STUCK,) == readings(bus, 98)[-1]


def test_a_live_sensor_is_taken_for_a_stuck_one_less_than_once_in_a_billion():
    half_a_step, noise = 1 / 32, 0.05 / 2
    stays = math.erf(half_a_step / noise / math.sqrt(2))
    assert pytest.approx(0.79, abs=0.01) == stays
    assert stays ** (STUCK_CYCLES - 1) < 1e-9


@pytest.mark.parametrize(("config", "raw"), [(0x1F, 392), (0x3F, 396), (0x5F, 398), (0x7F, 399)])
def test_bits_that_a_coarser_resolution_leaves_open_do_not_count(config, raw):
    assert [(raw * 25 + 2) // 4] == readings(OneWire(scratchpad(399, config=config)), 1)


def test_a_coarse_value_may_stay_the_same():
    coarse = OneWire(scratchpad(ROOM, config=0x1F))
    assert [2200] * 200 == readings(coarse, 200)


def nobody():
    bus = OneWire(ROOM)
    bus.is_there = False
    return bus


@pytest.mark.parametrize(
    ("bus", "name"),
    [
        (nobody(), "sensor_fault"),
        (OneWire(bytes(9)), "sensor_crc"),
        (OneWire(POWER_ON), "sensor_power_on"),
        (OneWire(0x07FF), "sensor_range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_says_that_it_has_no_reading_and_counts_why(bus, name):
    bench = Bench(sensor=thermometer(bus))
    assert [(TO_HALO, no_reading_of(CENTRE, 5))] == bench.hear(beacon_of(5))
    assert {name: 1} == bench.faults()


def test_a_node_counts_a_stuck_sensor_in_each_cycle():
    bench = Bench(sensor=thermometer(OneWire(ROOM)))
    for cycle in range(1, STUCK_CYCLES + 3):
        bench.hear(beacon_of(cycle))
        bench.wait(20_000)
    assert 3 == bench.faults()["sensor_stuck"]


# offset_ccel


@pytest.mark.parametrize("offset_ccel", [-1000, -37, 0, 1000])
@pytest.mark.parametrize("kind", ["simulated", "replay"])
def test_an_offset_is_added_to_every_kind_of_reading(kind, offset_ccel, tmp_path):
    file = tmp_path / "readings.bin"
    file.write_bytes(b"\x01" + (2150).to_bytes(2, "little") + b"\0\0\0")
    settings = {
        "simulated": {"kind": kind, "seed": 3, "mean_ccel": 2200},
        "replay": {"kind": kind, "path": str(file), "cells": 1, "index": 0},
    }[kind]
    plain, mended = open_sensor(settings), open_sensor(settings | {"offset_ccel": offset_ccel})
    expected = [reading if reading is None else reading + offset_ccel for reading in map(plain.read, range(3))]
    assert expected == [mended.read(cycle) for cycle in range(3)]


def test_an_offset_mends_a_thermometer():
    assert 2506 - 37 == Offset(thermometer(OneWire(RAW)), -37).read(0)


class Hottest:
    def read(self, cycle):
        return 32_000


def test_a_reading_that_its_offset_takes_beyond_int16_is_none_and_is_counted():
    bench = Bench(sensor=Offset(Hottest(), 1000))
    assert [(TO_HALO, no_reading_of(CENTRE, 5))] == bench.hear(beacon_of(5))
    assert {"sensor_range": 1} == bench.faults()


def test_a_node_sends_the_mended_reading():
    bench = Bench(sensor=Offset(thermometer(OneWire(RAW)), 100))
    assert (TO_HALO, reading_of(CENTRE, 5, 2606)) == bench.hear(beacon_of(5))[0]


# On a board


def test_a_machine_without_pins_is_named():
    with pytest.raises(ValueError, match=r"sensor: kind: 'ds18b20' needs a board \(.*machine.*\); write another kind"):
        open_sensor({"kind": "ds18b20", "pin": 4})


BOARD = """
import json, sys

class Module:
    pass

class Pin:
    def __init__(self, number):
        self.number = number

class OneWire:
    said = []
    def __init__(self, pin):
        self.said.append(pin.number)
    def reset(self, required):
        self.said.append("reset")
    def writebyte(self, value):
        self.said.append(value)
    def readinto(self, buffer):
        buffer[:] = bytes.fromhex("f300 4b46 7fff 0d10 ee".replace(" ", ""))

sys.modules["machine"], sys.modules["onewire"] = Module(), Module()
sys.modules["machine"].Pin, sys.modules["onewire"].OneWire = Pin, OneWire
from firmware.reading import open_sensor
sensor = open_sensor({"kind": "ds18b20", "pin": 4, "offset_ccel": -19})
print(json.dumps([sensor.read(7), OneWire.said, "firmware.sensor_replay" in sys.modules]))
"""


def test_micropython_reads_a_thermometer_on_a_pin_and_loads_no_other_driver():
    assert [1519 - 19, [4, "reset", 0xCC, 0x44, "reset", 0xCC, 0xBE], False] == json.loads(run(BOARD))


def test_driver_and_offset_leave_a_node_below_30_of_its_32_kilobytes(device_build):
    names = {word: module(word) for word in ("sensor_ds18b20", "sensor_offset")}
    made = BOARD.partition("from firmware")[0] + f"""
import gc
sys.path.append({str(device_build)!r})
gc.collect()
before = gc.mem_alloc()
driver = __import__({names["sensor_ds18b20"]!r}).{exported("Ds18b20")}({{"pin": 4}}, None, lambda ms: None)
sensor = __import__({names["sensor_offset"]!r}).{exported("Offset")}(driver, -19)
gc.collect()
print(json.dumps([sensor.read(7), gc.mem_alloc() - before]))
"""
    reading_ccel, size = json.loads(run(made, device_build))
    assert 1500 == reading_ccel
    assert size < 2_300  # what tests/test_heap.py leaves
