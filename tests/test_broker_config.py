"""`thermesh broker config`: with its files a real mosquitto lets everybody do their part, and nothing else (P7)."""

import base64
import json
import re
import socket
import stat
import subprocess
from contextlib import nullcontext
from unittest.mock import MagicMock

import pytest
from broker_bench import WAIT_S_MAX, free_ports, needs_mosquitto
from guarded_bench import (
    ABOVE,
    CELLS,
    END,
    OBSERVER,
    OF_NODES,
    SITE_FILE,
    TLS_HEAP,
    TOPICS,
    Client,
    Guarded,
    gateway_of,
    generate,
    guarded_site,
    may_publish,
    may_read,
    name_of,
    on_cpython,
    running,
    secrets_of,
    write_site,
)
from mesh_in_memory import make_model, make_site
from real_mesh import HEAP

from gateway import certificates, passwords
from gateway.broker import LOOPBACK, BrokerError, open_broker
from gateway.passwords import Login, PasswordsError, password_line, psk_of
from gateway.site import load_site
from tools.broker_config import FILES, ListenError
from tools.cli import FINE, app
from tools.gateway import run_gateway

NO_ADDRESS = "is no address; write one like 192.168.1.10, or a name"
NO_PASSWORDS = ["", "[]", "{", '{"gateway": 3}', '{"gateway": "a b"}', '{"gateway": ""}', "[" * 99_999]


@pytest.fixture
def config(tmp_path):
    return write_site(tmp_path)


@pytest.fixture(scope="module")
def broker_of_site(tmp_path_factory):
    config, port = write_site(tmp_path_factory.mktemp("site")), free_ports(len(ABOVE))
    folder = generate(config, port)
    with running(folder, port):
        yield Guarded(port, config)


@pytest.fixture
def guarded(broker_of_site, request):
    broker_of_site.kind = getattr(request, "param", "plain")
    yield broker_of_site
    broker_of_site.close()


on_each_listener = pytest.mark.parametrize("guarded", ABOVE, indirect=True)


# Who may do what


@needs_mosquitto
@on_each_listener
def test_of_all_users_and_topics_exactly_what_the_table_allows_can_be_published(guarded):
    assert set(guarded.passwords) == {"gateway", *(name_of(*cell) for cell in CELLS)}
    observer = guarded.client(OBSERVER.user)
    observer.subscribe(["#"])
    for user in guarded.users:
        guarded.client(user).publish([(topic, user) for topic in TOPICS])
    observer.publish([(END, END)])
    observer.wait_for((END, END))  # behind all that was let through
    allowed = {(user, topic) for user, topic in may_publish() if user in guarded.users}
    assert allowed == {(user, topic) for topic, user in observer.seen} - {(END, END)}


@needs_mosquitto
@on_each_listener
@pytest.mark.parametrize("retained", [False, True])
def test_of_all_users_and_topics_exactly_what_the_table_allows_can_be_read(guarded, retained):
    observer = guarded.client(OBSERVER.user)
    clients = [guarded.client(user) for user in guarded.users]
    if retained:
        observer.publish([(topic, "said") for topic in TOPICS], retain=True)
    for client in clients:
        client.subscribe(["#", *sorted(TOPICS), "$SYS/#"])
    if not retained:
        observer.publish([(topic, "said") for topic in TOPICS])
    for client in clients:  # the last message of each comes behind all others
        last = "tm/1/memory/n/n-00-00/up" if client.user == "gateway" else "tm/1/memory/cycle"
        observer.publish([(last, END)])
        client.wait_for((last, END))
    seen = {(client.user, topic) for client in clients for topic, payload in client.seen if payload == "said"}
    observer.publish([(topic, "") for topic in TOPICS], retain=True)
    assert {(user, topic) for user, topic in may_read() if user in guarded.users} == seen
    assert set() == {topic for client in clients for topic, _ in client.seen if topic.startswith("$")}


