"""`thermesh node add|replace|remove`: what changes in the site's file, the state folder and the broker's files."""

import json
import re
from dataclasses import replace
from unittest.mock import Mock

import pytest

from gateway import running
from gateway.broker import BrokerError
from gateway.config import load_config
from gateway.passwords import PasswordsError, load
from gateway.site import SiteError, load_site
from gateway.store import Store
from gateway.store_schema import StoreError
from tools import gateway
from tools.cli import FINE, app

SITE_FILE = 'name = "hall"\nrows = 3\ncols = 3\nholes = ["n-02-02"]  # the door\ncycle_s = 1\n'
LEFT = ("n-01-01.json", "n-01-01.filters", "n-01-01.filters.1", "n-01-01.filters.slots")


@pytest.fixture
def config(tmp_path):
    (tmp_path / "site.toml").write_text(SITE_FILE)
    path = tmp_path / "gateway.toml"
    path.write_text('site = "site.toml"\nspec = "lean"\n')
    (tmp_path / "state" / "nodes").mkdir(parents=True)
    for name in (*LEFT, "n-01-02.json", "n-01-02.filters"):
        (tmp_path / "state" / "nodes" / name).write_text("{}")
    return path


@pytest.fixture
def guarded(config):
    assert FINE == app(["broker", "config", "--config", str(config), "--port", "2883"], standalone_mode=False)
    return config.parent / "state" / "mosquitto"


def thermesh(capsys, config, *words):
    assert FINE == app(["node", *words, "--config", str(config), "--json"], standalone_mode=False)
    out = capsys.readouterr().out
    return json.loads(out[out.rindex('{\n "node"') :])


def files(config):
    return {file.name for file in (config.parent / "state" / "nodes").iterdir()}


def site_of(config):
    return load_site(config.parent / "site.toml")


def secrets_of(config):
    return json.loads((config.parent / "state" / "passwords.json").read_text())


def test_a_node_is_added_to_the_site_and_its_neighbours_files_change(config, capsys):
    assert {
        "node": "n-02-02",
        "change": "added",
        "nodes": 9,
        "file": str(config.parent / "state" / "nodes" / "n-02-02.json"),
        "restart": ["n-01-01", "n-01-02", "n-02-01"],
        "password": None,
        "broker": None,
        "running": False,
    } == thermesh(capsys, config, "add", "n-02-02")
    assert (2, 2) in site_of(config).cells
    assert "# the door" in (config.parent / "site.toml").read_text()
    assert running.takes_order(config.parent / "state")


def test_a_node_is_removed_and_leaves_no_file(config, capsys):
    found = thermesh(capsys, config, "remove", "n-01-01")
    assert ("removed", 7, None) == (found["change"], found["nodes"], found["file"])
    assert ["n-00-00", "n-00-01", "n-00-02", "n-01-00", "n-01-02", "n-02-00", "n-02-01"] == found["restart"]
    assert {"n-01-02.json", "n-01-02.filters"} == files(config)
    assert (1, 1) not in site_of(config).cells
    assert running.takes_order(config.parent / "state")


def test_who_stands_next_to_the_gateway_instead_is_restarted_too(config, capsys):
    """It is the first cell of its part, and no neighbour of the one that goes."""
    holes = 'holes = ["n-00-01", "n-01-00", "n-01-02"]'
    (config.parent / "site.toml").write_text(f'name = "hall"\nrows = 2\ncols = 3\n{holes}\n')
    assert ["n-00-02", "n-01-01"] == thermesh(capsys, config, "remove", "n-00-00")["restart"]
    assert ["n-00-02", "n-01-01"] == thermesh(capsys, config, "add", "n-00-00")["restart"]


def test_a_replaced_node_keeps_its_place_and_sensor_and_starts_with_the_filters_in_use(config, capsys):
    found = thermesh(capsys, config, "replace", "n-01-01")
    assert ("replaced", 8, []) == (found["change"], found["nodes"], found["restart"])
    assert {"n-01-01.json", "n-01-02.json", "n-01-02.filters"} == files(config)
    assert SITE_FILE == (config.parent / "site.toml").read_text()
    assert running.takes_order(config.parent / "state")


