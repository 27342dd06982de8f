"""Mode event over links that lose frames: who challenges a window, who answers, and what is learned from it."""

import pytest
from mesh_in_memory import TIMING, make_site
from node_bench import AROUND, CENTRE, READING_CCEL, Bench, Steady, beacon_of, head_of
from test_event import assert_exact, event_mesh, value_of, wandering

from firmware.stages import TO_HALO
from protocol import beacon, frame

COPIES = 3
HOT_CCEL = 9_000
# Start filters compare a window's corner with the members right of it and below: where EAST is warm CENTRE's own window
# is abnormal, where NW is, the one whose corner NW is.
EAST, SE, NW = (1, 2), (2, 2), (0, 0)


def opening(cycle, copies=COPIES, **others):
    return beacon_of(cycle, flags=beacon.MODE_EVENT, **others)[:-2] + bytes((copies, 0))


def challenge_of(cell, cycle, place, words_ccel, **header):
    there = sum((word_ccel is not None) << at for at, word_ccel in enumerate(words_ccel))
    words_ccel = [word_ccel or 0 for word_ccel in words_ccel]
    return frame.challenge(head_of(frame.CHALLENGE, cell, cycle, **header), place, there, words_ccel)


def watching(copies=COPIES):
    """A node told to watch, whose neighbours all said the same word, at the beginning of cycle 3."""
    bench = Bench(spec="zone", sensor=Steady())
    bench.hear(opening(1, copies))
    bench.hear(*[value_of(cell, 1) for cell in AROUND])
    bench.wait(3 * TIMING.exchange_ms)
    bench.hear(opening(2, copies))
    bench.wait(3 * TIMING.exchange_ms)
    bench.hear(opening(3, copies))
    bench.said.clear()
    return bench


def of_kind(bench, kind):
    """Frames of a kind that were said since the last look."""
    found = [data for to, data in bench.said if data[0] & 15 == kind and to == TO_HALO]
    bench.said = [entry for entry in bench.said if entry[1][0] & 15 != kind]
    return found


def test_the_corner_of_a_window_that_turned_abnormal_says_what_it_saw_when_the_exchange_is_over():
    bench = watching()
    bench.hear(value_of(EAST, 3, HOT_CCEL))
    assert [] == of_kind(bench, frame.CHALLENGE)
    bench.wait(TIMING.exchange_ms)
    words_ccel = [READING_CCEL, HOT_CCEL, READING_CCEL, READING_CCEL]
    assert COPIES * [challenge_of(CENTRE, 3, 0, words_ccel)] == of_kind(bench, frame.CHALLENGE)
    bench.wait(TIMING.exchange_ms)
    assert [] == of_kind(bench, frame.CHALLENGE)


def test_another_member_does_so_an_exchange_later():
    bench = watching()
    bench.hear(value_of(NW, 3, HOT_CCEL))
    bench.wait(TIMING.exchange_ms)
    assert [] == of_kind(bench, frame.CHALLENGE)
    bench.wait(TIMING.exchange_ms)
    words_ccel = [HOT_CCEL, READING_CCEL, READING_CCEL, READING_CCEL]
    assert COPIES * [challenge_of(CENTRE, 3, 3, words_ccel)] == of_kind(bench, frame.CHALLENGE)


def test_nobody_challenges_who_heard_a_challenge_of_the_same_window():
    bench = watching()
    bench.hear(value_of(NW, 3, HOT_CCEL), challenge_of(NW, 3, 0, [HOT_CCEL, *[READING_CCEL] * 3]))
    bench.wait(TIMING.exchange_ms)
    bench.wait(TIMING.exchange_ms)
    assert [] == of_kind(bench, frame.CHALLENGE)


def test_a_window_that_is_normal_again_when_the_exchange_is_over_is_not_challenged():
    bench = watching()
    bench.hear(value_of(EAST, 3, HOT_CCEL), value_of(EAST, 3))
    bench.wait(TIMING.exchange_ms)
    assert [] == of_kind(bench, frame.CHALLENGE)


