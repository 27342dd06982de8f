"""A gateway's backup: made while it writes, whole or refused; what is restored goes on above what nodes have seen."""

import hashlib
import json
import os
import random
import sqlite3
import threading
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from store_bench import BASIS, MODEL, NOON_S, SITE, active, add, calm, outcome_of

from gateway import backup, keys, running
from gateway.backup import RUNS_AHEAD, BackupError
from gateway.config import next_run
from gateway.store import Store
from gateway.store_schema import FILE, StoreError
from gateway.wave import signed
from tools import cli

CYCLES = 20


def nothing(done, pages):
    """No bar."""


def make_state(folder):
    """The state folder of a gateway at its run 7."""
    key = keys.load_or_make(folder)
    with Store(folder, SITE, create=True) as store:
        store.add_model(active(MODEL)._replace(filter_set=signed(MODEL.filters, SITE.name, key)))
        for cycle in range(CYCLES):
            store.add_cycle(7, NOON_S + cycle, outcome_of(calm(cycle)), BASIS)
    (folder / "run").write_text("7\n")
    (folder / "passwords.json").write_text('{"gateway": "word"}')
    (folder / "broker-ca.pem").write_text("key and certificate")
    (folder / "nodes").mkdir()
    (folder / "nodes" / "n-00-01.json").write_text('{"sensor": {"kind": "replay"}}')
    return folder


@pytest.fixture
def state(tmp_path):
    return make_state(tmp_path / "state")


@pytest.fixture
def made(state, tmp_path):
    """A backup."""
    backup.make(state, SITE, tmp_path / "made.backup", NOON_S, nothing)
    return tmp_path / "made.backup"


def cycles_of(folder):
    with Store(folder, SITE) as store:
        return [(stored.run, stored.outcome.record.cycle) for stored in store.latest_cycles(10_000)]