@needs_mosquitto
def test_the_last_will_of_a_node_is_heard_by_the_gateway_and_one_in_anothers_name_is_not(guarded):
    gateway = guarded.client("gateway")
    gateway.subscribe(["tm/1/memory/n/+/state"])
    for topic in ("tm/1/memory/n/n-01-01/state", "tm/1/memory/n/n-00-00/state"):
        leave_a_will(guarded, "n-00-00", topic)
    gateway.wait_for(("tm/1/memory/n/n-00-00/state", "lost"))
    assert ("tm/1/memory/n/n-01-01/state", "lost") not in gateway.seen


def leave_a_will(guarded, user, topic):
    """Connect with a will, and let the connection break."""
    words = [b"client", topic.encode(), b"lost", user.encode(), guarded.passwords[user].encode()]
    body = b"\x00\x04MQTT\x04\xc6\x00\x3c" + b"".join(len(word).to_bytes(2, "big") + word for word in words)
    with socket.create_connection((LOOPBACK, guarded.port), WAIT_S_MAX) as link:
        link.sendall(bytes((0x10, len(body))) + body)
        link.recv(4)


# Who is let in


@needs_mosquitto
@pytest.mark.parametrize(
    ("user", "password"),
    [("n-00-00", "wrong"), ("n-00-00", ""), ("n-00-00", None), ("n-00-01", "x"), ("", ""), ("n-00-00", "of n-00-02")],
)
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_without_the_right_password_nobody_is_let_in(guarded, listener, user, password):
    password = guarded.passwords["n-00-02"] if password == "of n-00-02" else password
    authority = guarded.authority if listener == "tls" else ""
    client = Client(guarded.port + ABOVE[listener], user, password, authority=authority)
    client.close()
    assert "Not authorized" == str(client.answer)


@needs_mosquitto
@pytest.mark.parametrize(
    ("user", "of"), [("n-00-00", "nobody"), ("n-00-00", "n-00-02"), ("gateway", "gateway"), ("n-00-01", "n-00-00")]
)
def test_without_the_right_key_nobody_is_let_in(guarded, user, of):
    password = guarded.passwords.get(of, "")
    client = Client(guarded.port + ABOVE["psk"], user, password, psk=(user, psk_of(password)))
    client.close()
    assert (None, True) == (client.answer, client.lost)


@needs_mosquitto
@pytest.mark.parametrize("listener", ["tls", "psk"])
def test_a_listener_for_tls_hears_nothing_that_is_not_encrypted(guarded, listener):
    client = Client(guarded.port + ABOVE[listener], "n-00-00", guarded.passwords["n-00-00"])
    client.close()
    assert (None, True) == (client.answer, client.lost)


@needs_mosquitto
@on_each_listener
def test_nobody_is_thrown_out_by_who_takes_its_client_id(guarded):
    first = guarded.client("n-00-00", client_id="memory-n-00-00")
    first.subscribe(["tm/1/memory/cycle"])
    second = guarded.client("n-00-02", client_id="memory-n-00-00")
    second.publish([("tm/1/memory/n/n-00-02/up", "x")])
    guarded.kind = "plain" if guarded.kind == "psk" else guarded.kind
    guarded.client("gateway", client_id="n-00-00").publish([("tm/1/memory/cycle", "beacon")])
    first.wait_for(("tm/1/memory/cycle", "beacon"))
    assert not first.lost


@needs_mosquitto
def test_mosquittos_own_tool_writes_the_same_line_for_the_same_salt(tmp_path):
    file = tmp_path / "theirs"
    subprocess.run(["mosquitto_passwd", "-c", "-b", file, "n-00-00", "secret"], check=True, capture_output=True)
    line = file.read_text().strip()
    assert line == password_line("n-00-00", "secret", base64.b64decode(line.split("$")[3]))


# What the command writes


