"""A node's configuration and `thermesh node run`: what is refused in which words, on both runtimes, and how it ends."""

import json
import signal
import socket
import subprocess
import sys

import pytest
from on_micropython import run

from firmware import config
from firmware.reading import SETTINGS, open_sensor
from gateway.broker import LOOPBACK
from gateway.model import SPECS
from gateway.site import site_of_cells
from gateway.start_weights import start_filters
from tools.mesh.files import Access, write_node_files

WAIT_S_MAX = 30
SIMULATED = {"kind": "simulated", "seed": 0, "mean_ccel": 2200}
REPLAY = {"kind": "replay", "path": "readings.bin", "cells": 4, "index": 3}
DS18B20 = {"kind": "ds18b20", "pin": 4}
RIGHT_SENSORS = {"simulated": SIMULATED, "replay": REPLAY, "ds18b20": DS18B20}
RIGHT = {
    "site": "hall",
    "row": 1,
    "col": 2,
    "neighbours": 255,
    "host": "127.0.0.1",
    "port": 1883,
    "keepalive_s": 60,
    "filters": "n-01-02.filters",
    "key": "",
    "next_to_gateway": False,
    "sensor": SIMULATED,
}

PASSWORD = "up to 64 printable ASCII characters without spaces"
HOST_PARTS = "parts of 1..63 ASCII letters, digits or -, like 10.0.0.1"
OFFSETS = "a whole number in -1000..1000"
WRONG = [
    ({"row": 255}, "row: 255 is not a whole number in 0..254"),
    ({"row": "1"}, "row: '1' is not a whole number in 0..254"),
    ({"row": True}, "row: True is not a whole number in 0..254"),
    ({"keepalive_s": 4.5}, "keepalive_s: 4.5 is not a whole number in 5..3600"),
    ({"host": 7}, "host: 7 is not a text in quotes"),
    *(
        ({"host": host}, f"host: '{host}' is no address or name; write {HOST_PARTS}")
        for host in ("", "192.168.1..10", ".local", "x" * 64 + ".local", "a b", "::1 ")
    ),
    ({"next_to_gateway": 1}, "next_to_gateway: 1 is not true or false"),
    ({"sensor": []}, "sensor: [] is not a table like {...}"),
    ({"sensor": {}}, "sensor: kind: None is not one of ds18b20, replay, simulated"),
    ({"sensor": {"kind": "thermometer"}}, "sensor: kind: 'thermometer' is not one of ds18b20, replay, simulated"),
    ({"sensor": {"kind": []}}, "sensor: kind: [] is not one of ds18b20, replay, simulated"),
    ({"sensor": SIMULATED | {"seed": "x"}}, "sensor: seed: 'x' is not a whole number in 0..2147483647"),
    ({"sensor": SIMULATED | {"seed": -1}}, "sensor: seed: -1 is not a whole number in 0..2147483647"),
    ({"sensor": SIMULATED | {"mean_ccel": 21.5}}, "sensor: mean_ccel: 21.5 is not a whole number in -32768..32767"),
    ({"sensor": SIMULATED | {"mean_ccel": None}}, "sensor: mean_ccel: None is not a whole number in -32768..32767"),
    ({"sensor": REPLAY | {"path": 3}}, "sensor: path: 3 is not a text in quotes"),
    ({"sensor": REPLAY | {"cells": 0}}, "sensor: cells: 0 is not a whole number in 1..65025"),
    ({"sensor": REPLAY | {"index": 4}}, "sensor: index: 4 is not below cells, 4"),
    ({"sensor": DS18B20 | {"pin": 100}}, "sensor: pin: 100 is not a whole number in 0..99"),
    *(
        ({"sensor": sensor | {"offset_ccel": wrong}}, f"sensor: offset_ccel: {wrong} is not {OFFSETS}")
        for sensor in RIGHT_SENSORS.values()
        for wrong in (1001, -1001, 0.5, True, None)
    ),
    ({"password": 7}, "password: is not a text in quotes"),
    ({"password": None}, "password: is not a text in quotes"),
    *(
        ({"password": password}, f"password: is not {PASSWORD}; copy it from the gateway's state folder")
        for password in ("x" * 65, "a b", "x\n", "ä", "\0")
    ),
    ({"ca": 7}, "ca: is not a text in quotes"),
    ({"psk": 7}, "psk: is not a text in quotes"),
    ({"psk": "ab"}, "psk: is not 64 hex digits; copy it from the gateway's file"),
    ({"psk": "0" * 64}, "psk_port: is missing; write a whole number in 1..65535"),
    ({"psk": "0" * 64, "psk_port": 0}, "psk_port: 0 is not a whole number in 1..65535"),
    ({"site": "Hall"}, "site name 'Hall': write 1 to 32 of a-z, 0-9, '-' and '_'"),
]


