"""`thermesh report traffic`: which rooms, what is charged, what was promised, what is written, what is kept."""

import json

import numpy as np
import pytest
import report_rooms
from mesh_in_memory import random_site
from report_rooms import loss_row, scheme
from test_comparison import counters
from test_zones import random_room
from typer.testing import CliRunner

from gateway import ledger
from gateway.comparison import comparison
from gateway.ledger import HEALTH_SIZE
from gateway.samples import Samples
from gateway.site import site_of_cells
from gateway.tree import Tree
from protocol import frame
from protocol.grid import neighbour_of
from sim.zones import simulate
from sim.zones_faults import Faults, deaths
from tools.cli import app
from tools.report import lossless, lossy, picture, rooms, traffic
from tools.report.charge import HEALTH_EVERY, Said, bill, energy_mj, load, said
from tools.report.lossless import gathering, in_mode_event
from tools.report.lossy import CHANGED, RAW, REPORTED, gathered_under
from tools.report.page import page
from tools.report.rooms import RoomsError, finished, parse_rooms
from tools.report.scheme import mean
from tools.report.summary import summary, title
from tools.report.verdicts import verdicts
from tools.zones_loss import DYING, POLICIES

PAIR = site_of_cells("pair", {(0, 0), (0, 1)})
RUNNER = CliRunner()
POLICY, OTHER = REPORTED[:2]


# Which rooms


@pytest.mark.parametrize(
    ("text", "expected"), [("4", (4,)), ("0-3", (0, 1, 2, 3)), ("5,0,3", (0, 3, 5)), ("1-2, 2-3", (1, 2, 3))]
)
def test_rooms_are_numbers_and_ranges_each_once_in_rising_order(text, expected):
    assert expected == parse_rooms(text)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "0-1000", "0-999,1000", "2147483648", "1.5", "\u0663"])
def test_what_is_no_list_of_rooms_is_refused_with_what_to_write(text):
    with pytest.raises(RoomsError, match=r"^--rooms .*(write 0-9, 0,3,5 or 4|from low to high|ask for fewer)$"):
        parse_rooms(text)