@needs_mosquitto
def test_mosquitto_takes_the_files_for_a_site_of_one_node_in_a_folder_with_blanks(tmp_path):
    config, port = write_site(tmp_path, 'name = "hut"\nrows = 1\ncols = 1\n'), free_ports(len(ABOVE))
    generate(config, port, "--out", str(tmp_path / "a b  c"))
    with running(tmp_path / "a b  c", port):
        client = Client(port, "n-00-00", secrets_of(config)["n-00-00"])
        client.close()
    assert "Success" == str(client.answer)


def test_a_second_run_keeps_every_password_and_every_line(config):
    folder = generate(config, 1883)
    before = {file.name: file.read_bytes() for file in folder.parent.rglob("*") if file.is_file()}
    generate(config, 1883)
    assert before == {file.name: file.read_bytes() for file in folder.parent.rglob("*") if file.is_file()}
    assert {*FILES, "passwords.json", "broker-ca.pem"} == set(before)


def test_each_user_has_a_password_of_its_own_that_only_the_owner_of_the_files_can_read(config):
    folder = generate(config, 1883)
    assert {"gateway", *(name_of(*cell) for cell in CELLS)} == set(secrets_of(config))
    assert len(CELLS) + 1 == len(set(secrets_of(config).values()))
    assert {32} == {len(password) for password in secrets_of(config).values()}
    files = [folder / name for name in ("passwords", "psk", "broker.pem")]
    files += [folder.parent / name for name in (passwords.NAME, certificates.NAME)]
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in files}


def test_passwords_from_a_backup_are_closed_to_others_again(config):
    generate(config, 1883)
    file = config.parent / "state" / passwords.NAME
    file.chmod(0o644)
    passwords.load(file.parent, load_site(config.parent / "site.toml"))
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_no_password_is_printed_or_stands_in_a_file_of_mosquittos(config, capsys):
    folder = generate(config, 1883)
    generate(config, 1883, "--json")
    said = capsys.readouterr()
    texts = [said.out, said.err, *(file.read_text() for file in folder.iterdir())]
    assert not [password for password in secrets_of(config).values() for text in texts if password in text]


def test_one_node_gets_a_new_password_and_all_others_keep_theirs(config, capsys):
    folder = generate(config, 1883)
    before, lines = secrets_of(config), (folder / "passwords").read_text().splitlines()
    capsys.readouterr()
    generate(config, 1883, "--renew", "n-01-01", "--json")
    assert ["n-01-01"] == json.loads(capsys.readouterr().out)["new_passwords"]
    changed = {user for user, password in secrets_of(config).items() if password != before[user]}
    anew = set((folder / "passwords").read_text().splitlines()) - set(lines)
    assert ({"n-01-01"}, ["n-01-01"]) == (changed, [line.partition(":")[0] for line in anew])


def test_a_node_that_left_the_site_is_let_in_no_more_and_comes_back_with_its_password(config):
    folder = generate(config, 1883)
    before = secrets_of(config)
    write_site(config.parent, SITE_FILE.replace('"n-00-01"', '"n-02-02"'))  # and another one came
    generate(config, 1883)
    assert not [file for file in folder.iterdir() if "n-02-02" in file.read_text()]
    write_site(config.parent)
    generate(config, 1883)
    assert before.items() <= secrets_of(config).items()
    assert "n-02-02:$7$" in (folder / "passwords").read_text()


