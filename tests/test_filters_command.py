"""`thermesh filters`: what is in use and on its way is shown, node by node; orders are placed, or refused by name."""

import hashlib
import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh_in_memory import make_model, make_site
from model_file_mutations import mutated, parts_of, sealed
from store_bench import NOON_S, new_store

from gateway import keys, model_file, running
from gateway.broker import find_mosquitto
from gateway.model import SPECS, Model
from gateway.start_weights import start_filters
from gateway.store import ACTIVE, PUSHED, REFUSED, RETIRED, Store, StoredModel
from protocol import filter_set
from protocol.grid import node_name
from tools.cli import FINE, app

SITE = make_site(2, 3, {(1, 1)})
LEAN = make_model("lean", SITE)
# Of one second each; a roll-out on a machine without other work takes six.
CYCLES_MAX = 100
FILTERS_PUSH = ("filters", "push", "--file")
LEARNING = {"state": "waiting", "cycles_left": 7, "done": 0, "steps": 0, "last": ""}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "site.toml").write_text('name = "memory"\nrows = 2\ncols = 3\nholes = ["n-01-01"]\ncycle_s = 1\n')
    path = tmp_path / "gateway.toml"
    path.write_text('site = "site.toml"\nspec = "lean"\nstate = "kept"\nbroker = "mosquitto"\n')
    return path


@pytest.fixture
def store(config):
    keys.load_or_make(config.parent / "kept")
    with new_store(config.parent / "kept", LEAN, SITE) as opened:
        yield opened


def add(store, version, status, reference_ccel, model=LEAN, **fields):
    """A model that its reference tells from others."""
    filters = replace(model.filters, version=version, reference_ccel=reference_ccel)
    model = Model(model.spec_name, filters, replace(model.head, revision=version))
    store.add_model(StoredModel(model, filters.pack(SITE.name), status, NOON_S, **fields))


def thermesh(config, word, *words):
    return app(["filters", word, "--config", str(config), *map(str, words)], standalone_mode=False)


def answer(capsys, config, word, *words):
    assert FINE == thermesh(config, word, *words, "--json")
    return json.loads(capsys.readouterr().out)


def said(rollout, **nodes):
    """What a service wrote; nodes by name: (filters, highest, phase)."""
    held = dict.fromkeys(node_name(*cell) for cell in SITE.cells)
    for name, (filters, highest, phase) in nodes.items():
        held[name.replace("_", "-")] = {"filters": filters, "highest": highest, "phase": phase, "refused": 0}
    return {"run": 1, "cycle": 9, "model": {}, "rollout": rollout, "nodes": held, "learning": LEARNING}


# Status


@pytest.mark.parametrize(
    ("encryption", "line"),
    [
        (
            {"gateway": "certificate", "nodes": {"unknown": 1, "psk": 24, "none": 2}},
            "broker    gateway by TLS with a certificate; nodes: 2 NOT ENCRYPTED, 24 by TLS with a key, 1 unknown",
        ),
        ({"gateway": "none", "nodes": {}}, "broker    gateway NOT ENCRYPTED; nodes: none heard yet"),
    ],
)
def test_the_status_says_which_connections_are_encrypted(store, config, capsys, encryption, line):
    running.write(config.parent / "kept", said(None) | {"encryption": encryption})
    assert encryption == answer(capsys, config, "status")["encryption"]
    thermesh(config, "status")
    assert line in capsys.readouterr().out.splitlines()


def test_a_site_that_never_ran_has_no_filters(config):
    with pytest.raises(ValueError, match=r"thermesh\.db: there is no store yet; run `thermesh gateway`"):
        thermesh(config, "status")


