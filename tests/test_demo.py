"""`thermesh demo` from the outside: what it prints, what it writes, what it refuses. Real broker, real nodes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gateway import twin
from gateway.cycles import Record
from gateway.decision import Decision
from gateway.exactness import Comparison
from gateway.gateway import Outcome
from gateway.model import SPECS, Filters
from gateway.rule import abnormal
from gateway.site import site_of_cells
from tools import cli, readings
from tools.demo.judged import as_given, places
from tools.demo.plan import Options, Plan
from tools.demo.run import wrong_readings
from tools.mesh.mesh import Mesh, NodeKind

SMALL_SITE = """
name = "small"
rows = 5
cols = 10
holes = ["n-00-00", "n-02-03", "n-04-09"]
"""
FRESH_S = 180


def thermesh(*words, **options):
    command = [sys.executable, "-m", "tools.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=FRESH_S, **options)


def demo(*words):
    done = thermesh("demo", "--json", *words)
    assert 0 == done.returncode, done.stderr + done.stdout[-2000:]
    return json.loads(done.stdout)


def check_clean(summary, nodes, cycles):
    assert (nodes, cycles) == (summary["nodes"], summary["cycles"])
    assert [] == summary["problems"]
    assert summary["exact"]["compared"] == summary["exact"]["equal"] > 0


@pytest.fixture
def small_site(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SMALL_SITE)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_the_lounge_runs_on_425_micropython_nodes_with_32_kilobytes_each(spec):
    summary = demo("--broker", "mosquitto", "--runtime", "micropython", "--heap", "32K", "--cycles", 10, "--spec", spec)
    check_clean(summary, 425, 10)
    ((runtime, count),) = summary["runtime"].items()
    assert (425, "32K") == (count, summary["heap"])
    assert runtime.startswith("micropython")
    assert {"seed": 5850, "lean": 1170, "zone": 1170}[spec] == summary["exact"]["compared"]
    assert "mosquitto" in summary["broker"]
    kinds = {"reading", "no_reading", "activations", "member", "report", "beacon", "health"}
    assert kinds <= set(summary["ledger"]["kinds"])
    ledger = summary["ledger"]
    assert ledger["total"]["bytes_on_air"] == pytest.approx(ledger["mesh"]["star"]["bytes_on_air"], abs=1)
    assert {"raw_gather", "deltas", "send_on_change"} < set(ledger["alternatives"])
    assert {"seed": 425, "lean": 0, "zone": 0}[spec] == ledger["layers"]["halo_2"]["frames"]
    # Each node said once in ten cycles what it had counted.
    assert 42.5 == summary["ledger"]["kinds"]["health"]["frames"]
    # Each node publishes its reading once (R0-7); seed has a second exchange, the others have not.
    assert 425 == summary["ledger"]["kinds"]["reading"]["frames"]
    assert {"seed": 425, "lean": 0, "zone": 0}[spec] == summary["ledger"]["kinds"]["activations"]["frames"]


@pytest.mark.parametrize("runtime", ["micropython", "cpython"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_site_with_holes_is_exact_and_its_files_prove_it(small_site, tmp_path, runtime, spec):
    out = tmp_path / "out"
    summary = demo("--site", small_site, "--runtime", runtime, "--spec", spec, "--cycles", 6, "--out", out)
    check_clean(summary, 47, 6)
    assert summary == json.loads((out / "summary.json").read_text())
    check_files(out)


def test_empty_fields_are_nodes_without_a_reading(tmp_path):
    file, out = tmp_path / "room.csv", tmp_path / "out"
    rng = np.random.default_rng(5)
    cells = [(row, col) for row in range(4) for col in range(5)]
    values = rng.integers(1800, 2600, (5, 20)).astype(np.int16)
    readings.write(file, cells, values, rng.random((5, 20)) < 0.7)
    summary = demo("--readings", file, "--out", out, "--cycles", 9)
    check_clean(summary, 20, 5)
    assert any("5 cycles" in note for note in summary["notes"])
    written = (out / "readings.csv").read_text().splitlines()
    assert file.read_text().splitlines() == [line.split(",", 1)[1] for line in written]
    check_files(out)


@pytest.mark.slow
def test_real_sea_temperatures_run_exactly(tmp_path):
    pytest.importorskip("h5py", reason="the extra [data] is not installed")
    sea = tmp_path / "sea.csv"
    facts = json.loads(thermesh("data", "ostia", "--out", sea, "--json").stdout)
    assert "licence" in facts
    check_clean(demo("--readings", sea, "--cycles", 5), facts["nodes"], 5)


@pytest.mark.slow
def test_the_slow_broker_runs_fewer_cycles_and_says_why(small_site):
    summary = json.loads(
        thermesh("demo", "--json", "--site", small_site, env=os.environ | {"THERMESH_BROKER": "amqtt"}).stdout
    )
    check_clean(summary, 47, 12)
    assert any("amqtt" in note for note in summary["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["seed", "lean"])
def test_twenty_killed_nodes_leave_the_rest_exact(tmp_path, seed, spec):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tools.cli", "demo", "--json", "--cycles", "25", "--spec", spec]
    running = subprocess.Popen(
        [*command, "--runtime", "micropython", "--out", str(out)], stdout=subprocess.PIPE, text=True
    )
    wait_for_cycles(out, 3)
    (host,) = [pid for pid in children(running.pid) if "fork_host" in command_line(pid)]
    for pid in random.Random(seed).sample(children(host), 20):
        os.kill(pid, signal.SIGKILL)
    summary = json.loads(running.communicate(timeout=FRESH_S)[0])
    assert summary["exact"]["compared"] == summary["exact"]["equal"] > 0
    assert 20 == sum("ended with code -9" in problem for problem in summary["problems"])
    last = cycles_of(out)[-1]
    assert (0, 20) == (last["late"], len(last["no_reading"]))
    check_files(out)


@pytest.mark.slow
def test_a_node_that_did_not_become_ready_is_named_and_makes_exit_code_1(small_site, monkeypatch, capsys):
    def without_one(mesh, start=Mesh.start):
        (mesh._folder / "n-01-01.json").unlink()
        start(mesh)

    monkeypatch.setattr(Mesh, "start", without_one)
    options = {"cycles": 1, "train_cycles": 1, "runtime": "micropython", "heap": "64K", "as_json": True}
    assert 1 == cli.demo(site=small_site, **options)
    summary = json.loads(capsys.readouterr().out)
    assert summary["exact"]["compared"] == summary["exact"]["equal"] > 0
    assert "1 nodes did not become ready, n-01-01 the first" in summary["problems"]
    assert "ledger: without 1 nodes that did not say what they had counted: n-01-01" in summary["problems"]


@pytest.mark.slow
def test_the_host_of_all_nodes_that_ends_makes_exit_code_1(small_site, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tools.cli", "demo", "--json", "--cycles", "2000", "--site", str(small_site)]
    running = subprocess.Popen([*command, "--runtime", "cpython", "--out", str(out)], stdout=subprocess.PIPE, text=True)
    wait_for_cycles(out, 2)
    (host,) = [pid for pid in children(running.pid) if "_host" in command_line(pid)]
    os.kill(host, signal.SIGKILL)
    summary = json.loads(running.communicate(timeout=FRESH_S)[0])
    assert 1 == running.returncode
    assert "the host of all nodes ended by itself" in summary["problems"]
    assert summary["exact"]["compared"] == summary["exact"]["equal"] > 0


def test_a_cycle_beyond_the_readings_is_a_problem_and_no_crash():
    """A mesh that went ahead by itself comes to cycles that the sensors were given nothing for."""
    site = site_of_cells("pair", {(0, 0), (0, 1)})
    given = np.array([[2000, 2100], [2001, 2101]], np.int16)
    plan = Plan(site, SPECS["lean"], NodeKind("cpython", None), given, np.ones((2, 2), np.bool_), None, Options())
    said = {0: [2000, 2100], 1: [2001, 2999], 7: [0, 0]}
    outcomes = [outcome_of(cycle, np.array([values], np.int16), has=cycle < 2) for cycle, values in said.items()]
    assert [
        "cycle 1: a node reported another reading than its sensor gave",
        "cycle 7: there are readings for 2 only; the mesh went ahead by itself",
    ] == wrong_readings(plan, outcomes)


def test_in_mode_change_a_last_word_may_be_the_threshold_away_from_the_reading_and_no_further():
    site = site_of_cells("pair", {(0, 0), (0, 1)})
    given, options = np.array([[2000, 2100]] * 3, np.int16), Options(mode="change")
    plan = Plan(site, SPECS["lean"], NodeKind("cpython", None), given, np.ones((3, 2), np.bool_), None, options, 25)
    said = ([2000, 2125], [1975, 2100], [1974, 2100])
    outcomes = [outcome_of(cycle, np.array([values], np.int16), has=True) for cycle, values in enumerate(said)]
    assert ["cycle 2: a node reported another reading than its sensor gave"] == wrong_readings(plan, outcomes)


def test_decisions_and_places_are_judged_by_what_sensors_gave_not_by_what_was_said():
    site = site_of_cells("row", {(0, col) for col in range(6)})
    given = np.array([[2000, 2300, 2000, 2000, 2000, 2000]], np.int16)
    plan = Plan(site, SPECS["lean"], NodeKind("cpython", None), given, np.ones((1, 6), np.bool_), None, Options())
    outcome = outcome_of(0, np.array([[2000, 2299, 2000, 2000, 2000, 2299]], np.int16), has=True)
    outcome = outcome._replace(decision=Decision((0.0, 1.0), True, (0, 0)))
    assert {"found": 1, "near": 1} == places(plan, [outcome])
    (record,) = as_given(plan, [outcome.record])
    assert given.tolist() == record.readings_ccel.tolist()


def test_readings_by_cell_stand_as_the_site_does_and_holes_have_none():
    site = site_of_cells("corner", {(0, 0), (0, 1), (1, 0)})
    given, present = np.array([[2000, 2001, 2002], [1, 2, 3]], np.int16), np.array([[True, False, True]] * 2)
    plan = Plan(site, SPECS["lean"], NodeKind("cpython", None), given, present, None, Options())
    readings_ccel, there = plan.fields(1)
    assert ([[[2000, 2001], [2002, 0]]], [[[True, False], [True, False]]]) == (readings_ccel.tolist(), there.tolist())


def outcome_of(cycle, readings_ccel, has):
    """A decided cycle of a row of nodes that reported these readings, or none."""
    there, absence = np.full(readings_ccel.shape, has), np.zeros((1, *readings_ccel.shape), np.uint8)
    carried = np.zeros((1, 1), np.bool_)
    record = Record(cycle, np.zeros((1, 1, 5), np.int16), readings_ccel, there, there, absence, ~there, 0, carried)
    return Outcome(record, Decision((1.0, 0.0), False, None), 1, 1, Comparison(0, 0, 0))


def test_ctrl_c_leaves_no_process_behind(small_site, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tools.cli", "demo", "--cycles", "100000", "--site", str(small_site)]
    running = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    wait_for_cycles(out, 2)
    family = [running.pid, *(pid for child in children(running.pid) for pid in [child, *children(child)])]
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=30)
    assert (130, "thermesh: stopped") == (running.returncode, words.strip())
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < deadline, "a process outlived Ctrl-C"
    assert len(cycles_of(out)) >= 2


WRONG = {
    "an unknown spec": (["--spec", "ring"], "--spec ring: is not seed, lean or zone"),
    "an unknown mode": (["--mode", "event"], "--mode"),
    "an unknown runtime": (["--runtime", "pypy"], "--runtime"),
    "an unknown broker": (["--broker", "rabbit"], "--broker"),
    "an unreachable broker": (["--broker", "127.0.0.1:1"], "127.0.0.1:1"),
    "a heap below the minimum": (["--heap", "16K"], "--heap 16K"),
    "a heap that is none": (["--heap", "much"], "--heap much"),
    "no cycles": (["--cycles", "0"], "--cycles"),
    "a negative number": (["--cycles", "-3"], "--cycles"),
    "a word for a number": (["--cycles", "few"], "--cycles"),
    "a negative seed": (["--seed", "-1"], "--seed"),
    "a missing site": (["--site", "nowhere.toml"], "nowhere.toml"),
    "missing readings": (["--readings", "nowhere.csv"], "nowhere.csv"),
    "an unknown option": (["--wave"], "--wave"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_a_line_and_exit_code_2(what):
    words, named = WRONG[what]
    check_refusal(thermesh("demo", *words), named)


WRONG_FILES = {
    "empty": ("", "empty"),
    "a short row": ("n-00-00,n-00-01\n1\n", "line 2"),
    "a long row": ("n-00-00,n-00-01\n1,2,3\n", "line 2"),
    "out of range": ("n-00-00,n-00-01\n1,327.68\n", "n-00-01"),
    "no number": ("n-00-00,n-00-01\n1,2\n1,warm\n", "line 3"),
    "a doubled name": ("n-00-00,n-00-00\n1,2\n", "n-00-00"),
    "a malformed name": ("n-00-00,kitchen\n1,2\n", "kitchen"),
    "no rows": ("n-00-00,n-00-01\n", "room.csv"),
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_a_wrong_readings_file_is_named_with_its_place(tmp_path, what):
    text, named = WRONG_FILES[what]
    (tmp_path / "room.csv").write_text(text)
    check_refusal(thermesh("demo", "--readings", tmp_path / "room.csv"), named)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    check_refusal(thermesh("demo", "--out", tmp_path / "file"), "--out")


def check_refusal(done, named):
    assert 2 == done.returncode
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 6
    assert "" == done.stdout


def check_files(out):
    """Recompute every feature from the files alone, where nothing came late."""
    file = readings.read(out / "readings.csv")
    site = site_of_cells("small", set(file.cells))
    rows, cols = np.array(file.cells).T
    filters = {int(path.stem): Filters.from_json(json.loads(path.read_text())) for path in (out / "filters").iterdir()}
    lines = cycles_of(out)
    assert len(lines) == len(file.ccel)
    compared = 0
    for line, values, there in zip(lines, file.ccel, file.present, strict=True):
        field, present = np.zeros((2, *site.mask.shape), np.int16)
        field[rows, cols], present[rows, cols] = values, there
        if line["late"] == 0:
            assert sorted(line["no_reading"]) == sorted(
                f"n-{row:02d}-{col:02d}" for (row, col), has in zip(file.cells, there, strict=True) if not has
            )
            features = twin.features(filters[line["filter_version"]], field[None], present[None].astype(bool), site)[0]
            expected = [[None if (block < 0).all() else block.tolist() for block in row] for row in features]
            assert expected == line["features"]
            compared += 1
        assert 1 == pytest.approx(sum(line["scores"]), abs=1e-5)
        assert line["abnormal"] or line["where"] is None
        assert abnormal(field, present.astype(bool)).shape == ()
    assert compared > 0


def cycles_of(out):
    """The cycles in a folder that may be written to at this moment: its last line counts once it is whole."""
    lines = (out / "cycles.jsonl").read_text().rpartition("\n")[0]
    return [json.loads(line) for line in lines.splitlines()]


def wait_for_cycles(out, count):
    deadline = time.monotonic() + FRESH_S
    while not (out / "cycles.jsonl").exists() or len(cycles_of(out)) < count:
        assert time.monotonic() < deadline, "the demo does not get going"


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it ended meanwhile


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