@pytest.mark.parametrize(
    ("words", "tls", "psk", "plain"),
    [
        ((), "127.0.0.1:1884", "127.0.0.1:1885", "127.0.0.1:1883"),
        (("--listen", "192.168.1.10"), "192.168.1.10:1884", "192.168.1.10:1885", "127.0.0.1:1883"),
        (("--listen", "192.168.1.10", "--plain"), "192.168.1.10:1884", "192.168.1.10:1885", "192.168.1.10:1883"),
        (("--listen", "::1", "--plain"), "[::1]:1884", "[::1]:1885", "[::1]:1883"),
    ],
)
def test_the_answer_says_where_it_listens_and_what_is_not_encrypted(config, capsys, words, tls, psk, plain):
    folder = generate(config, 1883, *words)
    told = [line for line in capsys.readouterr().out.splitlines() if "TLS" in line or "not encrypted" in line]
    assert [tls, psk, plain] == [line.split(": ")[0] for line in told]
    exposed = plain.startswith("192")
    assert exposed == ("whoever hears the wire reads passwords and readings; use one that you trust" in told[-1])
    assert exposed == ("on the loopback only" not in told[-1])
    generate(config, 1883, *words, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert (tls, psk, plain, exposed) == tuple(facts[name] for name in ("tls", "psk", "plain", "exposed"))
    found = re.findall("^listener ([0-9]+) (.*)$", (folder / "mosquitto.conf").read_text(), re.MULTILINE)
    assert [plain, tls, psk] == [f"[{where}]:{port}" if ":" in where else f"{where}:{port}" for port, where in found]
    assert f"mosquitto -c {folder}/mosquitto.conf" == facts["start"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--renew", "n-00-01"), "--renew 'n-00-01': is none of ours; write gateway, or a node of site memory like n-"),
        (("--listen", "a b"), f"--listen 'a b': {NO_ADDRESS}"),
        (("--listen", "x\nuser root"), rf"--listen 'x\nuser root': {NO_ADDRESS}"),
        (("--listen", ""), f"--listen '': {NO_ADDRESS}"),
        (("--tls-port", "1882"), "--port 1883: --tls-port takes 1882 and 1883; write another one"),
        (("--out", "new\nline"), "mosquitto reads no such name; name another folder"),
        (("--out", "site.toml"), "site.toml: File exists; name a folder that can be written"),
    ],
)
def test_what_cannot_be_written_names_option_value_and_remedy(config, monkeypatch, words, line):
    monkeypatch.chdir(config.parent)
    with pytest.raises((ListenError, PasswordsError)) as caught:
        generate(config, 1883, *words)
    assert line in str(caught.value)
    assert str(caught.value).startswith(("--listen", "--out", "--port", "--renew"))
    assert 1 == len(str(caught.value).splitlines())


@pytest.mark.parametrize("text", NO_PASSWORDS)
def test_a_damaged_file_of_passwords_is_named_and_left_as_it_is(config, text):
    file = config.parent / "state" / passwords.NAME
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(PasswordsError, match=r"passwords\.json: holds no passwords by user name; put it back from a "):
        generate(config, 1883)
    assert text == file.read_text()


# What the gateway does with them


@needs_mosquitto
@pytest.mark.parametrize(
    ("login", "reason"),
    [
        (
            Login("gateway", "wrong"),
            "it refuses user gateway with the password in the state folder; "
            "start it anew with what `thermesh broker config` writes",
        ),
        (
            None,
            "it refuses clients without a user name; make user names and passwords with `thermesh broker config`",
        ),
    ],
)
def test_a_gateway_that_is_refused_is_told_why_and_what_to_do(guarded, login, reason, tmp_path):
    with pytest.raises(BrokerError) as caught:
        open_broker(f"127.0.0.1:{guarded.port}", tmp_path, login)
    assert f"--broker 127.0.0.1:{guarded.port}: {reason}, or use --broker auto" == str(caught.value)