def test_before_a_node_was_heard_only_the_store_speaks(store, config, capsys):
    found = answer(capsys, config, "status")
    assert (False, None) == (found["running"], found["learning"])
    assert {"filters": 1, "head": 1, "spec": "lean"} == found["active"]
    assert ("decides", 5) == (found["rollout"]["state"], found["rollout"]["nodes"]["unheard"])
    assert {
        "filters": 1,
        "head": 1,
        "spec": "lean",
        "status": "active",
        "created": "2023-11-14T22:13:20+00:00",
        "accuracy_before": None,
        "accuracy_after": None,
        "note": "",
    } == found["models"][0]


def test_each_node_is_shown_as_far_as_it_is(store, config, capsys):
    add(store, 2, PUSHED, 0)
    nodes = {
        "n_00_00": (1, 2, "staged"),
        "n_00_01": (2, 2, "trial"),
        "n_00_02": (2, 2, "confirmed"),
        "n_01_00": (1, 2, "returned"),
    }
    running.write(config.parent / "kept", said({"filters": 2, "state": "on its way"}, **nodes))
    found = answer(capsys, config, "status")
    assert ["staged", "trial", "confirmed", "returned", "unheard"] == [node["word"] for node in found["nodes"].values()]
    counts = {"confirmed": 1, "trial": 1, "staged": 1, "returned": 1, "older": 0, "unheard": 1}
    assert {"filters": 2, "state": "on its way", "nodes": counts} == found["rollout"]
    assert {"filters": 1, "highest": 2, "phase": "staged", "refused": 0, "word": "staged"} == found["nodes"]["n-00-00"]


def test_a_node_with_filters_from_before_is_older(store, config, capsys):
    add(store, 2, ACTIVE, 0)
    nodes = {"n_00_00": (1, 1, "confirmed"), "n_00_01": (1, 3, "staged")}
    running.write(config.parent / "kept", said({"filters": 2, "state": "decides"}, **nodes))
    found = answer(capsys, config, "status")["nodes"]
    assert ["older", "older"] == [found[name]["word"] for name in ("n-00-00", "n-00-01")]


def test_nodes_that_misbehave_are_named(store, config, capsys):
    faults = {"n-00-01": {"malformed": 104, "flood": 9}, "n-00-02": {"double": 1}}
    running.write(config.parent / "kept", said(None) | {"quarantine": {"n-00-01": 9}, "faults": faults})
    found = answer(capsys, config, "status")
    assert ({"n-00-01": 9}, faults) == (found["quarantine"], found["faults"])
    assert FINE == thermesh(config, "status")
    lines = capsys.readouterr().out.splitlines()
    assert "flood     n-00-01 sends more than it can need and is not listened to: 9 messages dropped" in lines
    assert "faults    n-00-01: 104 malformed, 9 flood" in lines
    assert "faults    n-00-02: 1 double" in lines


def test_an_order_that_no_service_has_seen_yet_is_waiting(store, config, capsys):
    running.write(config.parent / "kept", said({"filters": 1, "state": "decides"}, n_00_00=(1, 1, "confirmed")))
    add(store, 2, PUSHED, 0)
    found = answer(capsys, config, "status")
    assert (2, "waiting", 1) == (*list(found["rollout"].values())[:2], found["rollout"]["nodes"]["older"])


def test_people_see_the_site_as_a_picture_and_every_model_with_its_accuracies(store, config, capsys):
    add(store, 2, REFUSED, 0, accuracy_before=0.975, accuracy_after=0.95, note="not better")
    running.write(config.parent / "kept", said({"filters": 1, "state": "decides"}, n_00_00=(1, 1, "confirmed")))
    with running.claim(config.parent / "kept"):
        thermesh(config, "status")
    lines = capsys.readouterr().out.splitlines()
    assert ["gateway   runs", "in use    filters 1 with head 1, spec lean"] == lines[:2]
    assert "newest    filters 1: decides; nodes: 1 confirmed, 4 unheard" == lines[2]
    assert ["# ? ?", "?   ?"] == [line.strip() for line in lines[3:5]]
    assert "learning  again after 7 more cycles" == lines[6]
    assert "2 2 refused 2023-11-14T22:13:20 97.50 % 95.00 % not better".split() == lines[-1].split()


