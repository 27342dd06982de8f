"""The two slots of a node's flash and their record: the bytes, what each step changes, what damage does."""

import struct
from hashlib import sha256

import pytest
from wave_bench import SITE, content
from wave_sets import KEY, flashed, good

from firmware import slots
from firmware.start import prepare_filters
from protocol import filter_set
from protocol.filter_set import CONFIRMED, RETURNED, STAGED, TRIAL

NONE = bytes(32)
FIRST, SECOND = sha256(b"first").digest(), sha256(b"second").digest()
PHASES = (CONFIRMED, TRIAL, STAGED, RETURNED)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "f").write_bytes(flashed())
    return str(tmp_path / "f")


def record(active, phase, highest, first=NONE, second=NONE):
    """The table of firmware/slots.py, written out by hand."""
    data = b"TS" + bytes((2, active, phase)) + highest.to_bytes(4, "little") + first + second
    return data + sha256(data).digest()[:4]


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def digest_of(data):
    """Of the digest that is signed, and its signature behind it."""
    return sha256(sha256(data[:-64]).digest() + data[-64:]).digest()


def test_without_a_record_slot_0_is_active_and_confirmed(path):
    assert (0, CONFIRMED, None, (NONE, NONE)) == slots.read_record(path)


def test_the_slots_and_the_record_lie_beside_each_other(path):
    assert (path, path + ".1") == (slots.slot_path(path, 0), slots.slot_path(path, 1))
    slots.stage(path, 7, FIRST)
    assert record(0, STAGED, 7, second=FIRST) == content(path + ".slots")
    assert content(path + ".new") is None


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("active", [0, 1])
def test_what_stands_in_the_record_is_read(active, phase, path):
    write(path + ".slots", record(active, phase, 0xFFFFFFFF, FIRST, SECOND))
    assert (active, phase, 0xFFFFFFFF, (FIRST, SECOND)) == slots.read_record(path)


def test_a_record_with_any_byte_changed_or_of_any_other_length_counts_for_nothing(path):
    whole = record(1, TRIAL, 9, FIRST, SECOND)
    damaged = [whole[:at] + bytes((whole[at] ^ 1 << at % 8,)) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole[:size] for size in range(len(whole))] + [whole + b"\0", whole + whole]
    for data in damaged:
        write(path + ".slots", data)
        assert (0, CONFIRMED, None, (NONE, NONE)) == slots.read_record(path), data


@pytest.mark.parametrize(("at", "value"), [(0, b"t"), (1, b"T"), (2, b"\1"), (3, b"\2"), (4, b"\4")])
def test_a_whole_record_that_is_of_another_format_counts_for_nothing(at, value, path):
    whole = record(1, TRIAL, 9, FIRST, SECOND)
    data = whole[:at] + value + whole[at + 1 : -4]
    write(path + ".slots", data + sha256(data).digest()[:4])
    assert (0, CONFIRMED, None, (NONE, NONE)) == slots.read_record(path)


@pytest.mark.parametrize("active", [0, 1])
def test_a_set_is_staged_in_the_slot_that_is_not_active(active, path):
    write(path + ".slots", record(active, CONFIRMED, 3, FIRST, FIRST))
    slots.stage(path, 4, SECOND)
    digests = (FIRST, SECOND) if active == 0 else (SECOND, FIRST)
    assert (active, STAGED, 4, digests) == slots.read_record(path)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("active", [0, 1])
def test_entering_and_leaving_a_trial_changes_slots_and_nothing_else_does(active, phase, path):
    write(path + ".slots", record(active, CONFIRMED, 3, FIRST, SECOND))
    slots.mark(path, phase, 5)
    after = 1 - active if phase in (TRIAL, RETURNED) else active
    assert (after, phase, 5, (FIRST, SECOND)) == slots.read_record(path)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("active", [0, 1])
def test_the_free_slot_is_the_other_one_and_what_lies_there_counts_no_more(active, phase, path):
    write(path + ".slots", record(active, phase, 3, FIRST, SECOND))
    assert slots.slot_path(path, 1 - active) == slots.free_slot(path, 3)
    kept = (FIRST, slots.NOBODYS) if active == 0 else (slots.NOBODYS, SECOND)
    after = (active, CONFIRMED, 3, kept) if phase == STAGED else (active, phase, 3, (FIRST, SECOND))
    assert after == slots.read_record(path)