def test_the_command_says_so_on_one_line_and_simulates_nothing(tmp_path):
    done = RUNNER.invoke(app, ["report", "traffic", "--rooms", "3-1", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, RoomsError)
    assert not (tmp_path / "out").exists()


# What is charged


def test_what_was_simulated_is_charged_as_what_real_nodes_count(seed):
    """In mode always and event, with holes: frames, bytes, the hottest node and energy of gateway/comparison.py,
    which rounds frames to hundredths."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        site = random_site(rng)
        kinds = {frame.VALUE: 8, frame.STATE: 9, frame.REPORT: 24}
        counts = {kind: rng.integers(0, 5_000, len(site.cells)) for kind in kinds}
        everything = [
            Said(frame.KINDS[kind], count / HEALTH_EVERY, kinds[kind] * count / HEALTH_EVERY)
            for kind, count in counts.items()
        ]
        heard = [
            sum(
                counts[frame.VALUE][site.cells.index(near)]
                for slot in range(8)
                if (near := neighbour_of(*cell, slot)) in site.cells
            )
            for cell in site.cells
        ]
        by_node = {
            cell: counters(
                {kind: (count[place], kinds[kind] * count[place]) for kind, count in counts.items()},
                {frame.VALUE: (heard[place], 8 * heard[place])},
            )
            for place, cell in enumerate(site.cells)
        }
        beacons = HEALTH_EVERY + 1
        size = 28 + -(-site.block_shape[0] * site.block_shape[1] // 8)
        readings = np.zeros((1, *site.mask.shape), np.int16)
        expected = comparison(
            site,
            ledger.Spent(by_node, (), ()),
            {"beacons": beacons, "beacon_bytes": beacons * size},
            HEALTH_EVERY,
            readings,
            site.mask[np.newaxis],
        )
        words = load(everything, site, None)
        bills = {"star": bill(words, site, None)}
        bills["tree"] = bill(load(everything, site, Tree(site)), site, Tree(site))
        for topology, found in bills.items():
            mesh = expected["mesh"][topology]
            assert mesh["bytes_on_air"] == pytest.approx(found.total, abs=2)
            assert mesh["hottest"]["frames"] == pytest.approx(found.hottest, abs=0.1)
        energy = energy_mj(site, bills, words)
        for board, nodes in expected["energy"].items():
            for which in ("mean", "hottest"):
                assert nodes["mesh"][which]["total"] == pytest.approx(energy[f"{board} {which}"], rel=3e-4)
        tone = expected["energy"]["nrf52840"]["mesh_wake_tone"]["mean"]["total"]
        assert tone == pytest.approx(energy["nrf52840 wake tone"], rel=3e-4)


def test_a_member_is_heard_by_its_owner_alone():
    square = site_of_cells("square", set(np.ndindex(2, 2)))
    sizes = np.zeros((4, 2, 2), int)
    sizes[1:3, 0, 1] = sizes[0, 1, 1] = 14
    found = load([said("member", sizes, square)], square, None)
    assert [0.75, 0, 0, 0] == found.heard_frames.tolist()
    assert [0, 7, 0, 3.5] == found.sizes.tolist()


def test_health_and_beacons_are_charged_to_who_says_nothing():
    silent = bill(load([], PAIR, None), PAIR, None)
    beacons = 1 + 1 / HEALTH_EVERY
    assert 0 == silent.own
    assert beacons * (29 + 21) + 2 * (HEALTH_SIZE + 3 * 21) / HEALTH_EVERY == pytest.approx(silent.total)


# Without loss


@pytest.fixture
def short(monkeypatch):
    """The first cycle is learned from, so all but the first are judged."""
    monkeypatch.setattr(lossless, "TRAIN", 1)
    monkeypatch.setattr(lossy, "TRAIN", 1)
    monkeypatch.setattr(lossy, "WARM", 1)


def samples_of(readings, site, abnormal=False):
    readings = np.array(readings, np.int16).reshape(-1, *site.mask.shape)
    return Samples(readings, np.broadcast_to(site.mask, readings.shape), np.full(len(readings), abnormal))


def test_mode_event_is_charged_with_the_values_and_states_that_were_said_after_the_first_cycle(seed, short):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        filters, readings, _, site = random_room(rng, cycles=60)
        samples = samples_of(readings, site)
        run = simulate(filters, samples.readings_ccel, samples.present, site)
        expected = 29 * run.said[1:].sum() + 30 * (run.states[1:] != run.states[:-1]).sum()
        found = in_mode_event(site, filters, samples)
        assert expected / 59 == pytest.approx(found.quiet)
        assert found.quiet < found.star <= found.quiet + 31 * len(site.cells) * 2 / 59
        assert 100 == found.agreement
        assert 100 * (~run.states[1:].any(axis=(1, 2))).mean() == pytest.approx(found.accuracy)


def test_gathered_readings_are_judged_by_the_rule_on_what_arrived(short):
    readings = [[2000, 2000], [2000, 2320], [2000, 2295], [2000, 2295]]
    samples = samples_of(readings, PAIR)._replace(abnormal=np.array([False, True, False, False]))
    found = dict(gathering(PAIR, samples, (10, 30)))
    assert (100, 2 * 31) == (found["raw_gather"].accuracy, found["raw_gather"].star)
    assert (100, 2 * 31 / 3) == (found["send_on_change 10"].accuracy, pytest.approx(found["send_on_change 10"].star))
    assert (100 / 3, 31 / 3) == (
        pytest.approx(found["send_on_change 30"].accuracy),
        pytest.approx(found["send_on_change 30"].star),
    )
    assert None is found["naive_unicast"].accuracy


# With loss


def test_raw_readings_that_are_lost_hide_a_difference_for_a_cycle_and_moved_ones_for_ever(short):
    readings = [[2000, 2000]] + [[2000, 2400]] * 400
    samples = samples_of(readings, PAIR)
    perfect, lossy_ways = (gathered_under(PAIR, samples, faults) for faults in (Faults(), Faults(0.5, seed=3)))
    assert (100, 62) == (perfect[RAW]["agree"], perfect[RAW]["bytes"])
    assert 100 == perfect[CHANGED]["agree"]
    assert 25 == pytest.approx(lossy_ways[RAW]["agree"], abs=7)
    drawn = {gathered_under(PAIR, samples, Faults(0.5, seed=each))[CHANGED]["agree"] for each in range(8)}
    assert {0, 100} == drawn
    assert 31 / 400 == pytest.approx(lossy_ways[CHANGED]["bytes"])


def test_the_dead_send_nothing_and_only_their_last_words_are_believed(short):
    samples = samples_of([[2000, 2400]] * 11, PAIR)
    faults = Faults(dies=deaths(PAIR, 0.5, range(6, 7), 1))
    found = gathered_under(PAIR, samples, faults)
    assert (100, 31 * (2 * 5 + 5) / 10) == (found[RAW]["agree"], found[RAW]["bytes"])
    assert (50, 0) == (found[CHANGED]["agree"], found[CHANGED]["bytes"])


def test_every_policy_of_the_report_is_one_of_those_of_zones_loss():
    assert set(REPORTED) <= set(POLICIES)


# Means


def test_the_mean_of_rooms_is_that_of_each_figure_and_says_nothing_where_a_scheme_decides_nothing():
    assert scheme(96.0, 6_000.0) == mean([scheme(95.0, 3_000.0), scheme(97.0, 9_000.0)])
    assert mean([scheme(None), scheme(None)]).accuracy is None


def test_the_worst_room_and_the_longest_time_are_not_means():
    dying = [{DYING: {POLICY: loss_row(97.0, 900.0, gone)}} for gone in (60.0, 90.0)]
    found = summary({room: report_rooms.room(scheme(95.0 + room), dying[room]) for room in (0, 1)})
    assert 95.0 == found.lowest["zone event"]
    assert (70.0, 90.0) == (found.losses[DYING][POLICY]["gone"], found.losses[DYING][POLICY]["gone_max"])
    assert (0, 1) == found.rooms


@pytest.mark.parametrize(("numbers", "expected"), [((0, 1, 2), "0-2"), ((4,), "4"), ((0, 2), "0, 2")])
def test_rooms_in_a_row_are_told_by_the_first_and_the_last(numbers, expected):
    assert expected == summary({room: report_rooms.room() for room in numbers}).rooms_text


def test_schemes_stand_in_the_order_of_their_modes_and_thresholds():
    names = list(summary({0: report_rooms.room()}).schemes)
    assert ["send_on_change 12", "send_on_change 25"] == names[3:5]
    assert names.index("rule always") < names.index("seed change 12") < names.index("seed change 25")
    assert names.index("seed change 25") < names.index("lean change 12") < names.index("zone event")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("send_on_change 25", "readings that moved by more than 0.25 degrees"),
        ("seed always", "seed, mode always: the seed's wave"),
        ("lean change 12", "lean, mode change, 0.12 degrees"),
        ("rule event", "the rule as filters of zone, mode event"),
        ("zone event", "**zone, mode event**"),
        ("lean event", "lean, mode event, limits known"),
        ("lean event announced", "lean, mode event, limits announced"),
    ],
)
def test_every_scheme_has_a_name_for_people(name, expected):
    assert expected == title(name)


# What was promised


def found_in(event=None, losses=None, **schemes):
    """Whether each promise holds, by the beginning of what was promised."""
    found = verdicts(summary({0: report_rooms.room(event, losses, **schemes)}))
    return {one.what: one.holds for one in found}


def kept(words, **given):
    (holds,) = [holds for what, holds in found_in(**given).items() if words in what]
    return holds


@pytest.mark.parametrize(("accuracy", "holds"), [(96.5, True), (96.49, False)])
def test_accuracy_is_promised_to_the_hundredth(accuracy, holds):
    assert holds == kept("right in at least", event=scheme(accuracy, 500.0))


@pytest.mark.parametrize(("size", "holds"), [(600.0, True), (600.1, False)])
def test_bytes_are_promised_without_heartbeats(size, holds):
    assert holds == kept("at most 600 bytes", event=scheme(98.0, size))


@pytest.mark.parametrize(("agreement", "holds"), [(100.0, True), (99.99, False)])
def test_one_cycle_that_differs_from_a_full_exchange_breaks_the_promise(agreement, holds):
    assert holds == kept("every node's state", event=scheme(98.0, 500.0, agreement))


@pytest.mark.parametrize("rival", ["raw_gather", "deltas", "send_on_change 12"])
@pytest.mark.parametrize("topology", ["star", "tree"])
def test_mode_event_has_to_stay_below_every_raw_gather(rival, topology):
    level = scheme(98.0, 500.0)
    assert kept(f"in the {topology}")
    assert not kept(f"in the {topology}", **{rival: level})
    dearer = level._replace(star_total=level.star_total + 1, tree_total=level.tree_total + 1)
    assert kept(f"in the {topology}", **{rival: dearer})


@pytest.mark.parametrize(
    ("agree", "size", "holds"), [(99.5, 999.0, True), (99.49, 999.0, False), (99.5, 1_000.0, False)]
)
def test_one_policy_has_to_agree_and_be_cheap_enough_under_loss(agree, size, holds):
    other = {POLICY: loss_row(99.0, 500.0)}
    assert holds == kept("10 % lost", losses={"10 % lost": other | {OTHER: loss_row(agree, size)}})


def test_two_policies_of_which_each_keeps_half_of_the_promise_do_not_keep_it_and_both_are_named():
    rows = {POLICY: loss_row(60.0, 900.0), OTHER: loss_row(99.9, 1_200.0)}
    found = verdicts(summary({0: report_rooms.room(losses={"10 % lost": rows})}))
    (one,) = [one for one in found if one.what.startswith("10 % lost")]
    figure = f"60.00 % for 900 bytes ({POLICY}); 99.90 % for 1,200 bytes ({OTHER})"
    assert (False, figure) == (one.holds, one.figure)


@pytest.mark.parametrize(("gone", "holds"), [(48.0, True), (49.0, False)])
def test_a_dead_node_has_to_be_noticed_within_one_heartbeat_at_the_longest(gone, holds):
    rows = {name: loss_row(97.0, 900.0, gone) for name in REPORTED}
    assert holds == kept("dies", losses={DYING: rows})


def test_where_nobody_is_given_up_no_death_is_noticed():
    assert not kept("dies", losses={DYING: {name: loss_row(97.0, 900.0) for name in REPORTED}})


# What is written


def test_the_page_says_what_was_found_and_which_promise_is_missed():
    report = summary({0: report_rooms.room(scheme(98.0, 700.0))})
    text = page(report, verdicts(report), "thermesh report traffic --rooms 0")
    assert "`thermesh report traffic --rooms 0`: the mean of rooms 0 of" in text
    assert "without heartbeats | 700 bytes | **missed** |" in text
    assert "| **zone, mode event** | 98.00 | 98.00 | 100.00 | 23.3 | 700 | 800 | 3,700 | 1,400 | 6,300 | 2.0 |" in text
    assert "| one empty frame, the least that can be said | - | - | - |" in text
    assert "| lean, mode change, 0.25 degrees | 97.00 | 5,100 | 97.00 | 5,100 |" in text


def test_every_table_of_the_page_is_rectangular():
    report = summary({0: report_rooms.room()})
    blocks = page(report, verdicts(report), "").split("\n\n")
    tables = [block.split("\n") for block in blocks if block.startswith("|")]
    assert 7 + len(report.losses) - 1 == len(tables)
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


def test_where_an_alternative_is_better_the_page_says_so():
    better = scheme(99.0, 400.0)
    report = summary({0: report_rooms.room(**{"send_on_change 25": better})})
    assert "It is the better choice.\n" in page(report, verdicts(report), "")
    assert "It is the better choice where that will do" in page(summary({0: report_rooms.room()}), [], "")
    assert "raw gather takes fewer bytes at 5 x 5" in page(report, [], "")


def test_lines_of_the_picture_begin_with_the_dearest_point():
    found = picture.points(summary({0: report_rooms.room(**{"lean change 12": scheme(99.0, 9_000.0)})}), "lean change")
    assert [("0.12", 9_100.0), ("0.25", 5_100.0)] == [(point.threshold, point.size) for point in found]
    assert [] == picture.points(summary({0: report_rooms.room()}), "naive_unicast")


# What is kept


@pytest.fixture
def simulated(monkeypatch):
    """The rooms that were simulated."""
    done = []

    def made_up(room, thresholds, advance):
        for _ in range(rooms.stages(thresholds)):
            advance()
        done.append(room)
        return report_rooms.room()

    monkeypatch.setattr(rooms, "simulated", made_up)
    return done


def nothing(_done, _to_do):
    """Nobody watches."""


def test_a_room_that_is_finished_is_not_simulated_again(simulated, tmp_path):
    first = finished((0, 2), (25,), tmp_path, nothing)
    again = finished((0, 1, 2), (25,), tmp_path, nothing)
    assert [first[0], first[2]] == [again[0], again[2]]
    assert [0, 2, 1] == simulated


def test_a_room_of_other_thresholds_or_other_sources_or_cut_short_is(simulated, tmp_path, monkeypatch):
    finished((0,), (25,), tmp_path, nothing)
    finished((0,), (12, 25), tmp_path, nothing)
    finished((0,), (25,), tmp_path, nothing)
    assert [0, 0] == simulated
    for path in tmp_path.iterdir():
        path.write_text(path.read_text()[:-100])
    finished((0,), (25,), tmp_path, nothing)
    assert 3 == len(simulated)
    monkeypatch.setattr(rooms, "version", lambda _: "another")
    finished((0,), (25,), tmp_path, nothing)
    assert 4 == len(simulated)


def test_who_stops_keeps_the_rooms_that_were_finished(simulated, tmp_path, monkeypatch):
    def stopped(room, thresholds, advance):
        raise KeyboardInterrupt

    finished((0,), (25,), tmp_path, nothing)
    with monkeypatch.context() as patch:
        patch.setattr(rooms, "simulated", stopped)
        with pytest.raises(KeyboardInterrupt):
            finished((0, 1), (25,), tmp_path, nothing)
    finished((0, 1), (25,), tmp_path, nothing)
    assert [0, 1] == simulated


def test_progress_counts_the_stages_of_all_rooms(simulated, tmp_path):
    told = []
    finished((3, 4), (25,), tmp_path, lambda done, to_do: told.append((done, to_do)))
    steps = rooms.stages((25,))
    assert list(range(2 * steps + 1)) == sorted({done for done, _ in told}) == sorted(set(range(2 * steps + 1)))
    assert {2 * steps} == {to_do for _, to_do in told}
    assert told == sorted(told)


# The command


def test_the_command_writes_page_picture_and_figures_and_answers_no_where_a_promise_is_missed(simulated, tmp_path):
    done = RUNNER.invoke(
        app, ["report", "traffic", "--rooms", "0", "--out", str(tmp_path), "--json"], standalone_mode=False
    )
    answer = json.loads(done.stdout)
    assert answer == json.loads((tmp_path / "traffic.json").read_text())
    assert {"holds"} <= answer["verdicts"][0].keys()
    assert 1 == done.return_value
    assert b"\x89PNG" == (tmp_path / "traffic.png").read_bytes()[:4]
    assert 200_000 > (tmp_path / "traffic.png").stat().st_size
    assert "![Accuracy over bytes a cycle](traffic.png)" in (tmp_path / "traffic.md").read_text()


def test_the_answer_is_yes_where_every_promise_holds(tmp_path, monkeypatch):
    good = {name: {POLICY: loss_row(99.9, 900.0)} for name in ("10 % lost", "30 % lost")}
    monkeypatch.setattr(rooms, "simulated", lambda *_: report_rooms.room(losses=good))
    done = RUNNER.invoke(app, ["report", "traffic", "--quick", "--out", str(tmp_path)], standalone_mode=False)
    assert 0 == done.return_value
    assert 10 == done.stdout.count("holds   ")


def test_without_matplotlib_nothing_is_simulated_for_a_picture_that_cannot_be_drawn(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"thermesh\[report\]"):
        traffic.traffic("0", quick=True, folder=tmp_path / "out", stage=lambda _: nothing)
    assert [] == simulated
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_quick_report_of_a_real_room_is_exact(tmp_path):
    answer = traffic.traffic(None, quick=True, folder=tmp_path, stage=lambda _: nothing)
    event, by_hand = (answer["schemes"][name] for name in ("zone event", "rule event"))
    assert (100, 100, 100) == (event["agreement"], by_hand["agreement"], by_hand["accuracy"])
    assert 425 * 31 == answer["schemes"]["raw_gather"]["quiet"]
    assert event["quiet"] < answer["schemes"]["send_on_change 25"]["quiet"]
