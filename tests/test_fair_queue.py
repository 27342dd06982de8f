"""Each sender's own line: nobody's messages are pushed out by another's, and each keeps its order."""

import threading

from gateway.fair_queue import FairQueue

WAIT_S_MAX = 20.0


def drained(queue):
    found = []
    while (item := queue.get(0)) is not None:
        found.append(item)
    return found


def test_each_sender_has_its_turn_and_its_order():
    queue = FairQueue(10, 100)
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        assert queue.put(item[0], item)
    assert ["a1", "b1", "c1", "a2", "c2", "a3"] == drained(queue)


def test_one_that_says_much_pushes_out_itself_only():
    queue = FairQueue(3, 100)
    assert [True] * 3 + [False] * 7 == [queue.put("flood", number) for number in range(10)]
    assert queue.put("other", "word")
    assert [0, "word", 1, 2] == drained(queue)


def test_all_together_have_a_limit_and_room_again_behind_it():
    queue = FairQueue(10, 4)
    assert [True] * 4 + [False] == [queue.put(str(sender), sender) for sender in range(5)]
    assert 0 == queue.get(0)
    assert queue.put("4", 4)
    assert [1, 2, 3, 4] == drained(queue)


def test_senders_that_have_nothing_to_say_take_no_room():
    queue = FairQueue(10, 100)
    for sender in range(1_000):
        queue.put(str(sender), sender)
        queue.get(0)
    assert ({}, 0) == (queue._lines, len(queue._turns))


def test_an_empty_queue_gives_nothing_and_one_that_waits_gets_the_next():
    queue = FairQueue(10, 100)
    assert queue.get(0) is None
    assert queue.get(0.001) is None
    found = []
    waiting = threading.Thread(target=lambda: found.append(queue.get(3_600)), daemon=True)
    waiting.start()
    queue.put("a", "word")
    waiting.join(WAIT_S_MAX)
    assert ["word"] == found