def test_a_store_that_takes_no_cycles_is_shown_and_so_is_a_service_that_cannot_say(store, config, capsys):
    state = config.parent / "kept"
    fault = f"{state}/thermesh.db: the disk is full; free some space"
    running.write(state, said(None) | {"store": {"unstored": 3, "fault": fault}})
    assert {"unstored": 3, "fault": fault} == answer(capsys, config, "status")["store"]
    with running.claim(state):
        thermesh(config, "status")
        (state / running.FACTS).unlink()
        thermesh(config, "status")
    lines = capsys.readouterr().out.splitlines()
    assert ["gateway   runs", f"store     takes no cycles, 3 since the start: {fault}"] == lines[:2]
    assert "gateway   runs, and has not written down how things stand: see its log" in lines


@pytest.mark.parametrize(("late", "gaps", "line"), [(0, 0, []), (2, 1, ["2 in no cycle and 1 gaps since the start"])])
def test_reports_that_are_in_no_cycle_and_gaps_among_them_are_shown(store, config, capsys, late, gaps, line):
    running.write(config.parent / "kept", said(None) | {"reports": {"late": late, "gaps": gaps}})
    assert {"late": late, "gaps": gaps} == answer(capsys, config, "status")["reports"]
    thermesh(config, "status")
    lines = capsys.readouterr().out.splitlines()
    assert line == [text.removeprefix("reports   ") for text in lines if text.startswith("reports")]


# Orders


def test_a_push_sends_the_filters_in_use_again_under_the_next_version(store, config, capsys):
    done = answer(capsys, config, "push")
    assert {"filters": 2, "head": 2, "source": "weights of filters 1 again", "running": False} == done
    placed = store.model(2, 2)
    assert (PUSHED, "weights of filters 1 again") == (placed.status, placed.note)
    key = keys.load_or_make(config.parent / "kept").public_key()
    key.verify(placed.filter_set[-64:], hashlib.sha256(placed.filter_set[:-64]).digest())


def test_a_push_sends_a_stored_model_again_even_a_refused_one(store, config, capsys):
    add(store, 2, REFUSED, 1_111)
    add(store, 3, REFUSED, 2_222)
    assert (4, 4) == tuple(answer(capsys, config, "push", "--version", 2).values())[:2]
    assert 1_111 == store.model(4, 4).model.filters.reference_ccel


def test_a_push_of_a_file_keeps_the_head_that_is_in_use(store, config, capsys):
    file = config.parent / "7.json"
    file.write_text(json.dumps(replace(LEAN.filters, version=7, reference_ccel=3_333).as_json()))
    assert "from file 7.json" == answer(capsys, config, "push", "--file", file)["source"]
    found = store.model(2, 2).model
    assert 3_333 == found.filters.reference_ccel
    assert found.head.layers[0][0].tolist() == LEAN.head.layers[0][0].tolist()


def test_a_push_is_numbered_above_what_nodes_hold(store, config, capsys):
    running.write(config.parent / "kept", said(None, n_00_00=(1, 40, "staged")))
    assert 41 == answer(capsys, config, "push")["filters"]


def test_a_rollback_sends_the_weights_before_under_the_next_version(store, config, capsys):
    add(store, 2, ACTIVE, 2_222)
    add(store, 3, REFUSED, 3_333)
    add(store, 4, ACTIVE, 4_444)
    done = answer(capsys, config, "rollback")
    assert (5, 5, "back to the weights of filters 2") == tuple(done.values())[:3]
    assert 2_222 == store.model(5, 5).model.filters.reference_ccel
    assert [(1, 1), (2, 2)] == store.model_keys(RETIRED)


def test_a_rollback_passes_over_weights_that_were_only_sent_again(store, config, capsys):
    add(store, 2, ACTIVE, 2_222)
    for version in (3, 4, 5):
        add(store, version, ACTIVE, 4_444)
    assert "back to the weights of filters 2" == answer(capsys, config, "rollback")["source"]


