"""The bench of the gateway's connection: both that it compares take in the same, and what is lost is counted."""

import pytest
from broker_bench import needs_mosquitto

from gateway.broker import open_broker
from tools import bench_link
from tools.bench_link import Bare, Ours, measure


@pytest.fixture
def broker(tmp_path):
    with open_broker("mosquitto", tmp_path) as own:
        yield own


@needs_mosquitto
@pytest.mark.parametrize("kind", [Bare, Ours])
@pytest.mark.parametrize("per_s", [0, 1_000])
def test_all_reports_are_counted_and_come_no_faster_than_was_asked(broker, kind, per_s):
    taken = measure(broker, kind, 300, per_s)
    assert 300 == taken.reports
    assert per_s == 0 or taken.seconds > 0.2


@needs_mosquitto
@pytest.mark.parametrize(("reports", "seconds", "code"), [(400, 2.0, 0), (399, 2.0, 1), (400, 2.6, 1)])
def test_the_exit_code_says_whether_all_came_on_time(monkeypatch, capsys, reports, seconds, code):
    monkeypatch.setattr(bench_link, "REPORTS_S", 200)
    monkeypatch.setattr(bench_link, "SECONDS", 2)
    monkeypatch.setattr(bench_link, "ALL_AT_ONCE", 400)
    monkeypatch.setattr(bench_link, "measure", lambda *_: bench_link.Taken(reports, seconds))
    assert code == bench_link.main()
    assert capsys.readouterr().out.endswith(": 1.00x\n")
