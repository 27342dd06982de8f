"""The trial that kills gateway and broker: a tiny one passes, and the judge sees each promise that a store breaks."""

import os
import signal
import sqlite3
from contextlib import closing, suppress

import numpy as np
import paho.mqtt.client as paho
import pytest
from broker_bench import needs_mosquitto
from on_micropython import require_micropython
from store_bench import BASIS, MODEL, NOON_S, SITE, calm, decide, exact_record, new_store, outcome_of

from gateway import decision
from gateway.head import HeadRunner
from gateway.link import Link
from gateway.model import SPECS
from gateway.received import Key, Received
from gateway.store import Basis, Store
from gateway.store_schema import FILE
from protocol import beacon, frame, report, topic
from tools.trial_crash import __main__ as trial
from tools.trial_crash.__main__ import Found, Plan, run
from tools.trial_crash.hooks import COMMITS, HOOKS, PUBLISHES, Trap, watch_commits, watch_publishes
from tools.trial_crash.judge import Verdict, judge
from tools.trial_crash.live import Ground
from tools.trial_crash.said import Made, Said

RUN = 7
FIRST, SECOND = (0, 0), (0, 2)
BOOT = 0xC0FFEE
CYCLES = 6


class Block:
    """What a report is packed from: one unit, no absence."""

    exchanges, pooled, no_reading, with_readings = 1, 1, 0, False
    absence = bytes(4)


def made(cell, seq, cycle, has_older=False):
    head = frame.header(frame.REPORT, *cell, RUN, cycle, 1)
    data = report.pack(head, BOOT, seq, Block, b"\x05")
    return report.marked(data, report.HAS_OLDER, has_older)


def spoken_beacon(cycle, acked, blocks):
    """Opens a cycle and acknowledges the blocks in reading order of the one before."""
    rows, cols = SITE.block_shape
    fields = beacon.Beacon(4, RUN, cycle, 1000, 100, 100, 1, acked, rows, cols, 0)
    bits = np.zeros(rows * cols, np.bool_)
    bits[list(blocks)] = True
    return beacon.pack(fields, np.packbits(bits, bitorder="little").tobytes())


class Story:
    """Two nodes report in six cycles to a gateway that keeps its promises, and an observer hears it.

    The first node is acknowledged by beacons. The second one's report 2 comes late and is acknowledged to it alone;
    report 3 is lost and its next one says that it holds nothing older. In the end it holds report 6.
    """

    def __init__(self, folder):
        self.said = Said()
        self.folder = folder
        rng, received, state = np.random.default_rng(1), Received({}), decision.init()
        head = HeadRunner(SPECS[MODEL.spec_name], MODEL.head)
        with new_store(folder) as store:
            for cycle in range(CYCLES):
                if cycle == 3:
                    self.said.note(topic.of_node(SITE.name, *SECOND, topic.ACK), received.acknowledgement(SECOND, BOOT))
                # The second block is acknowledged by its bit while its node is.
                self.said.note(topic.cycle(SITE.name), spoken_beacon(cycle, max(cycle - 1, 0), [0] if cycle else []))
                self._report(received, cycle)
                before, (state, outcome) = state, decide(state, exact_record(rng, cycle, MODEL), MODEL, head)
                arrivals = received.arrivals()
                basis = Basis(before, BASIS.limits, SITE.cells)
                store.add_cycle(RUN, NOON_S, outcome._replace(arrivals=arrivals), basis)
                received.settle(arrivals)

    def judge(self):
        return judge(self.folder, SITE, self.said)

    def change(self, statement, *values):
        """Doctor the store."""
        with closing(sqlite3.connect(self.folder / FILE)) as database, database:
            assert 1 == database.execute(statement, values).rowcount

    def _report(self, received, cycle):
        first = made(FIRST, cycle + 1, cycle)
        self._heard(first)
        received.take(Key(FIRST, BOOT, cycle + 1), False)
        second = made(SECOND, cycle + 1, cycle, has_older=cycle == 1)
        self._heard(second)
        if cycle == 1:
            self.late = second
        if cycle == 2:  # its own report of this cycle does not come in
            received.take_late(Key(SECOND, BOOT, 2), True, self.late)
        if cycle in (0, 3, 4):
            received.take(Key(SECOND, BOOT, cycle + 1), False)

    def _heard(self, data):
        self.said.note(topic.of_node(SITE.name, data[1], data[2], "up"), data)


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path)


def counts(verdict):
    return verdict.missing, verdict.twice, verdict.silent


def test_a_store_that_kept_its_promises_is_found_whole(story):
    # Told: reports 1 to 5 of the first by bits, 1 and 2 of the second by a word.
    assert Verdict(12, 7, 0, 0, 1, 1, 0, 1, CYCLES, []) == story.judge()