@pytest.mark.parametrize("own", [True, False])
def test_the_gateway_and_nodes_use_what_the_broker_was_reached_with(config, monkeypatch, own):
    generate(config, 1883)
    if not own:
        config.write_text(config.read_text() + 'broker = "127.0.0.1:1"\n')
    asked = Login("gateway", "word")
    outside, links = MagicMock(host="host", port=1, login=asked, encryption="none"), []
    outside.name = "none"
    monkeypatch.setattr("tools.gateway.choose_model", lambda spec, site, _seed, _stage: make_model(spec, site))
    opened = []
    monkeypatch.setattr("tools.gateway.open_broker", lambda *given, **named: opened.append((given, named)) or outside)
    monkeypatch.setattr("tools.gateway.Link", lambda *given: links.append(given) or nullcontext(outside))
    monkeypatch.setattr("gateway.service.serve", lambda *_: None)
    run_gateway(config, 1, False, lambda _name: lambda *_: None)
    known = secrets_of(config)
    assert [("host", 1, "memory", asked)] == links
    ((given, named),) = opened
    if own:
        assert (known, 2) == (named["guests"].passwords, len(given))
    else:
        assert (("gateway", known["gateway"]), None, {}) == (given[2][:2], given[3], named)
    files = [config.parent / "state" / "nodes" / f"{name_of(*cell)}.json" for cell in CELLS]
    written = [json.loads(file.read_text())["password"] for file in files]
    assert written == [known[name_of(*cell)] for cell in CELLS]
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in files}


def test_a_gateway_whose_site_has_got_a_node_without_a_password_says_what_to_run(config):
    generate(config, 1883)
    write_site(config.parent, SITE_FILE.replace('"n-00-01", ', ""))
    line = r"passwords\.json: has none for n-00-01; run `thermesh broker config` again, and start the broker with what"
    with pytest.raises(PasswordsError, match=line):
        passwords.load(config.parent / "state", load_site(config.parent / "site.toml"))


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False])
def test_real_nodes_and_a_gateway_pass_cycles_and_new_filters_on_through_a_guarded_broker(tmp_path, plain):
    """What they need is allowed: files as the gateway writes them, both runtimes, a wave to its end."""
    with guarded_site(tmp_path, 1, 3, plain) as (config, observer, start):
        nodes = config.parent / "state" / "nodes"
        mesh = start(make_site(1, 2), HEAP if plain else TLS_HEAP)
        with on_cpython(nodes / "n-00-02.json"):
            for cell in ((0, 0), (0, 1), (0, 2)):
                observer.wait_for((OF_NODES[cell, "state"], "ready"))
            assert FINE == app(["filters", "push", "--config", str(config), "--json"], standalone_mode=False)
            cycles = gateway_of(config, 12)
        assert [] == mesh.problems()
        said = {topic for topic, _ in observer.seen}
        facts = {topic: json.loads(payload) for topic, payload in observer.seen if topic.endswith("/about")}
    leaves = ("halo", "up", "wave", "state", "about")
    assert {OF_NODES[(0, col), leaf] for col in range(3) for leaf in leaves} <= said
    whole = [cycle for cycle in cycles if not any(None in row for row in cycle["features"])]
    assert 2 in [cycle["filter_version"] for cycle in whole]
    how = ["none"] * 3 if plain else ["psk", "psk", "certificate"]
    assert how == [facts[OF_NODES[(0, col), "about"]]["encryption"] for col in range(3)]


@needs_mosquitto
@pytest.mark.slow
def test_25_micropython_nodes_with_keys_run_exact_cycles_and_one_with_a_wrong_key_takes_no_part(tmp_path):
    with guarded_site(tmp_path, 2, 13, plain=False) as (config, observer, start):
        stranger = config.parent / "state" / "nodes" / "n-01-12.json"
        stranger.write_text(json.dumps(json.loads(stranger.read_text()) | {"psk": "0" * 64}))
        mesh = start(make_site(2, 13), TLS_HEAP)
        for cell in make_site(2, 13, [(1, 12)]).cells:
            observer.wait_for((f"tm/1/memory/n/{name_of(*cell)}/state", "ready"))
        lines = gateway_of(config, 6, as_json=False)
        assert [] == mesh.problems()
        assert set() == {topic for topic, _ in observer.seen if "n-01-12" in topic}
    found = [re.search(r"(\d+) nodes?, \d+ late, (\d+) of (\d+) features exact", line).groups() for line in lines]
    nodes, equal, compared = zip(*((int(a), int(b), int(c)) for a, b, c in found), strict=True)
    assert equal == compared
    assert (25, 6) == (max(nodes), len(nodes))
    assert max(compared) > 0
