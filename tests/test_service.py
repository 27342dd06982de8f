"""The service around the gateway: every outcome is stored before it can be acknowledged, and a fault stops nothing."""

import errno
import gc
import hashlib
import io
import itertools
import logging
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh_in_memory import Sensor, make_model, make_node, make_site
from store_bench import MODEL, SITE, active, calm, decide, new_store

from firmware.stages import TO_GATEWAY
from gateway import decision, service
from gateway.broker import Broker
from gateway.decision import LIMITS_DEFAULT, Limits
from gateway.gateway import Gateway, Timing
from gateway.head import HeadRunner
from gateway.keys import SiteKeyError, load_or_make
from gateway.model import SPECS, Head
from gateway.passwords import Login
from gateway.received import Arrivals, Gap, Key, Late, Reporter
from gateway.recompute import recompute
from gateway.store import ACTIVE, PUSHED, Store
from protocol import beacon, frame
from protocol.beacon import MODE_ALWAYS, MODE_EVENT, MODE_MASK
from tools.gateway import Shown, _broker_line, _model_in_force, _new_run, _site_key, run_gateway

RUN = 4
NOON_S = 1_700_000_000.0
ALONE = make_site(1, 1)
LONELY = make_model("lean", ALONE)


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


def recorder_of(store, limits=LIMITS_DEFAULT):
    return service.Recorder(store, RUN, limits, lambda: NOON_S)


def outcomes_of(count):
    head = HeadRunner(SPECS["lean"], MODEL.head)
    return [decide(decision.init(), calm(cycle), MODEL, head)[1] for cycle in range(count)]


def refuse_writes(store):
    store._database.execute("PRAGMA query_only = ON")


def allow_writes(store):
    store._database.execute("PRAGMA query_only = OFF")


class LinkToNobody:
    """A link to a broker without nodes; says what was in the store whenever a beacon went out."""

    def __init__(self, store):
        self.stored_at_beacon = []
        self._store = store

    def publish_beacon(self, data):
        stored = [one.outcome.record.cycle for one in self._store.latest_cycles(99)]
        self.stored_at_beacon.append((beacon.unpack(data).cycle, stored))

    def next_message(self, _timeout_s):
        return None


def beside(shown):
    return service.Beside(lambda outcome: shown.append(outcome.record.cycle), lambda: None)


def test_every_outcome_is_in_the_store_before_the_next_beacon(store):
    gateway, link, shown = Gateway(SITE, MODEL, Timing(60_000, 1, 1, 1), RUN), LinkToNobody(store), []
    service.serve(gateway, link, recorder_of(store), beside(shown), 0, 3)
    assert [(0, []), (1, [0]), (2, [0, 1])] == link.stored_at_beacon
    assert [0, 1, 2] == shown
    assert (RUN, NOON_S) == (store.cycle(RUN, 2).run, store.cycle(RUN, 2).at_s)


def test_cycles_are_decided_and_shown_though_the_store_takes_none(store):
    gateway, link, shown = Gateway(SITE, MODEL, Timing(60_000, 1, 1, 1), RUN), LinkToNobody(store), []
    refuse_writes(store)
    recorder = recorder_of(store)
    service.serve(gateway, link, recorder, beside(shown), 0, 3)
    assert ([0, 1, 2], 3, 0) == (shown, recorder.unstored, recorder.stored)


class LinkToNode:
    """A link to a real node that stands alone; the store takes no cycle whose number is in `refused`."""

    def __init__(self, store, refused):
        self.beacons, self.reported = [], []
        self._store, self._refused = store, refused
        self._node = make_node(ALONE, (0, 0), LONELY.filters, Sensor([2000] * 9))
        self._messages = []

    def publish_acknowledgement(self, _cell, data):
        self._node.on_acknowledgement(data)

    def publish_beacon(self, data):
        cycle = beacon.unpack(data).cycle
        (refuse_writes if cycle in self._refused else allow_writes)(self._store)
        self.beacons.append(data)
        self._node.on_frame(data, cycle)
        for destination, sent in self._node.poll(cycle)[0]:
            if destination == TO_GATEWAY and frame.kind_of(sent) == frame.REPORT:
                self.reported.append((cycle, frame.cycle_of(sent, cycle)))
                self._messages.append(("tm/1/memory/n/n-00-00/up", sent))

    def next_message(self, _timeout_s):
        return self._messages.pop(0) if self._messages else None