def refusal(settings):
    try:
        config.check(settings)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("offset", [{}, {"offset_ccel": -1000}, {"offset_ccel": 1000}])
@pytest.mark.parametrize("sensor", RIGHT_SENSORS.values())
def test_a_right_configuration_comes_back_as_it_is(sensor, offset):
    assert RIGHT | {"sensor": sensor | offset} == config.check(RIGHT | {"sensor": sensor | offset})


@pytest.mark.parametrize("password", ["", "x", "!" * 64])
def test_a_node_may_have_a_password(password):
    assert RIGHT | {"password": password} == config.check(RIGHT | {"password": password})


@pytest.mark.parametrize(("change", "line"), WRONG)
def test_a_wrong_field_is_named_with_its_value_and_what_would_be_right(change, line):
    assert line == refusal(RIGHT | change)


@pytest.mark.parametrize("name", RIGHT)
def test_a_missing_field_is_named_with_what_to_write(name):
    wanted = "a whole number in " if type(RIGHT[name]) is int else ""
    assert refusal({key: value for key, value in RIGHT.items() if key != name}).startswith(
        f"{name}: is missing; write {wanted}"
    )


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in SETTINGS for name in SETTINGS[kind]])
def test_a_missing_setting_of_a_sensor_is_named_with_what_to_write(kind, name):
    sensor = {key: value for key, value in RIGHT_SENSORS[kind].items() if key != name}
    assert refusal(RIGHT | {"sensor": sensor}).startswith(f"sensor: {name}: is missing; write a ")


def test_micropython_refuses_the_same_in_the_same_words():
    script = """
import json
from firmware import config
def refusal(settings):
    try:
        config.check(settings)
    except ValueError as error:
        return str(error)
print(json.dumps([refusal(settings) for settings in json.loads(%r)]))
"""
    settings = [RIGHT, *(RIGHT | change for change, _ in WRONG)]
    assert [refusal(wrong) for wrong in settings] == json.loads(run(script % json.dumps(settings)))


@pytest.mark.parametrize("path", ["nowhere.bin", "."])
def test_readings_that_cannot_be_opened_are_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"sensor: path: '{path}' cannot be opened \(.*\); name a file"):
        open_sensor(REPLAY | {"path": path})


# `thermesh node run`


def node_run(path, **options):
    command = [sys.executable, "-m", "tools.cli", "node", "run", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def node_file(tmp_path):
    """A node's file with all that it names, for a broker on a port."""

    def at(port, **change):
        site = site_of_cells("hall", {(0, 0)})
        filters = start_filters(SPECS["lean"]).pack(site.name)
        write_node_files(tmp_path, site, Access(LOOPBACK, port), filters, "", {(0, 0): SIMULATED})
        file = tmp_path / "n-00-00.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        return file

    return at


def test_ctrl_c_ends_a_node_with_130_and_one_line(node_file):
    with socket.create_server((LOOPBACK, 0)) as broker:
        broker.settimeout(WAIT_S_MAX)
        running = node_run(node_file(broker.getsockname()[1]))
        broker.accept()[0].close()  # it is connecting, so it runs
        running.send_signal(signal.SIGINT)
        out, words = running.communicate(timeout=WAIT_S_MAX)
    assert (130, "", "thermesh: stopped") == (running.returncode, out, words.strip())


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a folder", "thermesh: {folder}: is a folder; name the node's file in it, like n-00-00.json"),
        ("nothing", "thermesh: {folder}/n-09-09.json: no such file; `thermesh gateway` writes one for each node into "),
        ("no JSON", "thermesh: n-00-00.json: "),
        ("a deep list", "thermesh: n-00-00.json: "),
        ("a list", "thermesh: n-00-00.json: is no JSON object; write {{...}} with site, row, "),
        ("a wrong sensor", "thermesh: n-00-00.json: sensor: seed: 'x' is not a whole number in 0..2147483647"),
    ],
)
def test_a_wrong_path_or_file_is_one_line_and_exit_code_2(node_file, tmp_path, what, line):
    file = node_file(1, sensor=SIMULATED | ({"seed": "x"} if what == "a wrong sensor" else {}))
    if what in ("no JSON", "a list", "a deep list"):
        file.write_text({"no JSON": "{", "a list": "[]", "a deep list": "[" * 100_000}[what])
    path = {"a folder": tmp_path, "nothing": tmp_path / "n-09-09.json"}.get(what, file)
    running = node_run(path)
    out, words = running.communicate(timeout=WAIT_S_MAX)
    assert (2, "") == (running.returncode, out)
    assert words.startswith(line.format(folder=tmp_path))
    assert 1 == len(words.splitlines())
