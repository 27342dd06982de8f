"""What a person sees at the end of a demo: the picture of a cycle and the facts below it."""

import io

import numpy as np
import pytest
from rich.console import Console

from gateway.cycles import Record
from gateway.decision import Decision
from gateway.exactness import Comparison
from gateway.gateway import Outcome
from tools.demo.picture import show

SUMMARY = {
    "runtime": {"cpython 3.11": 4},
    "heap": None,
    "broker": "mosquitto 2.0",
    "spec": "seed",
    "mode": "always",
    "threshold_ccel": 0,
    "carried": 0,
    "exact": {"compared": 5, "equal": 5},
    "cycles": 1,
    "filters": {"from": 1, "to": 2, "accepted": True, "confirmed": 4, "refused": 0},
    "accuracy": {"cycles": 1, "before": 50.0, "after": 100.0, "majority": 100.0, "rule": 100.0},
    "where": {"found": 2, "near": 1},
    "seconds": {"cycles": 1.0, "total": 2.0},
    "ledger": None,
    "notes": [],
    "problems": [],
}


def outcome(readings_ccel, present, abnormal=False, where=None):
    """A decided cycle of 2 x 2 nodes."""
    has = np.array(present, np.bool_)
    values = np.where(has, np.array(readings_ccel, np.int16), np.int16(0))
    features = np.zeros((1, 1, 5), np.int16)
    absence, carried = np.zeros((2, 2, 2), np.uint8), np.zeros((1, 1), np.bool_)
    record = Record(7, features, values, has, has, absence, ~has, 0, carried)
    return Outcome(record, Decision((0.5, 0.5), abnormal, where), 1, 1, Comparison(5, 5, 0))


def shown(outcomes=(), colour=None, **facts):
    console = Console(file=io.StringIO(), width=100, color_system=colour, force_terminal=bool(colour))
    show(console, SUMMARY | facts, list(outcomes))
    return console.file.getvalue()


@pytest.mark.parametrize("text", ["[red]", "[/]", "[/nothing]", "n-00-00 ended: IndexError: x[0] [/bold]"])
@pytest.mark.parametrize("place", ["notes", "problems", "broker", "runtime"])
def test_words_of_others_are_printed_as_they_are_and_never_as_markup(place, text):
    value = {"notes": [text], "problems": [text], "broker": text, "runtime": {text: 4}}[place]
    assert text in shown([outcome([[2000, 2100], [2200, 2300]], [[1, 1], [1, 1]])], **{place: value})


@pytest.mark.filterwarnings("error")
def test_a_cycle_without_any_reading_is_an_empty_picture_and_no_warning():
    picture = shown([outcome(np.zeros((2, 2)), np.zeros((2, 2)))])
    assert "cycle 7: normal; no readings" in picture
    assert 2 == picture.count("│    ")


@pytest.mark.filterwarnings("error")
def test_a_room_of_one_temperature_is_of_one_colour_in_the_middle():
    picture = shown([outcome([[2000, 2000], [2000, 2000]], [[1, 1], [1, 1]])], "256")
    assert 4 == picture.count("48;5;118m  ")
    assert "20.0 to 20.0" in picture


def test_cold_is_blue_hot_is_red_and_the_block_that_speaks_loudest_is_marked():
    picture = shown([outcome([[2000, 2600], [2000, 2000]], [[1, 1], [1, 0]], True, (0, 0))], "256")
    assert "abnormal at block 0, 0 (marked); 20.0 to 26.0 degrees Celsius" in picture
    assert "48;5;21m[]" in picture
    assert "48;5;196m[]" in picture
    assert 3 == picture.count("[]")


def test_an_abnormal_cycle_is_called_so_even_when_no_block_stands_out():
    assert "cycle 7: abnormal; 20.0" in shown([outcome([[2000] * 2] * 2, [[1, 1], [1, 1]], True)])


BROKER = {"messages_out": 1.0, "bytes_out": 2.0}
LEDGER = {
    "kinds": {"value": {"frames": 1.5, "bytes": 12.0}, "member": {"frames": 0, "bytes": 0}},
    "total": {"frames": 1.5, "bytes": 12.0, "bytes_on_air": 43.5},
    "proof": {"frames": 0, "bytes": 0},
    "broker": BROKER,
    "raw_gather": {"total": {"frames": 4.0, "bytes": 40.0, "bytes_on_air": 124.0}, "broker": BROKER},
    "alternatives": {
        name: {"star": {"bytes_on_air": size}} for name, size in (("deltas", 120), ("send_on_change", 31))
    },
}


def test_the_bill_shows_what_would_have_been_cheaper_and_leaves_out_what_was_not_sent():
    bill = shown(ledger=LEDGER)
    on_air = [line.strip("│ ").split("│")[-1].strip() for line in bill.splitlines() if "on the air" in line]
    assert ["44", "124", "120", "31"] == on_air
    assert "value" in bill
    assert "member" not in bill
