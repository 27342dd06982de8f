"""Topics: who publishes what where, and which site names can stand in one."""

import pytest

from protocol import topic


def test_every_topic_of_a_site_lies_under_its_base():
    assert topic.base("lounge") == "tm/1/lounge/"
    assert topic.cycle("lounge") == "tm/1/lounge/cycle"
    assert topic.of_node("lounge", 3, 12, "halo") == "tm/1/lounge/n/n-03-12/halo"
    assert topic.of_block("lounge", 3, 12) == "tm/1/lounge/b/01-06/+"
    assert topic.of_member("lounge", 3, 12) == "tm/1/lounge/b/01-06/n-03-12"


def test_each_member_of_a_block_has_a_topic_of_its_own_below_the_blocks():
    members = [topic.of_member("s", row, col) for row in (4, 5) for col in (6, 7)]
    names = ["n-04-06", "n-04-07", "n-05-06", "n-05-07"]
    assert [topic.of_block("s", 5, 6)[:-1] + name for name in names] == members


def test_all_members_of_a_block_hear_the_same_and_no_others_do():
    topics = {topic.of_block("s", row, col) for row in (4, 5) for col in (6, 7)}
    assert len(topics) == 1
    assert topic.of_block("s", 4, 8) not in topics
    assert topic.of_block("s", 3, 6) not in topics


@pytest.mark.parametrize("name", ["a", "lounge", "site-1_b", "0", "-", "x" * 32])
def test_a_site_name_is_given_back(name):
    assert name == topic.check_site(name)


@pytest.mark.parametrize("name", ["", "x" * 33, "Lounge", "a/b", "a+", "#", "a b", "ä", "a\n", "a\0", "$SYS", "٣"])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(name):
    with pytest.raises(ValueError, match=r"site name .*: write 1 to 32 of"):
        topic.check_site(name)