def test_what_lay_in_a_slot_that_was_never_recorded_is_nobodys_once_the_slot_is_given_away(path):
    slots.free_slot(path, 7)
    assert (0, CONFIRMED, 7, (NONE, slots.NOBODYS)) == slots.read_record(path)


def test_a_slot_whose_digest_is_known_is_read_only_if_it_is_that(path):
    data = good(2)
    write(path + ".1", data)
    assert 2 == slots.load(path + ".1", digest_of(data), filter_set.read).version
    assert 2 == slots.load(path + ".1", NONE, filter_set.read).version
    for at in range(len(data)):
        write(path + ".1", data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        assert slots.load(path + ".1", digest_of(data), filter_set.read) is None, at


# At start


def test_a_node_without_a_record_starts_with_what_was_flashed(path):
    active, staged, phase, highest, *where = prepare_filters(path, SITE, KEY)
    assert (1, None, CONFIRMED, 1) == (active.version, staged, phase, highest)
    assert [path, ("", ""), SITE, KEY] == where


def held_on_flash(path, active, phase, versions, highest):
    """Two sets and a record; gives what a node finds: versions, phase, highest and the two offers by slot."""
    for slot in (0, 1):
        write(slots.slot_path(path, slot), good(versions[slot]))
    digests = [digest_of(good(version)) for version in versions]
    write(path + ".slots", record(active, phase, highest, *digests))
    found, staged, phase, highest, _, offers, *_ = prepare_filters(path, SITE, KEY)
    by_path = {path: 0, path + ".1": 1}
    return found.version, staged.version if staged else None, phase, highest, tuple(by_path[name] for name in offers)


@pytest.mark.parametrize("active", [0, 1])
def test_a_start_finds_what_the_record_counts_on(active, path):
    versions = (4, 5) if active == 0 else (5, 4)
    other = 1 - active
    assert (4, None, CONFIRMED, 5, (active, active)) == held_on_flash(path, active, CONFIRMED, versions, 5)
    assert (4, 5, STAGED, 5, (active, other)) == held_on_flash(path, active, STAGED, versions, 5)
    assert (4, None, RETURNED, 5, (active, active)) == held_on_flash(path, active, RETURNED, versions, 5)
    assert (5, None, RETURNED, 5, (other, other)) == held_on_flash(path, active, TRIAL, versions, 5)
    assert (other, RETURNED) == slots.read_record(path)[:2]


@pytest.mark.parametrize("active", [0, 1])
def test_a_set_on_trial_is_gone_on_with_where_the_one_before_is_damaged(active, path):
    """It is newer than any that was confirmed; with nothing to go back to, its trial is over."""
    versions = (5, 4) if active == 0 else (4, 5)
    held_on_flash(path, active, CONFIRMED, versions, 5)
    slots.mark(path, CONFIRMED, 5)
    write(slots.slot_path(path, 1 - active), good(4)[:-1])
    write(path + ".slots", record(active, TRIAL, 5, *[digest_of(good(version)) for version in versions]))
    for _ in range(2):
        found, staged, phase, highest, *_ = prepare_filters(path, SITE, KEY)
        assert (5, None, CONFIRMED, 5) == (found.version, staged, phase, highest)
        assert (active, CONFIRMED) == slots.read_record(path)[:2]


def test_the_set_of_another_site_is_an_error_that_names_both(path):
    write(path, flashed(site="elsewhere"))
    with pytest.raises(ValueError, match=r"^filters: belong to site elsewhere, this node to memory$"):
        prepare_filters(path, SITE, KEY)


def test_two_damaged_slots_are_an_error_that_says_what_to_do(path):
    held_on_flash(path, 0, CONFIRMED, (4, 5), 5)
    for slot in (0, 1):
        write(slots.slot_path(path, slot), good(6))
    with pytest.raises(ValueError, match=r"^filters: both slots of .*f are damaged; write the filters again$"):
        prepare_filters(path, SITE, KEY)


def test_the_format_is_the_one_that_struct_knows():
    assert struct.calcsize(slots._FORMAT) + 4 == len(record(0, 0, 0))