def test_a_report_whose_cycle_could_not_be_stored_is_not_acknowledged(tmp_path):
    """P1, P2; the node says it with each beacon, as if it had been lost, until it is stored behind its cycle."""
    with new_store(tmp_path, LONELY, ALONE) as store:
        gateway, link = Gateway(ALONE, LONELY, Timing(20_000), RUN), LinkToNode(store, {1, 2})
        service.serve(gateway, link, recorder_of(store), beside([]), 0, 5)
        assert [[1], [], [], [4], [5]] == [[key.seq for key in store.reports(RUN, cycle)] for cycle in range(5)]
        assert [2, 3] == [late.key.seq for late in store.late_reports()]
        assert [] == list(store.gaps())
    assert [False, True, False, False, True] == [beacon.acknowledged(data, 0, 0) for data in link.beacons]
    assert [(0, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 4)] == link.reported


def test_a_store_that_fails_is_said_once_and_once_more_when_it_takes_cycles_again(store, caplog):
    caplog.set_level(logging.INFO)
    recorder, outcomes = recorder_of(store), outcomes_of(6)
    assert recorder.keep(outcomes[0])
    refuse_writes(store)
    assert [False] * 3 == [recorder.keep(outcome) for outcome in outcomes[1:4]]
    allow_writes(store)
    assert [True] * 2 == [recorder.keep(outcome) for outcome in outcomes[4:]]
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "gateway.service"]
    assert ["ERROR", "INFO"] == [level for level, _ in said]
    assert said[0][1].startswith("cycle 1 and those after it are not stored: ")
    assert said[0][1].endswith("thermesh.db: cannot be written; make the folder and the file writable")
    assert "cycle 4 is stored again; 3 were not since the start" == said[1][1]
    assert [0, 4, 5] == [stored.outcome.record.cycle for stored in store.latest_cycles(9)]


def test_what_is_stored_in_no_cycle_and_what_is_lost_is_counted_and_said_once_a_node(store, caplog):
    caplog.set_level(logging.INFO)
    recorder, (outcome, other) = recorder_of(store), outcomes_of(2)
    key = Key((0, 0), 7, 9)
    gaps = Gap((0, 0), 7, 1, 4), Gap((0, 0), 7, 6, 6), Gap((0, 1), 8, 3, None)
    arrivals = Arrivals((), (Late(key, b"frame"),), gaps, (((0, 0), Reporter(7, 9)), ((0, 1), Reporter(8, 2))))
    recorder.keep(outcome._replace(arrivals=arrivals))
    refuse_writes(store)
    recorder.keep(other._replace(arrivals=arrivals))
    assert (1, 3) == (recorder.late, recorder.gaps)
    started = "n-00-01 started anew: what it reported before and nobody heard is lost"
    assert ["n-00-00: 5 of its reports are lost", started] == [record.getMessage() for record in caplog.records][:2]


def test_another_fault_is_said_too(store, caplog):
    recorder, (outcome, _) = recorder_of(store), outcomes_of(2)
    recorder.keep(outcome)
    recorder.keep(outcome)
    refuse_writes(store)
    recorder.keep(outcome)
    recorder.keep(outcome)
    assert ["is stored already", "make the folder and the file writable"] == [
        line
        for record in caplog.records
        for line in ("is stored already", "make the folder and the file writable")
        if record.getMessage().endswith(line)
    ]


def test_a_fault_that_names_the_cycle_is_said_once_too(store, caplog):
    recorder = recorder_of(store)
    for outcome in outcomes_of(4):
        recorder.keep(outcome._replace(filter_version=99))
    (said,) = [record.getMessage() for record in caplog.records]
    fault = "it was decided by a model that is not stored"
    assert f"cycle 0 and those after it are not stored: {store.path}: {fault}" == said


def test_the_state_before_each_decision_is_stored_even_when_the_one_before_was_not(store):
    limits = Limits(0.4, 0.02)
    recorder, outcomes = recorder_of(store, limits), outcomes_of(4)
    for index, (outcome, abnormal) in enumerate(zip(outcomes, (False, True, True, False), strict=True)):
        (refuse_writes if index == 1 else allow_writes)(store)
        recorder.keep(outcome._replace(decision=outcome.decision._replace(abnormal=abnormal)))
    bases = [stored.basis for stored in store.latest_cycles(9)]
    assert [False, True, True] == [basis.state.abnormal for basis in bases]
    assert {limits} == {basis.limits for basis in bases}