def test_the_corner_challenges_a_window_that_stays_abnormal_in_every_third_cycle():
    bench = watching()
    bench.hear(value_of(EAST, 3, HOT_CCEL))
    said = []
    for cycle in range(4, 14):
        for _ in range(3):
            bench.wait(TIMING.exchange_ms)
        said.append(len(of_kind(bench, frame.CHALLENGE)) // COPIES)
        bench.hear(opening(cycle), value_of(EAST, cycle, HOT_CCEL))
    assert 1 == said[0]
    assert sorted(said[1:4]) == [0, 0, 1]
    assert said[1:4] * 3 == said[1:]


def test_who_is_taken_for_another_one_says_its_word_again_once_for_all_copies_of_a_challenge():
    bench = watching()
    wrong = challenge_of(SE, 3, 3, [HOT_CCEL, *[READING_CCEL] * 3])
    for _ in range(COPIES):
        bench.hear(wrong)
    assert (COPIES + 1) * [value_of(CENTRE, 3)] == of_kind(bench, frame.VALUE)
    bench.hear(challenge_of(EAST, 3, 1, [None, *[READING_CCEL] * 3]))
    assert (COPIES + 1) * [value_of(CENTRE, 3)] == of_kind(bench, frame.VALUE)


def test_late_copies_of_a_challenge_do_not_undo_what_was_said_upon_it_nor_make_anybody_answer_again():
    bench, south = watching(), (2, 1)
    wrong = [challenge_of(SE, 3, 3, [HOT_CCEL, READING_CCEL, HOT_CCEL, READING_CCEL])]
    wrong += [challenge_of(EAST, 3, 1, [HOT_CCEL, READING_CCEL, HOT_CCEL, READING_CCEL])]
    bench.hear(*wrong)
    bench.hear(value_of(south, 3, READING_CCEL + 1))
    bench.said.clear()
    for _ in range(COPIES):
        bench.hear(wrong[0])
        bench.hear(wrong[1])
    assert READING_CCEL + 1 == bench.node.mode.readings_ccel[7]
    assert [] == of_kind(bench, frame.VALUE)


def test_a_challenge_does_not_undo_a_later_word_of_who_says_it():
    bench = watching()
    bench.hear(value_of(SE, 4, READING_CCEL + 1), challenge_of(SE, 3, 3, [READING_CCEL] * 4))
    assert READING_CCEL + 1 == bench.node.mode.readings_ccel[8]


def test_a_member_without_a_reading_is_one_in_a_challenge():
    bench = watching()
    bench.hear(value_of(EAST, 3, HOT_CCEL), head_of(frame.NO_READING, (2, 1), 3))
    bench.wait(TIMING.exchange_ms)
    words_ccel = [READING_CCEL, HOT_CCEL, None, READING_CCEL]
    assert COPIES * [challenge_of(CENTRE, 3, 0, words_ccel)] == of_kind(bench, frame.CHALLENGE)


def test_nobody_is_told_of_a_node_that_is_no_neighbour():
    site = make_site(3, 3, holes={(2, 1)})
    bench = Bench(spec="zone", site=site, sensor=Steady())
    bench.hear(opening(1), challenge_of(SE, 1, 3, [READING_CCEL, READING_CCEL, HOT_CCEL, READING_CCEL]))
    assert not bench.node.mode.quiet.known >> 7 & 1


def test_who_is_taken_for_what_it_is_keeps_silent():
    bench = watching()
    bench.hear(challenge_of(SE, 3, 3, [READING_CCEL, HOT_CCEL, READING_CCEL, READING_CCEL]))
    assert [] == of_kind(bench, frame.VALUE)


def test_members_take_the_others_words_from_a_challenge():
    bench = watching()
    bench.hear(challenge_of(SE, 3, 3, [READING_CCEL, READING_CCEL, HOT_CCEL, READING_CCEL]))
    assert bench.node.mode.readings_ccel[7] == HOT_CCEL
    bench.wait(3 * TIMING.exchange_ms)
    assert [1] == [data[8] for _, data in bench.said if data[0] & 15 == frame.STATE]


def test_hearsay_of_a_node_that_was_never_heard_holds_for_one_cycle():
    bench = Bench(spec="zone", sensor=Steady())
    bench.hear(opening(1), value_of(SE, 1))
    bench.hear(challenge_of(SE, 1, 3, [READING_CCEL, READING_CCEL, HOT_CCEL, READING_CCEL]))
    assert bench.node.mode.quiet.known >> 7 & 1
    bench.wait(3 * TIMING.exchange_ms)
    bench.hear(opening(2))
    assert not bench.node.mode.quiet.known >> 7 & 1
    assert bench.node.mode.quiet.known >> 8 & 1


@pytest.mark.parametrize(
    "data",
    [
        challenge_of(SE, 2, 3, [HOT_CCEL] * 4),
        challenge_of(SE, 3, 3, [HOT_CCEL] * 4, run=6),
        challenge_of(SE, 3, 2, [HOT_CCEL] * 4),
        challenge_of(SE, 3, 4, [HOT_CCEL] * 4),
        challenge_of(SE, 3, 15, [HOT_CCEL] * 4),
        challenge_of((0, 1), 3, 0, [HOT_CCEL] * 4)[:-1],
    ],
    ids=["another cycle", "another run", "a window of others", "no place", "the last place", "cut short"],
)
def test_a_challenge_that_cannot_be_meant_changes_nothing(data):
    bench = watching()
    before = bytes(bench.node.mode.readings_ccel), bench.node.mode.quiet.known
    bench.hear(data)
    assert before == (bytes(bench.node.mode.readings_ccel), bench.node.mode.quiet.known)
    assert [] == bench.said
    place = data[frame.CHALLENGE_MEMBERS] >> frame.CHALLENGE_PLACE
    # Who is in no such window hears it all the same.
    assert bool(bench.faults().keys() & {"stale", "malformed"}) == (place != 2)


def test_a_challenge_is_stale_where_nobody_is_told_to_watch():
    bench = watching(copies=0)
    bench.hear(challenge_of(SE, 3, 3, [HOT_CCEL] * 4))
    assert 1 == bench.faults()["stale"]
    assert [] == bench.said


def test_who_is_told_to_watch_no_more_or_to_do_something_else_drops_the_code_for_it():
    bench, loaded = watching(), []
    for data in (opening(4), opening(5, copies=0), opening(6), beacon_of(7)):
        bench.hear(data)
        loaded.append([name.split(".")[1] for name in bench.node.loaded])
    assert [["event", "watch"], ["event"], ["event", "watch"], ["layerwise"]] == loaded


def test_a_word_that_makes_a_window_normal_is_said_as_often_as_told_and_others_half_as_often():
    bench = watching(copies=4)
    bench.node._sensor = Steady(HOT_CCEL)
    bench.hear(opening(4, 4))
    assert 2 * [value_of(CENTRE, 4, HOT_CCEL)] == of_kind(bench, frame.VALUE)
    bench.node._sensor = Steady(READING_CCEL)
    bench.hear(opening(5, 4))
    assert 4 * [value_of(CENTRE, 5)] == of_kind(bench, frame.VALUE)


def test_without_loss_every_state_is_exact_and_the_same_words_are_said(seed):
    site, words = make_site(4, 4), []
    for copies in (0, 2):
        mesh = event_mesh(site, wandering(site, seed))
        mesh.gateway.copies = copies
        for cycle in range(30):
            assert_exact(mesh.run_cycle(), site, f"cycle {cycle}")
        assert (copies > 0) == any(data[0] & 15 == frame.CHALLENGE for _, _, data in mesh.sent)
        words.append({(cell, data) for cell, _, data in mesh.sent if data[0] & 15 in (frame.VALUE, frame.NO_READING)})
    assert words[0] == words[1]
