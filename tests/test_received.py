"""Which reports came: each once, whatever is said again and in whichever order, and every gap between them is named."""

import random

import pytest

from gateway.received import WINDOW, Arrivals, Gap, Key, Received, Reporter
from protocol import report

CELL = (3, 4)
BOOT = 0xAABBCCDD


def received(last=None, missing=(), boot=BOOT):
    known = {CELL: [Reporter(boot, last, frozenset(missing))]} if last is not None else {}
    return Received(known)


def take(made, *seqs, older=False, boot=BOOT, kept=True):
    """Those that are news, and the gaps found with them."""
    keys = [Key(CELL, boot, seq) for seq in seqs]
    news = []
    for key in keys:
        if made.is_news(key):
            made.take(key, older)
            news.append(key.seq)
    arrivals = made.arrivals()
    made.settle(arrivals if kept else Arrivals())
    return news, [(gap.boot, gap.first, gap.last) for gap in arrivals.gaps]


def test_of_reports_said_in_any_order_again_and_again_each_is_taken_once(seed):
    rng, made, taken, waiting = random.Random(seed), received(last=0), [], []
    for seq in range(1, 500):
        waiting = [*waiting, seq][-10:]
        said = rng.choices(waiting, k=rng.randint(0, 4))
        news, gaps = take(made, *said, older=True)
        taken += news
        waiting = [number for number in waiting if number not in news or rng.random() < 0.5]
        assert all(last <= seq - 10 for _, _, last in gaps)
    assert len(set(taken)) == len(taken)
    assert taken != sorted(taken)


def test_a_gap_is_named_once_and_what_lies_in_it_never_came(seed):
    rng, made, taken, lost = random.Random(seed), received(last=0), set(), set()
    for seq in range(1, 2_000):
        if rng.random() < 0.7:
            news, gaps = take(made, seq, older=rng.random() < 0.8)
            taken.update(news)
            for _, first, last in gaps:
                assert lost.isdisjoint(range(first, last + 1))
                lost.update(range(first, last + 1))
    take_last, gaps = take(made, 2_000, older=False)
    taken.update(take_last)
    lost.update(number for _, first, last in gaps for number in range(first, last + 1))
    assert set(range(1, 2_001)) == taken | lost
    assert taken.isdisjoint(lost)


def test_what_was_not_kept_was_never_taken():
    made = received(last=4)
    assert ([5, 7], [(BOOT, 6, 6)]) == take(made, 5, 7, kept=False)
    assert ([5, 7], [(BOOT, 6, 6)]) == take(made, 5, 7)
    assert ([], []) == take(made, 5, 7)


def test_what_is_missing_may_come_as_long_as_the_node_says_that_older_ones_wait():
    made = received(last=4)
    assert ([7], []) == take(made, 7, older=True)
    assert ([5], []) == take(made, 5, older=False)
    assert ([8], [(BOOT, 6, 6)]) == take(made, 8, older=False)
    assert ([], []) == take(made, 6)


def test_nobody_waits_longer_for_a_report_than_a_node_can_hold_it():
    made = received(last=4)
    assert ([5 + WINDOW], [(BOOT, 5, 5)]) == take(made, 5 + WINDOW, older=True)
    assert ([6], []) == take(made, 6, older=True)
    far = 0xFFFFFFFF
    news, gaps = take(made, far, older=True)
    assert ([far], [(BOOT, 7, 4 + WINDOW), (BOOT, 6 + WINDOW, far - WINDOW)]) == (news, gaps)


def test_a_start_that_nobody_knew_counts_from_one_and_what_is_missing_below_is_a_gap():
    assert ([500], [(BOOT, 1, 499)]) == take(received(), 500)
    made = received()
    assert ([500], [(BOOT, 1, 500 - WINDOW)]) == take(made, 500, older=True)
    assert ([500 - WINDOW + 1], []) == take(made, 500 - WINDOW + 1, older=False)


def test_a_node_that_says_that_it_started_anew_ends_its_former_start_though_it_reports_no_more():
    made = received(last=9, missing={7})
    made.start(CELL, BOOT)
    assert () == made.arrivals().gaps
    made.start(CELL, BOOT - 1)
    arrivals = made.arrivals()
    assert [(BOOT, 7, 7), (BOOT, 10, None)] == [gap[1:] for gap in arrivals.gaps]
    made.settle(arrivals)
    made.start(CELL, BOOT)  # retained somewhere, and late
    assert () == made.arrivals().gaps
    assert ([1], []) == take(made, 1, boot=BOOT - 1)