def test_what_a_run_stored_can_be_recomputed(store):
    recorder, outcomes = recorder_of(store), outcomes_of(3)
    for outcome in outcomes:
        recorder.keep(outcome)
    for outcome, stored in zip(outcomes, store.latest_cycles(3), strict=True):
        assert outcome[1:] == recompute(store, stored)[1:]


# How `thermesh gateway` starts


KEY = Ed25519PrivateKey.generate()


def nothing(_name):
    return lambda _done, _total: None


class Config:
    """As much of a gateway's configuration as is needed here."""

    def __init__(self, state, spec):
        self.state, self.spec, self.site = state, spec, SITE


@pytest.fixture
def start(tmp_path, monkeypatch):
    """The model that a gateway of a spec starts with."""
    monkeypatch.setattr("tools.gateway.choose_model", lambda spec, site, _seed, _stage: make_model(spec, site))
    return lambda store, spec: _model_in_force(store, Config(tmp_path, spec), KEY, nothing)


def test_a_gateway_starts_with_the_active_model_of_its_store(store, start):
    layers = tuple((weights + np.float32(0.5), bias) for weights, bias in MODEL.head.layers)
    newer = replace(MODEL, filters=replace(MODEL.filters, version=7), head=Head(3, layers))
    store.add_model(active(newer))
    found = start(store, "lean").model
    assert (7, 3, 0.5) == (found.filters.version, found.head.revision, found.head.layers[0][0][0, 0])


def test_a_first_start_makes_a_signed_model_active(tmp_path, start):
    with Store(tmp_path, SITE, create=True) as store:
        first = start(store, "lean")
        assert (1, 1, ACTIVE) == (*store.model_keys()[0], store.model(1, 1).status)
        KEY.public_key().verify(first.filter_set[-64:], hashlib.sha256(first.filter_set[:-64]).digest())
        assert first.filter_set == start(store, "lean").filter_set


def test_a_first_start_that_was_cut_short_is_made_good(tmp_path, start):
    with Store(tmp_path, SITE, create=True) as store:
        start(store, "lean")
        store.set_status(1, 1, PUSHED)
        assert 1 == start(store, "lean").model.filters.version
        assert ([(1, 1)], [(1, 1)]) == (store.model_keys(ACTIVE), store.model_keys())


def test_another_spec_is_rolled_out_while_the_model_before_decides(store, start):
    for _ in range(2):  # the second start finds the order
        assert "lean" == start(store, "seed").model.spec_name
    assert ([(1, 1)], [(2, 2)]) == (store.model_keys(ACTIVE), store.model_keys(PUSHED))
    assert "seed" == store.model(2, 2).model.spec_name
    start(store, "lean")  # the file was changed back
    assert ([], "the gateway's file names spec lean") == (store.model_keys(PUSHED), store.model(2, 2).note)


def serve_by(serve, monkeypatch):
    """Let `run_gateway` do without broker, training and cycles."""
    outside = MagicMock(host="host", port=1, login=None, encryption="none")
    outside.name = "none"
    monkeypatch.setattr("tools.gateway.choose_model", lambda spec, site, _seed, _stage: make_model(spec, site))
    for name in ("open_broker", "Link"):
        monkeypatch.setattr(f"tools.gateway.{name}", lambda *_, **__: outside)
    monkeypatch.setattr("gateway.service.serve", serve)


def test_what_is_there_when_cycles_begin_is_not_looked_through_for_garbage_in_any_of_them(tmp_path, monkeypatch):
    (tmp_path / "site.toml").write_text('name = "pair"\nrows = 1\ncols = 2\n')
    (tmp_path / "gateway.toml").write_text('site = "site.toml"\nspec = "lean"\n')
    seen = []

    def serve(gateway, *_):
        seen.append((gc.is_tracked(gateway), any(found is gateway for found in gc.get_objects())))

    serve_by(serve, monkeypatch)
    run_gateway(tmp_path / "gateway.toml", 1, False, nothing)
    assert ([(True, False)], 0) == (seen, gc.get_freeze_count())