def files_of(folder):
    """Every file below a folder with its bytes; what SQLite keeps beside an open store comes and goes."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".db-wal", ".db-shm"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def rewritten(made, change):
    """The backup with its members changed: `change` takes and gives {name: bytes}."""
    with zipfile.ZipFile(made) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)


def with_manifest(made, **fields):
    def change(members):
        manifest = json.loads(members["manifest.json"]) | fields
        return members | {"manifest.json": json.dumps(manifest).encode()}

    rewritten(made, change)


def refusal(made, folder):
    """Why a backup cannot be restored; None where it was."""
    try:
        backup.restore(made, folder, SITE, replace=True)
    except BackupError as error:
        return error
    return None


def test_what_was_saved_is_there_again_and_runs_go_on_above(state, made, tmp_path):
    manifest = backup.restore(made, tmp_path / "other", SITE)
    assert cycles_of(state) == cycles_of(tmp_path / "other")
    for name in (keys.NAME, "passwords.json", "broker-ca.pem", "nodes/n-00-01.json"):
        assert (state / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert (7 + RUNS_AHEAD, None) == (manifest["run"], manifest["aside"])
    assert 7 + RUNS_AHEAD + 1 == next_run(tmp_path / "other")
    names = {path.name for path in (tmp_path / "other").iterdir()}
    assert {FILE, keys.NAME, "passwords.json", "broker-ca.pem", "nodes", "run", running.LOCK} == names


@pytest.mark.parametrize("name", ["thermesh", "site-key.pem", "nodes/all", "../state/thermesh"])
def test_a_backup_within_the_folder_that_it_saves_is_refused_and_all_stays(state, name):
    before = files_of(state)
    with pytest.raises(BackupError, match="lies in the folder that is to be saved; name a file elsewhere"):
        backup.make(state, SITE, state / name, NOON_S, nothing)
    assert before == files_of(state)


def test_a_backup_takes_the_place_of_no_file_but_its_own(state, tmp_path):
    others = [tmp_path / f"made.backup{ending}" for ending in (".db", ".new", "-unfinished-1")]
    for path in others:
        path.write_text("somebody's")
    (tmp_path / "made.backup").write_text("one of before")
    backup.make(state, SITE, tmp_path / "made.backup", NOON_S, nothing)
    assert ["somebody's"] * 3 == [path.read_text() for path in others]
    assert {"state", "made.backup", *(path.name for path in others)} == {path.name for path in tmp_path.iterdir()}
    assert refusal(tmp_path / "made.backup", tmp_path / "other") is None


def test_only_its_owner_can_read_a_backup_and_what_comes_out_of_it(made, tmp_path):
    backup.restore(made, tmp_path / "other", SITE)
    for path in (made, tmp_path / "other" / keys.NAME, tmp_path / "other" / FILE):
        assert 0o600 == path.stat().st_mode & 0o777, path


def test_a_backup_holds_every_cycle_that_was_stored_before_it_began_and_none_in_part_while_the_gateway_goes_on(
    state, tmp_path
):
    stop, stored = threading.Event(), []

    def go_on():
        with Store(state, SITE) as store:
            while not stop.is_set():
                store.add_cycle(8, NOON_S, outcome_of(calm(len(stored))), BASIS)
                stored.append(len(stored))

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        for turn in range(5):
            before = len(stored)
            backup.make(state, SITE, tmp_path / f"{turn}.backup", NOON_S, nothing)
            backup.restore(tmp_path / f"{turn}.backup", tmp_path / str(turn), SITE)
            later = [cycle for run, cycle in cycles_of(tmp_path / str(turn)) if run == 8]
            assert later == list(range(len(later)))
            assert before <= len(later)
    finally:
        stop.set()
        writer.join()


def test_a_backup_with_any_byte_changed_or_cut_off_is_refused_or_whole_and_the_folder_stays(made, tmp_path, seed):
    rng, data, other = random.Random(seed), bytearray(made.read_bytes()), tmp_path / "other"
    refused = 0
    for _ in range(150):
        place, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        data[place] ^= bit
        made.write_bytes(data if rng.random() < 0.8 else data[:place])
        data[place] ^= bit
        error = refusal(made, other)
        refused += error is not None
        assert error is None or "\n" not in str(error)
        assert error is not None or len(cycles_of(other)) == CYCLES
        assert not [path for path in other.iterdir() if path.name.startswith("restored")]
    assert refused > 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"site": "hall"}, "is of site hall"),
        ({"rows": 4}, "is of site memory"),
        ({"format": 2}, "has format 2, this thermesh knows 1; install a newer one"),
        ({"format": "1"}, "lacks something"),
        ({"run": "7"}, "lacks something"),
        ({"run": 1 << 32}, "lacks something"),
        ({"created_s": 1e300}, "lacks something"),
        ({"files": {}}, "lacks something"),
        ({"files": {FILE: "0", keys.NAME: "0", "../../run": "0"}}, "lacks something"),
        ({"files": {FILE: "0", keys.NAME: "0"}}, "is not what was written"),
    ],
)
def test_what_a_backup_says_of_itself_is_checked(made, tmp_path, fields, message):
    with_manifest(made, **fields)
    with pytest.raises(BackupError, match=message):
        backup.restore(made, tmp_path / "other", SITE)
    assert {running.LOCK} == files_of(tmp_path / "other").keys()


@pytest.mark.parametrize("packed", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_backup_packed_in_another_way_is_refused_unopened(made, tmp_path, packed):
    """What unpacks them takes the memory that the file asks for."""
    with zipfile.ZipFile(made) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(made, "w", packed) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(BackupError, match="packed in a way that no backup is"):
        backup.restore(made, tmp_path / "other", SITE)


def test_another_sites_key_in_a_backup_is_refused(made, tmp_path):
    keys.load_or_make(tmp_path / "foreign")
    foreign = (tmp_path / "foreign" / keys.NAME).read_bytes()
    rewritten(made, lambda members: members | {keys.NAME: foreign})
    with zipfile.ZipFile(made) as archive:
        files = json.loads(archive.read("manifest.json"))["files"]
    with_manifest(made, files=files | {keys.NAME: hashlib.sha256(foreign).hexdigest()})
    with pytest.raises(BackupError, match="is not the key that nodes trust"):
        backup.restore(made, tmp_path / "other", SITE)


def test_a_backup_whose_store_was_damaged_before_it_was_made_is_refused(made, tmp_path):
    """Its digests match, and every cycle can be read: only a look at all of the file finds the empty index."""
    with zipfile.ZipFile(made) as archive:
        data, files = bytearray(archive.read(FILE)), json.loads(archive.read("manifest.json"))["files"]
    (tmp_path / FILE).write_bytes(data)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_cycles_1'"
        ((page,), (size,)) = database.execute(query).fetchone(), database.execute("PRAGMA page_size").fetchone()
    data[(page - 1) * size : page * size] = bytes(size)
    rewritten(made, lambda members: members | {FILE: bytes(data)})
    with_manifest(made, files=files | {FILE: hashlib.sha256(data).hexdigest()})
    with pytest.raises(BackupError, match=r"is no whole backup .*is damaged"):
        backup.restore(made, tmp_path / "other", SITE)
    assert {running.LOCK} == files_of(tmp_path / "other").keys()


def test_a_store_that_is_there_stays_unless_it_is_to_be_moved_aside(made, state):
    with Store(state, SITE) as store:
        add(store, 99)
    before = cycles_of(state)
    with pytest.raises(BackupError, match="is there already; name another folder as state, or write --replace"):
        backup.restore(made, state, SITE)
    assert before == cycles_of(state)
    (state / "nodes" / "n-00-01.json").write_text("{}")
    (state / "run").write_text("123456\n")
    aside = Path(backup.restore(made, state, SITE, replace=True)["aside"])
    assert (before, before[:CYCLES]) == (cycles_of(aside), cycles_of(state))
    assert "{}" == (aside / "nodes" / "n-00-01.json").read_text()
    assert 123457 == next_run(state)


def test_a_key_without_a_store_is_not_overwritten_either(made, tmp_path):
    keys.load_or_make(tmp_path / "other")
    before = files_of(tmp_path / "other")
    with pytest.raises(BackupError, match="is there already"):
        backup.restore(made, tmp_path / "other", SITE)
    assert before.items() <= files_of(tmp_path / "other").items()


def test_nothing_is_restored_under_a_running_gateway(made, state):
    with running.claim(state), pytest.raises(running.RunningError, match="another `thermesh gateway` runs"):
        backup.restore(made, state, SITE, replace=True)


def test_a_backup_that_cannot_be_written_leaves_the_one_before(state, made, monkeypatch):
    before = made.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackupError, match="No space left on device; check the folder and its free space"):
        backup.make(state, SITE, made, NOON_S, nothing)
    assert before == made.read_bytes()
    assert {"state", "made.backup"} == {path.name for path in made.parent.iterdir()}


def test_a_folder_without_a_store_or_a_key_has_nothing_to_save(tmp_path):
    with pytest.raises(StoreError, match="there is no store yet; run `thermesh gateway`"):
        backup.make(tmp_path / "empty", SITE, tmp_path / "made.backup", NOON_S, nothing)
    with Store(tmp_path / "keyless", SITE, create=True), pytest.raises(keys.SiteKeyError):
        backup.make(tmp_path / "keyless", SITE, tmp_path / "made.backup", NOON_S, nothing)
    assert not (tmp_path / "made.backup").exists()


def test_the_commands_save_and_restore_and_say_what(tmp_path, capsys):
    holes = json.dumps([f"n-{row:02}-{col:02}" for row in range(3) for col in range(4) if (row, col) not in SITE.cells])
    (tmp_path / "site.toml").write_text(f'name = "{SITE.name}"\nrows = 3\ncols = 4\nholes = {holes}\n')
    config, file = tmp_path / "gateway.toml", tmp_path / "a.backup"
    config.write_text('site = "site.toml"\nspec = "lean"\nstate = "first"\n')
    make_state(tmp_path / "first")
    assert 0 == cli.backup_state(file, config, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (str(file), SITE.name, 7, 1) == (facts["file"], facts["site"], facts["run"], facts["nodes"])
    with pytest.raises(BackupError, match="write --replace to move it aside"):
        cli.restore_state(file, config)
    config.write_text('site = "site.toml"\nspec = "lean"\nstate = "second"\n')
    assert 0 == cli.restore_state(file, config)
    assert "up to run 1007, key, configuration of 1 nodes" in capsys.readouterr().out
    assert CYCLES == len(cycles_of(tmp_path / "second"))