def test_a_report_that_a_bit_spoke_of_and_is_not_stored_is_missing(story):
    second = "SELECT keys FROM cycle_reports WHERE cycle_id = 2"
    story.change(f"UPDATE cycle_reports SET keys = ({second}) WHERE cycle_id = 3")
    # The report of cycle 2 is not stored, and that of cycle 1 in two cycles.
    assert (1, 1, 1) == counts(story.judge())


def test_a_late_report_that_a_word_spoke_of_and_is_not_stored_is_missing_and_silent(story):
    story.change("DELETE FROM late_reports")
    verdict = story.judge()
    assert (1, 0, 1) == counts(verdict)
    named = f"1 reports, among them [{Key(SECOND, BOOT, 2)}]"
    assert [f"acknowledged and not stored by then: {named}", f"silent: {named}"] == verdict.broken


def test_a_report_that_is_stored_only_after_its_node_was_told_is_missing(story):
    story.change("UPDATE late_reports SET cycle_id = 4")
    assert (1, 0, 0) == counts(story.judge())


def test_what_a_word_spoke_of_may_have_been_given_up_before_but_not_after(story):
    story.change("DELETE FROM late_reports")
    story.change("UPDATE gaps SET first = 2, cycle_id = 3")
    assert (0, 0, 0) == counts(story.judge())
    story.change("UPDATE gaps SET cycle_id = 4")
    assert (1, 0, 0) == counts(story.judge())


def test_a_late_report_that_is_in_a_cycle_too_is_twice(story):
    story.change("INSERT INTO late_reports SELECT reporter_id, 1, cycle_id, frame FROM late_reports")
    assert (0, 1, 0) == counts(story.judge())


def test_a_lost_report_in_no_gap_is_silent(story):
    story.change("DELETE FROM gaps")
    assert (0, 0, 1) == counts(story.judge())


def test_what_may_still_come_is_silent_when_its_node_says_that_it_holds_nothing(story):
    story.change("DELETE FROM gaps")
    story.change("UPDATE reporters SET missing = 2 WHERE row = ? AND col = ?", *SECOND)  # report 5 - 1 - 1
    assert (0, 0, 1) == counts(story.judge())
    story.said.made[Key(SECOND, BOOT, 6)] = Made((RUN, 5), made(SECOND, 6, 5, has_older=True))
    verdict = story.judge()
    assert ((0, 0, 0), 2) == (counts(verdict), verdict.held)


def test_what_a_start_made_behind_its_last_stored_report_is_silent_once_another_start_is_known(story):
    story.change("INSERT INTO reporters (row, col, boot, last, missing, cycle_id) VALUES (?, ?, 5, 0, 0, 6)", *SECOND)
    assert (0, 0, 1) == counts(story.judge())
    story.change("INSERT INTO gaps (reporter_id, first, last, cycle_id) VALUES (2, 6, NULL, 6)")
    assert (0, 0, 0) == counts(story.judge())


def test_of_two_reports_of_one_cycle_a_bit_speaks_of_the_first(story):
    story.said.made[Key(FIRST, BOOT, 9)] = Made((RUN, 2), made(FIRST, 9, 2))
    assert story.said.made.keys() - story.said.told().keys() == {
        Key(FIRST, BOOT, 6),
        Key(FIRST, BOOT, 9),
        *(Key(SECOND, BOOT, seq) for seq in range(1, 7)),
    }


def test_a_bit_speaks_of_no_report_whose_node_heard_no_beacon(story):
    blind = report.marked(made(FIRST, 3, 2), report.NO_BEACON, True)
    story.said.made[Key(FIRST, BOOT, 3)] = Made((RUN, 2), blind)
    story.said.made[Key(FIRST, BOOT, 9)] = Made((RUN, 2), made(FIRST, 9, 2))
    assert story.said.made.keys() - story.said.told().keys() == {
        Key(FIRST, BOOT, 3),
        Key(FIRST, BOOT, 6),
        *(Key(SECOND, BOOT, seq) for seq in range(1, 7)),
    }


@pytest.mark.parametrize("changed", ["score_normal = score_normal + 0.1", "abnormal = 1 - abnormal", "equal = 0"])
def test_a_changed_decision_is_found(story, changed):
    story.change(f"UPDATE decisions SET {changed} WHERE cycle_id = 4")
    assert ["run 7 cycle 3 gives another decision once more"] == story.judge().broken


def test_it_is_calm_while_beacons_go_out_without_words_to_single_nodes(story):
    assert 3 - 1 == story.said.calm  # cycles 3, 4 and 5, and the word came just before that of cycle 3
    story.said.note(topic.of_node(SITE.name, *FIRST, topic.ACK), b"")
    story.said.note(topic.cycle(SITE.name), spoken_beacon(CYCLES, CYCLES - 1, []))
    assert 0 == story.said.calm