@pytest.mark.parametrize(("change", "name"), [("add", "n-02-02"), ("replace", "n-01-01")])
def test_who_comes_has_a_password_that_nobody_knew_and_all_others_keep_theirs(guarded, config, capsys, change, name):
    before = secrets_of(config)
    found = thermesh(capsys, config, change, name)
    assert ("new", str(guarded)) == (found["password"], found["broker"])
    after = secrets_of(config)
    assert before.get(name) != after[name]
    assert {**before, name: ""} == {**after, name: ""}
    assert f"user {name}\n" in (guarded / "acl").read_text()
    assert f"\n{name}:" in (guarded / "passwords").read_text()
    assert "listener 2883 127.0.0.1\n" in (guarded / "mosquitto.conf").read_text()


def test_a_password_is_dropped_with_its_node_and_is_another_one_when_it_comes_back(guarded, config, capsys):
    before = secrets_of(config)
    assert "dropped" == thermesh(capsys, config, "remove", "n-01-01")["password"]
    assert {name: word for name, word in before.items() if name != "n-01-01"} == secrets_of(config)
    for file in ("acl", "passwords"):
        assert "n-01-01:" not in (guarded / file).read_text()
        assert "user n-01-01" not in (guarded / file).read_text()
    assert "new" == thermesh(capsys, config, "add", "n-01-01")["password"]
    assert before["n-01-01"] != secrets_of(config)["n-01-01"]


def test_files_of_a_broker_elsewhere_are_left_to_people(guarded, config, capsys):
    guarded.rename(config.parent / "elsewhere")
    assert FINE == app(["node", "replace", "n-01-01", "--config", str(config)], standalone_mode=False)
    assert "run `thermesh broker config` again with the options of before" in capsys.readouterr().out
    assert not guarded.exists()
    assert "n-01-01" in load(config.parent / "state", site_of(config))


def test_people_are_told_what_to_do_in_its_order(guarded, config, capsys):
    app(["node", "add", "n-02-02", "--config", str(config)], standalone_mode=False)
    assert [
        "n-02-02 is added; the site has 9 nodes",
        f"let the broker read {guarded} again: kill -HUP PID of mosquitto",
        "the gateway does not run: it follows at its next start",
        "then restart with their new files: n-01-01, n-01-02, n-02-01",
        f"then start it with {config.parent}/state/nodes/n-02-02.json, which the gateway writes; name its sensor there",
    ] == capsys.readouterr().out.splitlines()[-5:]
    app(["node", "replace", "n-00-00", "--config", str(config)], standalone_mode=False)
    assert f"let the broker read {guarded} again: restart mosquitto" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("add", "n-00-00"), "node: n-00-00 stands in .* already; `thermesh node replace`"),
        (("add", "n-03-00"), "node: n-03-00 lies outside, the last cell is n-02-02"),
        (("replace", "n-02-02"), "node: n-02-02 is a hole in .*; `thermesh node add` puts a node there"),
        (("replace", "x"), "node: x is no node name; write n-RR-CC"),
        (("remove", "n-02-02"), "node: n-02-02 is a hole in .* already"),
    ],
)
def test_what_cannot_be_done_is_named_and_changes_nothing(guarded, config, words, line):
    before = secrets_of(config), files(config)
    with pytest.raises(ValueError, match=line):
        app(["node", *words, "--config", str(config)], standalone_mode=False)
    assert (SITE_FILE, before) == ((config.parent / "site.toml").read_text(), (secrets_of(config), files(config)))
    assert not running.takes_order(config.parent / "state")


def test_damaged_passwords_are_named(guarded, config):
    (config.parent / "state" / "passwords.json").write_text("[")
    with pytest.raises(PasswordsError, match=r"passwords\.json: holds no passwords by user name; put it back"):
        app(["node", "replace", "n-01-01", "--config", str(config)], standalone_mode=False)


@pytest.mark.parametrize("step", ["passwords.forget", "_forget_files", "write_config", "running.order_to_follow"])
def test_a_removal_that_failed_half_way_is_ended_by_the_next_one(guarded, config, capsys, monkeypatch, step):
    with monkeypatch.context() as broken:
        broken.setattr(f"tools.nodes.{step}", Mock(side_effect=SiteError("no space")))
        with pytest.raises(SiteError, match="no space"):
            app(["node", "remove", "n-01-01", "--config", str(config)], standalone_mode=False)
    capsys.readouterr()
    if step != "running.order_to_follow":
        assert "removed" == thermesh(capsys, config, "remove", "n-01-01")["change"]
    assert not files(config) & set(LEFT)
    assert "n-01-01" not in secrets_of(config)
    assert all("n-01-01" not in (guarded / name).read_text() for name in ("passwords", "psk", "acl"))
    with pytest.raises(SiteError, match=r"is a hole in .* already"):
        app(["node", "remove", "n-01-01", "--config", str(config)], standalone_mode=False)