def test_a_rollback_of_what_does_not_decide_yet_sends_the_filters_in_use(store, config, capsys):
    add(store, 2, ACTIVE, 2_222)
    add(store, 3, PUSHED, 3_333)
    assert "back to the weights of filters 2" == answer(capsys, config, "rollback")["source"]
    assert [(3, 3), (4, 4)] == store.model_keys(PUSHED)


@pytest.mark.parametrize("word", ["push", "rollback"])
def test_an_order_says_whether_a_gateway_runs_that_carries_it_out(store, config, capsys, word):
    add(store, 2, ACTIVE, 0)
    thermesh(config, word)
    assert capsys.readouterr().out.endswith("no gateway runs with this file now, they are sent at its next start\n")
    with running.claim(config.parent / "kept"):
        thermesh(config, word)
    assert "ordered; the gateway sends them, `thermesh filters status` shows how far" in capsys.readouterr().out


NO_FILTERS = '{"version": 1}'
WRONG = {
    "no such version": (("push", "--version", 9), None, "--version: 9 is not stored; there are 1, 2$"),
    "two sources": (("push", "--version", 1, "--file", "FILE"), "{}", "--version 1, --file .*: name one of the two"),
    "no file": (("push", "--file", "FILE"), None, r"f\.json: cannot be read: No such file.*; name a JSON file"),
    "no JSON": (("push", "--file", "FILE"), "hello", r"f\.json: is no JSON: .*; write filters as `thermesh demo"),
    "deep": (("push", "--file", "FILE"), "[" * 100_000, r"f\.json: is no JSON"),
    "long": (("push", "--file", "FILE"), " " * (1 << 20) + "1", r"f\.json: is no JSON: is longer than 1048576 bytes"),
    "no filters": (("push", "--file", "FILE"), NO_FILTERS, r"f\.json: filters: does not have exactly the fields"),
    "another spec's": (
        ("push", "--file", "FILE"),
        json.dumps(make_model("seed", SITE).filters.as_json()),
        r"f\.json: filters: .* are not of spec lean",
    ),
    "a stored one of another spec": (("push", "--version", 2), None, "spec: these weights are of seed, the gateway"),
    "nothing before": (("rollback",), None, "no model was active before the one in use; `thermesh filters status`"),
}