def test_a_damaged_file_is_found(story):
    file = story.folder / FILE
    with closing(sqlite3.connect(file)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'one_active_model'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as opened:  # the index no longer fits its table
        opened.seek(page * size - 8)
        opened.write(bytes(8))
    assert any("is damaged" in what for what in story.judge().broken)


# Where the gateway is killed


def ended_by_kill(do):
    """What a process of its own does until it is killed, in bytes that it wrote to a pipe."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        with suppress(BaseException):
            do(writing)
        os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        words = told.read()
    _, status = os.waitpid(process, 0)
    assert -signal.SIGKILL == os.waitstatus_to_exitcode(status)
    return words


@pytest.mark.parametrize(("hook", "stored"), list(zip(COMMITS, ({1}, {1}, {1, 2}, {2}), strict=True)))
def test_the_process_ends_at_the_second_commit_where_the_hook_says(tmp_path, hook, stored):
    with new_store(tmp_path):
        pass

    def store_three(_pipe):
        watch_commits(Trap(hook, 2))
        with Store(tmp_path, SITE) as store:
            for cycle in range(3):
                store.add_cycle(1, NOON_S, outcome_of(calm(cycle)), BASIS)

    ended_by_kill(store_three)
    with Store(tmp_path, SITE) as store:
        assert len(list(store.latest_cycles(9))) in stored


@pytest.mark.parametrize("what", PUBLISHES)
@pytest.mark.parametrize(("when", "sent"), [("before", b"1"), ("after", b"12!")])
def test_the_process_ends_before_the_second_publish_or_once_it_has_left(what, when, sent):
    def publish_three(pipe):
        class Sent:
            def wait_for_publish(self, _timeout_s):
                os.write(pipe, b"!")

        def publish(_client, _topic, data, **_more):
            os.write(pipe, data)
            return Sent()

        paho.Client.publish = publish
        watch_publishes(Trap(f"{when} {what}", 2))
        link = object.__new__(Link)
        link._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        link._cycle_topic, link._wave_topic, link._site_name = "cycle", "wave", SITE.name
        for data in (b"1", b"2", b"3"):
            getattr(link, f"publish_{what}")(*([FIRST] if what == "acknowledgement" else []), data)

    assert sent == ended_by_kill(publish_three)


# The whole


@needs_mosquitto
@pytest.mark.slow
def test_a_tiny_site_keeps_its_promises(tmp_path, seed):
    require_micropython()
    found = run(tmp_path, Plan(Ground(2, 4, 1), 2, 1, 1, seed), say=True)
    print(found.line())
    assert [] == found.verdict.broken
    assert (2, len(HOOKS), 1, 2) == found[:4]
    assert found.verdict.acknowledged > 2 * 10
    assert found.verdict.gaps > 0


def test_the_last_line_has_all_counts():
    verdict = Verdict(23_456, 23_100, 0, 1, 1_345, 12, 2, 117, 250, [])
    assert (
        "killed: gateway 200 times at random and at 50 hooks, mosquitto 20 times, nodes 80 times; 23,456 reports, "
        "23,100 acknowledged, 0 missing, 1 twice, 1,345 late, 12 gaps in rows, 2 silent"
    ) == Found(200, 50, 20, 80, verdict, 9.0).line()


def test_a_quick_trial_kills_at_20_instants_at_each_hook_once_and_the_broker_3_times():
    assert (20, 1, 3) == Plan().quick[1:4]
    assert (200, 20) == (Plan().instants, Plan().brokers)


@pytest.mark.parametrize(("broken", "code"), [([], 0), (["silent: 1 reports"], 1)])
def test_the_exit_code_says_whether_a_promise_broke(monkeypatch, capsys, broken, code):
    found = Found(1, 2, 3, 4, Verdict(1, 1, 0, 0, 0, 0, len(broken), 0, 1, broken), 1.0)
    monkeypatch.setattr(trial, "run", lambda *_, **__: found)
    monkeypatch.setattr(trial, "find_mosquitto", lambda: "mosquitto")
    monkeypatch.setattr(trial, "has_micropython", lambda: True)
    monkeypatch.setattr("sys.argv", ["trial_crash"])
    assert code == trial.main()
    assert found.line() == capsys.readouterr().out.splitlines()[-1]


def test_a_machine_without_mosquitto_is_told(monkeypatch, capsys):
    monkeypatch.setattr(trial, "find_mosquitto", lambda: None)
    monkeypatch.setattr("sys.argv", ["trial_crash"])
    assert 2 == trial.main()
    assert "trial_crash: mosquitto or MicroPython is not installed\n" == capsys.readouterr().err
