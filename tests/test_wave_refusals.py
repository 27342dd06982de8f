"""No filter set is taken that is not whole, signed, new, meant for this node and rightly computed: each is counted."""

import json
import shutil

import pytest
from on_micropython import run
from refusals import BODY, RIGHT, Row, matrix
from wave_bench import QUIET, RESTING, Bench, refusal
from wave_sets import KEY, flashed, good, sign

from firmware.wave import RETRY_MS
from protocol import health
from protocol.filter_set import CONFIRMED, RETURNED, SIGNATURE_SIZE, STAGED
from protocol.health import REFUSED_FORM, REFUSED_SIGNATURE, REFUSED_VERSION
from tools.rig import interpreter

# What `refusal` finds when the right set is taken afterwards.
TAKEN = [QUIET, STAGED, 3, 3, True, True]


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory):
    """The files of a node that was flashed with version 1 and has confirmed version 2."""
    folder = tmp_path_factory.mktemp("confirmed")
    (folder / "f").write_bytes(flashed())
    bench = Bench(str(folder / "f"), KEY)
    bench.take_in(good(2))
    assert bench.switch(2)
    bench.confirm()
    assert (2, CONFIRMED, QUIET) == (bench.wave.active.version, bench.wave.phase, bench.wave.state)
    return folder


@pytest.fixture
def bench_of(confirmed, tmp_path):
    def make(key=KEY):
        shutil.copytree(confirmed, tmp_path, dirs_exist_ok=True)
        return Bench(str(tmp_path / "f"), key)

    return make


def due(row):
    """What `refusal` has to find for a row."""
    return [{row.counter: 1}, 1, True, True, True, TAKEN if row.next else None]


def named(found):
    """The same with counters by name, to be read."""
    return [{health.FAULTS[place - health.MALFORMED]: count for place, count in found[0].items()}, *found[1:]]


def test_every_bad_set_is_refused_and_counted_once_and_the_right_one_taken_behind_it(bench_of, seed):
    rows = matrix(seed)
    assert 180 < len(rows) == len({row.says for row in rows})
    for row in rows:
        assert named(due(row)) == named(refusal(bench_of(row.key), row.data, row.next)), row.says


def test_micropython_refuses_the_same_sets_for_the_same_reasons(confirmed, tmp_path, seed):
    rows = matrix(seed)
    (tmp_path / "rows.json").write_text(json.dumps([[row.key.hex(), row.data.hex(), row.next.hex()] for row in rows]))
    printed = run(
        ON_MICROPYTHON % {"tests": str(interpreter.SOURCES / "tests"), "folder": str(tmp_path), "base": str(confirmed)},
        heap="4M",
    )
    for row, line in zip(rows, printed.splitlines(), strict=True):
        faults, *rest = json.loads(line)
        assert named(due(row)) == named([{int(place): count for place, count in faults.items()}, *rest]), row.says


ON_MICROPYTHON = """
import json, os, sys
sys.path.append("%(tests)s")
from wave_bench import Bench, content, refusal
os.chdir("%(folder)s")
base = {name: content("%(base)s/" + name) for name in ("f", "f.1", "f.slots")}
with open("rows.json") as file:
    rows = json.load(file)
for row in rows:
    for name in base:
        with open(name, "wb") as file:
            file.write(base[name])
    key, data, following = [bytes.fromhex(text) for text in row]
    print(json.dumps(refusal(Bench("f", key), data, following)))
"""


def test_a_set_cut_anywhere_by_whoever_passes_it_on_is_refused(bench_of):
    for size in range(len(RIGHT)):
        counter = REFUSED_FORM if size <= SIGNATURE_SIZE + 8 else REFUSED_SIGNATURE
        bench = bench_of()
        assert due(Row("", b"", counter, next=b"")) == refusal(bench, RIGHT[:size], b""), size


def test_a_set_that_was_signed_though_it_is_cut_anywhere_is_refused(bench_of):
    for size in range(9, len(BODY)):
        found = refusal(bench_of(), sign(BODY[:size] + bytes(SIGNATURE_SIZE)), b"")
        assert due(Row("", b"", REFUSED_FORM, next=b"")) == found, size


@pytest.mark.parametrize("piece", [1, 8, 63, 64, 65, len(RIGHT)])
def test_a_set_means_the_same_in_pieces_of_any_size(bench_of, piece):
    bench = bench_of()
    bench.take_in(RIGHT[:-1] + bytes((RIGHT[-1] ^ 1,)), piece)
    assert {REFUSED_SIGNATURE: 1} == bench.faults()
    bench.rest()
    bench.take_in(RIGHT, piece)
    assert (QUIET, STAGED, 3) == (bench.wave.state, bench.wave.phase, bench.wave.staged.version)


def test_the_set_that_is_held_already_is_passed_over_without_a_count(bench_of):
    """A broker hands its retained set out again on every connection: that is no attack."""
    bench = bench_of()
    for phase in (CONFIRMED, STAGED):
        before = bench.files()
        bench.take_in(good(bench.wave.highest))
        assert ({}, 0, before) == (bench.faults(), bench.wave.refused, bench.files())
        assert (QUIET, phase) == (bench.wave.state, bench.wave.phase)
        bench.take_in(RIGHT)


def test_a_set_that_failed_its_trial_is_refused_for_ever_and_a_higher_one_taken(bench_of):
    bench = bench_of()
    bench.take_in(RIGHT)
    assert bench.switch(3)
    for boots in range(3):
        bench.boot()
        assert (RETURNED, 2, 3) == (bench.wave.phase, bench.wave.active.version, bench.wave.highest), boots
        before = bench.files()
        bench.take_in(RIGHT)
        assert (1, RESTING, before) == (bench.faults()[REFUSED_VERSION], bench.wave.state, bench.files())
    bench.rest()
    bench.take_in(good(4))
    assert (STAGED, 4) == (bench.wave.phase, bench.wave.staged.version)


def test_whatever_is_refused_the_next_try_waits_a_second_first(bench_of):
    bench = bench_of()
    bench.take_in(RIGHT[:-1])
    bench.wait(RETRY_MS - 1)
    bench.take_in(RIGHT)
    assert RESTING == bench.wave.state
    bench.wait(1)
    bench.take_in(RIGHT)
    assert STAGED == bench.wave.phase


def test_a_node_without_a_key_takes_no_set(bench_of):
    bench = bench_of(b"")
    before = bench.files()
    bench.rest()
    bench.take_in(RIGHT)
    assert ({}, RESTING, before) == (bench.faults(), bench.wave.state, bench.files())
