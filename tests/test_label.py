"""`thermesh label`: cycles are listed with what rule and operator say; labels are set and taken away, or refused."""

import json

import numpy as np
import pytest
from mesh_in_memory import make_model, make_site
from store_bench import calm, new_store, outcome_of

from gateway.decision import LIMITS_DEFAULT
from gateway.service import Recorder
from gateway.store import Store
from tools.cli import FINE, app

SITE = make_site(2, 3)
NOON_S = 1_700_000_000.0
# 3.0 degrees between two neighbours in cycle 2 only.
HOT_CYCLE = 2


@pytest.fixture
def config(tmp_path):
    (tmp_path / "site.toml").write_text('name = "memory"\nrows = 2\ncols = 3\n')
    path = tmp_path / "gateway.toml"
    path.write_text('site = "site.toml"\nspec = "lean"\nstate = "kept"\n')
    return path


@pytest.fixture
def stored(config):
    """A gateway's store with two cycles of run 1 and four of run 2."""
    hot = np.full((2, 3), 2200, np.int16)
    hot[0, 0] += 300
    with new_store(config.parent / "kept", make_model("lean", SITE), SITE) as store:
        for run, cycles in ((1, 2), (2, 4)):
            recorder = Recorder(store, run, LIMITS_DEFAULT, lambda: NOON_S)
            for cycle in range(cycles):
                assert recorder.keep(outcome_of(calm(cycle, hot if cycle == HOT_CYCLE else None, SITE)))
    return config


def thermesh(config, *words):
    return app(["label", "--config", str(config), *map(str, words)], standalone_mode=False)


def answer(capsys, config, *words):
    assert FINE == thermesh(config, *words, "--json")
    return json.loads(capsys.readouterr().out)


def labels(capsys, config):
    return [(line["run"], line["cycle"], line["label"]) for line in answer(capsys, config)["cycles"]]


def test_the_latest_cycles_are_listed_with_what_the_rule_says(stored, capsys):
    found = answer(capsys, stored, "--last", 4)
    assert str(stored.parent / "kept" / "thermesh.db") == found["store"]
    assert ["normal", "normal", "abnormal", "normal"] == [line["rule"] for line in found["cycles"]]
    assert {
        "run": 2,
        "cycle": 0,
        "time": "2023-11-14T22:13:20+00:00",
        "decided": "normal",
        "rule": "normal",
        "label": None,
        "note": "",
    } == found["cycles"][0]


def test_a_cycle_of_the_last_run_is_labelled(stored, capsys):
    done = answer(capsys, stored, "--cycles", 1, "--as", "abnormal", "--note", "a fire drill")
    assert {"run": 2, "first": 1, "last": 1, "label": "abnormal", "changed": 1} == done
    assert [(2, 1, "abnormal")] == [line for line in labels(capsys, stored) if line[2]]
    assert "a fire drill" == answer(capsys, stored, "--last", 3)["cycles"][0]["note"]


def test_a_range_of_a_named_run_is_labelled_as_far_as_it_is_stored(stored, capsys):
    assert 1 == answer(capsys, stored, "--run", 1, "--cycles", "1-9", "--as", "normal")["changed"]
    assert [(1, 1, "normal")] == [line for line in labels(capsys, stored) if line[2]]


def test_labels_are_taken_away_again(stored, capsys):
    answer(capsys, stored, "--cycles", "0-3", "--as", "abnormal")
    done = answer(capsys, stored, "--cycles", "1-2", "--as", "none")
    assert {"run": 2, "first": 1, "last": 2, "label": None, "changed": 2} == done
    assert [0, 3] == [cycle for _, cycle, label in labels(capsys, stored) if label]
    assert 0 == answer(capsys, stored, "--cycles", "1-2", "--as", "none")["changed"]


def test_people_read_a_table(stored, capsys):
    thermesh(stored, "--cycles", 2, "--as", "normal", "--note", "door open")
    assert "run 2, labelled normal: 1\n" == capsys.readouterr().out
    thermesh(stored, "--last", 2)
    title, cycle, _ = capsys.readouterr().out.splitlines()
    assert ["run", "cycle", "time", "(UTC)", "decided", "rule", "label", "note"] == title.split()
    assert "2 2 2023-11-14T22:13:20 normal abnormal normal door open".split() == cycle.split()


def test_a_store_without_cycles_says_so(config, capsys):
    Store(config.parent / "kept", SITE, create=True).__exit__(None, None, None)
    thermesh(config)
    assert capsys.readouterr().out.endswith("thermesh.db: no cycle yet\n")
    with pytest.raises(ValueError, match="no cycle is stored yet; let `thermesh gateway` run for some"):
        thermesh(config, "--cycles", 1, "--as", "normal")


WRONG = {
    "a word": (("--cycles", "yesterday", "--as", "normal"), "--cycles: 'yesterday' is no cycle or range; write 12 or"),
    "backwards": (("--cycles", "3-1", "--as", "normal"), "--cycles: '3-1' is no cycle or range"),
    "other digits": (("--cycles", "²", "--as", "normal"), "--cycles: '²' is no cycle or range"),
    "too large": (("--cycles", 2**32, "--as", "normal"), "--cycles: '4294967296' is no cycle or range"),
    "no cycles": (("--as", "normal"), "--cycles: 'nothing' is no cycle or range"),
    "no label": (("--cycles", "1"), "--as: 'nothing' is no label; write abnormal, normal, none"),
    "another label": (("--cycles", "1", "--as", "odd"), "--as: 'odd' is no label; write abnormal, normal, none"),
    "not stored": (("--cycles", "4-9", "--as", "none"), "--cycles: 4-9 of run 2 is not stored; .* cycles 0-3"),
    "no such run": (("--run", 7, "--cycles", 1, "--as", "normal"), "--cycles: 1 of run 7 is not stored; .* are none"),
    "a long note": (("--cycles", 1, "--as", "normal", "--note", "x" * 201), "note: has 201 characters; write 200"),
}


@pytest.mark.parametrize(("words", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_named_and_labels_nothing(stored, capsys, words, line):
    with pytest.raises(ValueError, match=line):
        thermesh(stored, *words)
    assert {None} == {label for _, _, label in labels(capsys, stored)}


def test_a_gateway_that_never_ran_has_no_store_and_gets_none(config):
    with pytest.raises(ValueError, match=r"thermesh\.db: there is no store yet; run `thermesh gateway`"):
        thermesh(config)
    assert not (config.parent / "kept").exists()
