"""A node more or less in a site's file: the text that people wrote stays, but for the one name."""

import os
import stat

import pytest

from gateway.site import SiteError, load_site
from gateway.site_file import add_node, remove_node

ONE_LINE = 'name = "hall"  # ours\nrows = 3\ncols = 4\nholes = ["n-00-01", "n-02-03"]  # pillars\ncycle_s = 60\n'
LINES = """# The hall.
holes = [
    # by the door
    "n-00-01",  # a pillar
    "n-02-03",
    'n-01-01'
]
name = "hall"
rows = 3
cols = 4
next_to_gateway = ["n-00-00", "n-00-02"]
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "site.toml"
        path.write_bytes(text.encode())
        return path

    return to_file


@pytest.mark.parametrize(
    ("text", "name", "before", "after"),
    [
        (ONE_LINE, "n-00-01", '["n-00-01", "n-02-03"]', '["n-02-03"]'),
        (ONE_LINE, "n-02-03", '["n-00-01", "n-02-03"]', '["n-00-01"]'),
        (LINES, "n-02-03", '    "n-02-03",\n', ""),
        (LINES, "n-00-01", '    "n-00-01",  # a pillar\n', "    # a pillar\n"),
        (LINES, "n-01-01", "\"n-02-03\",\n    'n-01-01'\n", '"n-02-03"\n\n'),
        ('name = "hall"\nrows = 3\ncols = 4\nholes = ["n-00-01"]\n', "n-00-01", '["n-00-01"]', "[]"),
        (
            'name = "hall"\nrows = 3\ncols = 4\nholes = ["n-00-01" # a "pillar"]\n, "n-02-03"]\n',
            "n-00-01",
            '"n-00-01" # a "pillar"]\n, ',
            "",
        ),
        ('name = "hall"\nrows = 3\ncols = 4\nholes = ["n-00-01",]', "n-00-01", '["n-00-01",]', "[]"),
    ],
)
def test_a_node_that_comes_takes_its_name_out_of_the_holes_and_nothing_else(write, text, name, before, after):
    path = write(text)
    assert text.count(before) == 1
    site = add_node(path, name)
    assert text.replace(before, after) == path.read_text()
    assert load_site(path) == site
    assert (int(name[2:4]), int(name[5:7])) in site.cells


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        (ONE_LINE, '"n-02-03"]', '"n-02-03", "n-02-02"]'),
        (LINES, "    'n-01-01'\n", "    'n-01-01',\n    \"n-02-02\"\n"),
        (LINES.replace("'n-01-01'\n", ""), '"n-02-03",\n', '"n-02-03",\n    "n-02-02",\n'),
        (ONE_LINE.replace('"n-00-01", "n-02-03"', ""), "[]", '["n-02-02"]'),
        ('name = "hall"\nrows = 3\ncols = 4', "cols = 4", 'cols = 4\nholes = ["n-02-02"]\n'),
        ("# x\r\n" + LINES.replace("\n", "\r\n"), "'n-01-01'\r\n", "'n-01-01',\n    \"n-02-02\"\r\n"),
    ],
)
def test_a_node_that_goes_leaves_a_hole(write, text, before, after):
    path = write(text)
    assert text.count(before) == 1
    site = remove_node(path, "n-02-02")
    assert text.replace(before, after) == path.read_bytes().decode()
    assert load_site(path) == site
    assert (2, 2) not in site.cells


def test_a_node_that_goes_is_no_entry_any_more(write):
    path = write(LINES)
    assert ((0, 0),) == remove_node(path, "n-00-02").entries
    assert 'next_to_gateway = ["n-00-00"]\n' in path.read_text()


def test_whoever_goes_and_comes_back_stands_as_before(write):
    path = write(ONE_LINE)
    before = load_site(path)
    remove_node(path, "n-01-02")
    assert before == add_node(path, "n-01-02")
    assert ONE_LINE == path.read_text()


@pytest.mark.parametrize(
    ("edit", "name", "line"),
    [
        (add_node, "n-00-00", r"node: n-00-00 stands in .*site\.toml already; `thermesh node replace` is for a new"),
        (add_node, "n-03-00", "node: n-03-00 lies outside, the last cell is n-02-03; a larger grid is a site"),
        (add_node, "n-1-1", "node: n-1-1 is no node name; write n-RR-CC, like n-03-12"),
        (remove_node, "n-00-01", r"node: n-00-01 is a hole in .*site\.toml already; name a node, like n-00-00"),
        (remove_node, "hall", "node: hall is no node name"),
    ],
)
def test_what_cannot_be_done_is_named_and_changes_nothing(write, edit, name, line):
    path = write(ONE_LINE)
    with pytest.raises(SiteError, match=line):
        edit(path, name)
    assert ONE_LINE == path.read_text()


def test_the_last_node_stays(write):
    path = write('name = "hall"\nrows = 1\ncols = 2\nholes = ["n-00-01"]\n')
    with pytest.raises(SiteError, match="node: n-00-00 is the last one; a site needs one at least"):
        remove_node(path, "n-00-00")


@pytest.mark.parametrize(
    "holes",
    ['"hol\\u0065s" = ["n-00-01"]', 'holes = ["\\u006e-00-01"]', 'holes = ["""n-00-01"""]'],
    ids=["key", "name", "quotes"],
)
def test_what_only_people_can_edit_is_left_to_them(write, holes):
    text = f'name = "hall"\nrows = 3\ncols = 4\n{holes}\n'
    path = write(text)
    with pytest.raises(SiteError, match="is written in a way that is left to people; edit it by hand"):
        add_node(path, "n-00-01")
    assert text == path.read_text()


def test_the_file_keeps_its_rights_and_a_link_stays_one(write, tmp_path):
    path = write(ONE_LINE)
    path.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    remove_node(link, "n-00-00")
    assert link.is_symlink()
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)
    assert {"site.toml", "link.toml"} == set(os.listdir(tmp_path))