def test_a_site_whose_gateway_never_ran_changes_too(tmp_path, capsys):
    (tmp_path / "site.toml").write_text(SITE_FILE)
    config = tmp_path / "gateway.toml"
    config.write_text('site = "site.toml"\n')
    assert 9 == thermesh(capsys, config, "add", "n-02-02")["nodes"]
    assert {"site.toml", "gateway.toml"} == {file.name for file in tmp_path.iterdir()}


# The gateway follows


def stored(config):
    """The gateway's configuration, with the store that every gateway has that runs."""
    found = load_config(config)
    with Store(found.state, found.site, create=True):
        return found


def test_a_gateway_follows_an_order_once(config, capsys):
    before = stored(config)
    gateway._follow(config, before)
    thermesh(capsys, config, "add", "n-02-02")
    with pytest.raises(gateway._FollowError) as follow:
        gateway._follow(config, before)
    assert 9 == len(follow.value.config.site.cells)
    gateway._follow(config, before)


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("site.toml", SITE_FILE + "x = 1\n", "the site stays as it is: .*site.toml: 'x' is not a key of a site"),
        ("gateway.toml", 'site = "site.toml"\nstate = "other"\n', "stays as it is: .* names another state folder"),
        ("site.toml", SITE_FILE.replace("rows = 3", "rows = 4"), "stays as it is: .*thermesh.db: is the store of site"),
        ("state/nodes/n-00-01.json", '{"sensor": {},}', "stays as it is: .*n-00-01.json: holds no JSON object"),
    ],
)
def test_a_gateway_goes_on_as_before_where_it_cannot_follow(config, caplog, file, text, line):
    before = stored(config)
    (config.parent / file).write_text(text)
    running.order_to_follow(config.parent / "state")
    gateway._follow(config, before)
    assert re.search(line, caplog.text)
    assert not running.takes_order(config.parent / "state")


def test_a_gateway_that_cannot_start_behind_a_change_tries_again_and_says_so_once(config, monkeypatch, caplog):
    full, away = OSError(28, "full"), BrokerError("away")
    outcomes = [gateway._FollowError(load_config(config)), full, full, away]

    def serve(*_):
        if outcomes:
            raise outcomes.pop(0)

    monkeypatch.setattr(gateway, "_serve", serve)
    monkeypatch.setattr(gateway, "_AGAIN_S", 0.0)
    gateway.run_gateway(config, None, False, None)
    said = [record.getMessage() for record in caplog.records]
    assert [f"the gateway tries again each second: {what}" for what in ("[Errno 28] full", "away")] == said


@pytest.mark.parametrize("served", [0, 3])
def test_what_ends_a_gateway_behind_its_start_ends_it_behind_a_change_too(config, monkeypatch, served):
    def serve(_path, found, shown, *_):
        if not shown.count and served:
            shown.count = 1
            raise gateway._FollowError(found)
        shown.count += served
        raise StoreError("of another release")

    monkeypatch.setattr(gateway, "_serve", serve)
    with pytest.raises(StoreError, match="of another release"):
        gateway.run_gateway(config, None, False, None)


def test_a_gateway_runs_as_many_cycles_as_asked_for_whoever_comes_meanwhile(config, monkeypatch):
    left = []

    def serve(_path, found, shown, cycles, _stage):
        left.append((cycles, len(found.site.cells)))
        shown.count += 2
        if len(left) < 3:
            raise gateway._FollowError(replace(found, site=replace(found.site, cells=found.site.cells[: -len(left)])))

    monkeypatch.setattr(gateway, "_serve", serve)
    gateway.run_gateway(config, 6, False, None)
    assert [(6, 8), (4, 7), (2, 5)] == left
    left.clear()
    gateway.run_gateway(config, 2, False, None)
    assert [(2, 8)] == left