@pytest.mark.parametrize(("words", "text", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_named_and_orders_nothing(store, config, words, text, line):
    add(store, 2, REFUSED, 0, make_model("seed", SITE))
    file = config.parent / "f.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=line) as caught:
        thermesh(config, *(file if word == "FILE" else word for word in words))
    assert "\n" not in str(caught.value)
    assert [] == store.model_keys(PUSHED)


# All of it, for real


class Site:
    """A real `thermesh gateway` with a mosquitto of its own, and five real nodes in a CPython process."""

    def __init__(self, config, stack):
        self._config, self._stack = config, stack

    def gateway(self):
        self._gateway = self._stack.enter_context(started("-m", "tools.cli", "gateway", *self._file, "--json"))
        self.cycle()  # then each node's file is there

    def nodes(self):
        self._host = self._stack.enter_context(started("-m", "tools.mesh.cpython_host"))
        names = [node_name(*cell) for cell in SITE.cells]
        folder = self._config.parent / "kept" / "nodes"
        self._host.stdin.write(json.dumps({"start": names, "folder": str(folder)}) + "\n")
        self._host.stdin.flush()

    def stop(self):
        self._host.stdin.close()
        self._host.wait(30)
        self._gateway.terminate()
        assert 130 == self._gateway.wait(30)

    def cycle(self):
        """The next decision, as the gateway prints it."""
        return json.loads(self._gateway.stdout.readline())

    def thermesh(self, *words):
        done = self._run(*words)
        assert FINE == done.returncode, done.stderr
        return json.loads(done.stdout)

    def refused(self, *words):
        """The exit code, and how many lines say why."""
        done = self._run(*words)
        return done.returncode, done.stderr.count("\n")

    def _run(self, *words):
        command = [sys.executable, "-m", "tools.cli", *words, *self._file, "--json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def cycles_until(self, condition):
        """Let cycles pass until the status is so; returns it."""
        for _ in range(CYCLES_MAX):
            self.cycle()
            if condition(found := self.thermesh("filters", "status")):
                return found
        raise AssertionError(found)

    @property
    def _file(self):
        return "--config", str(self._config)


@contextmanager
def started(*words):
    """A process of ours that does not outlive the test."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *words], text=True, **pipes) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def decided_by_all(version):
    def condition(found):
        return (found["active"]["filters"], found["rollout"]["nodes"]["confirmed"]) == (version, len(SITE.cells))

    return condition


@pytest.mark.slow
@pytest.mark.skipif(not find_mosquitto(), reason="needs mosquitto")
def test_a_live_site_goes_on_deciding_as_before_while_model_files_are_refused_and_takes_a_good_one(config, seed):
    folder = config.parent
    trusted = Ed25519PrivateKey.generate()
    filters = replace(start_filters(SPECS["lean"]), reference_ccel=2_300)
    good = model_file.pack(Model("lean", filters, LEAN.head), SITE, trusted)
    parts = parts_of(good)
    with ExitStack() as stack:
        site = Site(config, stack)
        site.gateway()
        site.nodes()
        site.cycles_until(decided_by_all(1))
        words = "filters", "import", str(folder / "model"), "--trust", keys.public_hex(trusted)
        for _, head in mutated(parts[1], 5, seed):
            (folder / "model").write_bytes(sealed([parts[0], head, parts[2]], trusted))
            assert (2, 1) == site.refused(*words)
            assert 1 == site.cycle()["filter_version"]
        (folder / "model").write_bytes(good)
        assert {"filters": 2, "head": 2, "running": True}.items() <= site.thermesh(*words).items()
        found = site.cycles_until(decided_by_all(2))
        site.stop()
    assert ["active", "retired"] == sorted(model["status"] for model in found["models"])


@pytest.mark.slow
@pytest.mark.skipif(not find_mosquitto(), reason="needs mosquitto")
def test_filters_go_to_every_node_of_a_real_site_and_back_and_the_gateway_learns_beside(config):
    config.write_text(config.read_text() + "[learning]\nevery_cycles = 6\n")
    with ExitStack() as stack:
        site = Site(config, stack)
        site.gateway()
        site.nodes()
        site.cycles_until(decided_by_all(1))
        assert 2 == site.thermesh("label", "--cycles", "0-1", "--as", "abnormal")["changed"]
        file = config.parent / "other.json"
        file.write_text(json.dumps(replace(start_filters(SPECS["lean"]), reference_ccel=2_300).as_json()))
        assert {"filters": 2, "head": 2, "running": True}.items() <= site.thermesh(*FILTERS_PUSH, str(file)).items()
        site.cycles_until(decided_by_all(2))
        assert any(2 == site.cycle()["filter_version"] for _ in range(CYCLES_MAX))  # lines wait in the pipe
        site.cycles_until(lambda found: found["learning"]["last"])
        site.stop()
        assert not site.thermesh("filters", "rollback")["running"]
        version = site.thermesh("filters", "status")["rollout"]["filters"]
        site.gateway()
        site.nodes()
        found = site.cycles_until(decided_by_all(version))
        site.stop()
    assert found["running"]
    assert "back to the weights of filters 1" == found["models"][-1]["note"]
    with Store(config.parent / "kept", SITE) as store:
        before, after = store.model(1, 1), store.model(version, found["active"]["head"])
    parts = [filter_set.unpack(stored.filter_set) for stored in (before, after)]
    assert parts[0].layers[0].weights == parts[1].layers[0].weights
