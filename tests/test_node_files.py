"""Each node's file in the gateway's state folder: people edit its sensor, and the next start keeps what they wrote."""

import json
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from gateway.keys import load_or_make
from gateway.site import site_of_cells
from tools.gateway import _write_nodes, sensors_of
from tools.mesh.files import Access, write_node_files

SITE = site_of_cells("hall", {(0, 0), (0, 1)})
THERMOMETER = {"kind": "thermometer", "pin": 4}


def simulated(seed):
    return {"kind": "simulated", "seed": seed, "mean_ccel": 2200}


def test_a_node_without_a_file_gets_a_simulated_sensor_of_its_own(tmp_path):
    assert {(0, 0): simulated(0), (0, 1): simulated(1)} == sensors_of(tmp_path / "nodes", SITE)


def test_a_sensor_that_somebody_wrote_is_kept(tmp_path):
    (tmp_path / "n-00-01.json").write_text(json.dumps({"site": "hall", "sensor": THERMOMETER}))
    assert {(0, 0): simulated(0), (0, 1): THERMOMETER} == sensors_of(tmp_path, SITE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sensor": 3}', '{"sensor": null}', "[" * 100_000, "\udcff"])
def test_a_file_without_such_a_table_is_refused_and_not_overwritten(tmp_path, text):
    file = tmp_path / "n-00-01.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"n-00-01\.json: holds no JSON object with a table sensor; mend it, or "):
        sensors_of(tmp_path, SITE)


def write(folder, **passwords):
    names = ("n-00-00", "n-00-01")
    access = Access("host", 1, {name: passwords.get(name.replace("-", "_"), "word") for name in names})
    sensors = {(0, 0): THERMOMETER, (0, 1): THERMOMETER}
    write_node_files(folder, SITE, access, b"filters", "", sensors)


def test_a_file_that_says_it_already_is_not_written_again_unless_others_may_read_it(tmp_path):
    write(tmp_path)
    same, changed, opened = tmp_path / "n-00-00.json", tmp_path / "n-00-01.json", tmp_path / "n-00-00.filters"
    before = same.stat().st_ino, changed.stat().st_ino, opened.stat().st_ino
    write(tmp_path, n_00_01="another")
    assert (True, False, True) == tuple(
        file.stat().st_ino == number for file, number in zip((same, changed, opened), before, strict=True)
    )
    same.chmod(0o644)
    write(tmp_path)
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in (same, changed)}


def test_what_people_wrote_outlives_a_full_disk(tmp_path, monkeypatch):
    write(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full():
        raise OSError(28, "No space left on device")

    config = SimpleNamespace(site=SITE, state=tmp_path / "state")
    key = load_or_make(tmp_path / "key")
    monkeypatch.setattr("gateway.files.os.fdopen", lambda *_: full())
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, n_00_00="another")
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(ValueError, match=r"nodes: No space left on device; check the folder and its free space$"):
        _write_nodes(config, Access("host", 1), b"filters", key)


def test_the_gateway_keeps_an_edited_sensor_at_its_next_start(tmp_path):
    (tmp_path / "site.toml").write_text('name = "hall"\nrows = 1\ncols = 2\ncycle_s = 1\n')
    (tmp_path / "gateway.toml").write_text('site = "site.toml"\nspec = "lean"\n')
    file = tmp_path / "state" / "nodes" / "n-00-01.json"
    ports = []
    for _ in range(2):
        command = [sys.executable, "-m", "tools.cli", "gateway", "--config", str(tmp_path / "gateway.toml")]
        done = subprocess.run([*command, "--cycles", "1"], capture_output=True, text=True, timeout=120)
        assert 0 == done.returncode, done.stderr
        config = json.loads(file.read_text())
        assert (simulated(1) if not ports else THERMOMETER) == config["sensor"]
        ports.append(config["port"])
        # Someone edits two fields; the gateway knows better where its broker is.
        file.write_text(json.dumps(config | {"sensor": THERMOMETER, "port": 1}))
    assert 1 not in ports