def test_of_starts_of_before_nothing_is_taken_twice():
    starts = [Reporter(boot, 3) for boot in (1, 2, 3)]
    made = Received({CELL: starts})
    assert [False] * 3 == [made.is_news(Key(CELL, boot, 3)) for boot in (1, 2, 3)]


def test_what_is_lacking_may_still_come():
    made = received(last=4)
    assert set() == made.lacking()
    take(made, 6, older=True)
    assert {CELL} == made.lacking()
    take(made, 5, older=False)
    assert set() == made.lacking()


def test_a_start_that_was_said_and_could_not_be_kept_is_not_forgotten():
    made = received(last=9)
    made.start(CELL, BOOT - 1)
    for kept in (False, True):
        arrivals = made.arrivals()
        assert [(BOOT, 10, None)] == [gap[1:] for gap in arrivals.gaps]
        made.settle(arrivals if kept else Arrivals())
    assert () == made.arrivals().gaps


def test_a_start_that_ends_what_came_in_the_very_same_cycle_is_told_like_any_other():
    made = received()
    for seq in (1, 3):
        made.take(Key(CELL, BOOT, seq), True)
    made.start(CELL, BOOT - 1)
    arrivals = made.arrivals()
    assert [(BOOT, 2, 2), (BOOT, 4, None)] == [gap[1:] for gap in arrivals.gaps]
    made.settle(arrivals)
    assert ((), ()) == made.arrivals()[2:]


def test_the_first_start_of_a_node_that_never_reported_leaves_nothing():
    made = received()
    made.start(CELL, BOOT)
    for _ in range(2):
        arrivals = made.arrivals()
        assert ((), (), (), ()) == arrivals
        made.settle(arrivals)
        made.start(CELL, BOOT)


def test_a_new_start_loses_what_the_one_before_still_held():
    made = received(last=9, missing={7})
    new = BOOT - 1
    assert ([3], [(BOOT, 7, 7), (BOOT, 10, None), (new, 1, 2)]) == take(made, 3, boot=new)
    assert ([10], []) == take(made, 10, boot=BOOT), "delayed on its way"
    assert ([4], []) == take(made, 4, boot=new)


def test_a_delayed_report_of_an_older_start_hides_nothing_that_the_latest_one_held():
    older = BOOT - 2
    made = Received({CELL: [Reporter(older, 3), Reporter(BOOT, 9, frozenset({7}))]})
    made.take(Key(CELL, older, 4), False)
    made.start(CELL, BOOT - 1)
    assert [(BOOT, 7, 7), (BOOT, 10, None)] == [gap[1:] for gap in made.arrivals().gaps]


def test_a_start_that_somebody_made_up_does_not_keep_the_real_one_out():
    made = received(last=9)
    for number in range(5):
        take(made, 1, boot=number)
        assert ([10 + number], []) == take(made, 10 + number)
        assert report.pack_ack(BOOT, 10 + number, ()) == made.acknowledgement(CELL, BOOT)


@pytest.mark.parametrize("boots", [(BOOT, BOOT - 1), (BOOT, BOOT + 1)])
def test_two_starts_between_two_outcomes_are_told_apart_in_the_order_they_were_heard_of(boots):
    made = received(last=9)
    for boot, seq in ((boots[1], 1), (boots[0], 10), (boots[1], 2)):
        made.take(Key(CELL, boot, seq), False)
    arrivals = made.arrivals()
    assert [Gap(CELL, boots[0], 11, None)] == list(arrivals.gaps)
    assert [(boots[0], 10), (boots[1], 2)] == [(reporter.boot, reporter.last) for _, reporter in arrivals.reporters]
    made.settle(arrivals)
    assert [False, True] == [made.is_news(Key(CELL, boots[0], 10)), made.is_news(Key(CELL, boots[1], 3))]


def test_an_acknowledgement_names_what_is_kept():
    made = received(last=9, missing={7})
    assert report.pack_ack(BOOT, 9, {7}) == made.acknowledgement(CELL, BOOT)
    made.take(Key(CELL, BOOT, 10), False)
    arrivals = made.arrivals()
    assert report.pack_ack(BOOT, 9, {7}) == made.acknowledgement(CELL, BOOT)
    made.settle(arrivals)
    assert report.pack_ack(BOOT, 10, ()) == made.acknowledgement(CELL, BOOT)
    assert b"" == made.acknowledgement((0, 0), BOOT)