@pytest.mark.parametrize(("mode", "beacon_mode"), [("always", MODE_ALWAYS), ("event", MODE_EVENT)])
def test_the_service_opens_cycles_in_the_mode_of_its_file(tmp_path, monkeypatch, mode, beacon_mode):
    (tmp_path / "site.toml").write_text('name = "pair"\nrows = 1\ncols = 2\n')
    copies = 2 * (mode == "event")
    text = f'site = "site.toml"\nspec = "zone"\nmode = "{mode}"\n[event]\ncopies = {copies}\n'
    (tmp_path / "gateway.toml").write_text(text)
    gateways = []
    serve_by(lambda gateway, *_: gateways.append(gateway), monkeypatch)
    run_gateway(tmp_path / "gateway.toml", 1, False, nothing)
    opened = [beacon.unpack(gateway.start_cycle(0)) for gateway in gateways]
    assert [(beacon_mode, copies)] == [(fields.flags & MODE_MASK, fields.setting) for fields in opened]


@pytest.mark.parametrize(
    ("host", "login", "line"),
    [
        ("127.0.0.1", None, "name at 127.0.0.1:1, on the loopback"),
        ("192.0.2.1", Login("gateway", "word"), "name at 192.0.2.1:1, NOT ENCRYPTED"),
        ("192.0.2.1", Login("gateway", "word", "PEM"), "name at 192.0.2.1:1, encrypted"),
    ],
)
def test_the_first_line_says_whether_the_broker_is_reached_by_an_encrypted_wire(host, login, line):
    assert line == _broker_line(Broker(host, 1, "name", login=login))


def test_a_site_with_a_store_is_never_given_another_key(store, start, tmp_path):
    config = Config(tmp_path, "lean")
    with pytest.raises(SiteKeyError, match="No such file"):
        _site_key(store, config)
    load_or_make(tmp_path)
    with pytest.raises(SiteKeyError, match="is not the key that nodes trust"):
        _site_key(store, config)
    with Store(tmp_path / "new", SITE, create=True) as empty:
        assert _site_key(empty, Config(tmp_path / "new", "lean"))


class Full(io.StringIO):
    def write(self, _text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_printed_is_said_once_and_stops_nothing(monkeypatch, caplog, capsys):
    show = Shown(as_json=False)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Full())
        for outcome in outcomes_of(3):
            show(outcome)
    assert ["decisions cannot be printed: No space left on device"] == [one.getMessage() for one in caplog.records]
    show(outcomes_of(1)[0])
    assert capsys.readouterr().out.startswith("cycle 0: ")


def test_between_two_cycles_there_is_a_look_each_second_however_many_messages_come(store, monkeypatch):
    clock, looks = Ticking(), []
    monkeypatch.setattr("gateway.service.time", clock)
    gateway = Gateway(SITE, MODEL, Timing(60_000, 1, 1, 1), RUN)
    beside = service.Beside(lambda outcome: None, lambda: looks.append(clock.now_s))
    service.serve(gateway, LinkInMessages(clock), recorder_of(store), beside, 10, 2)
    within = [at_s for at_s in looks if 0.1 < at_s < 10]
    assert 9 == len(within), looks
    assert all(0.99 < later - earlier < 1.1 for earlier, later in itertools.pairwise(within))


class Ticking:
    """A clock that goes on only when it is told to."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def monotonic_ns(self):
        return int(self.now_s * 1e9)

    def time(self):
        return NOON_S


class LinkInMessages(LinkToNobody):
    """A link over which something of no use comes every 10 ms."""

    def __init__(self, clock):
        self._clock = clock

    def publish_beacon(self, data):
        pass

    def next_message(self, timeout_s):
        self._clock.now_s += min(timeout_s, 0.01)
        return ("elsewhere", b"") if timeout_s > 0 else None


def test_a_run_that_was_there_before_is_never_taken_again(store, tmp_path):
    recorder_of(store).keep(outcomes_of(1)[0])
    assert 5 == _new_run(store, Config(tmp_path, "lean"))
    (tmp_path / "run").write_text("9\n")
    assert 10 == _new_run(store, Config(tmp_path, "lean"))
