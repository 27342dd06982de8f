"""What alternatives to computing in the mesh cost: small sites, counted by hand."""

import numpy as np
import pytest

from gateway.alternatives import alternatives, delta_sizes, moved, naive_values
from gateway.site import Site, lounge, site_of_cells
from gateway.tree import Tree

# Three in a row, the first next to the gateway: one, two and three hops.
CHAIN = site_of_cells("chain", {(0, 0), (0, 1), (0, 2)})


def costs(site, values_ccel, present=None):
    """Alternatives for readings [cycles][nodes], in the order of the site's cells; all there, or `present`."""
    rows, cols = np.transpose(site.cells)
    readings, there = (np.zeros((len(values_ccel), *site.mask.shape), kind) for kind in (np.int16, np.bool_))
    readings[:, rows, cols] = values_ccel
    there[:, rows, cols] = True if present is None else present
    return alternatives(site, readings, there)


def totals(cost):
    """Frames, bytes and bytes on the air of each cycle."""
    return list(zip(cost.frames.tolist(), cost.sizes.tolist(), cost.on_air.tolist(), strict=True))


def column(*values):
    return np.array(values)[:, np.newaxis]


# The tree


def test_every_node_stands_as_many_hops_from_the_gateway_as_the_shortest_way_has():
    site = Site("grid", 3, 4, tuple((row, col) for row in range(3) for col in range(4)), entries=((1, 0),))
    assert [2, 2, 3, 4, 1, 2, 3, 4, 2, 2, 3, 4] == Tree(site).hops.tolist()


def test_few_nodes_relay_for_the_one_that_reaches_most_takes_all_it_reaches():
    tree = Tree(site_of_cells("square", {(row, col) for row in range(3) for col in range(3)}))
    assert [-1, 0, 4, 0, 0, 4, 4, 4, 4] == tree.parents.tolist()
    assert [True, False, False, False, True, False, False, False, False] == tree.relays.tolist()


def test_a_subtree_holds_whoever_is_heard_through_it_and_a_parent_hears_its_children():
    tree = Tree(CHAIN)
    assert [3, 2, 1] == tree.sizes.tolist()
    assert [[111, 110, 100]] == tree.gathered(np.array([[1, 10, 100]])).tolist()
    assert [[10, 100, 0]] == tree.from_children(np.array([[1, 10, 100]])).tolist()


def test_each_part_of_a_site_has_a_root_of_its_own():
    tree = Tree(site_of_cells("parts", {(0, 0), (0, 1), (0, 3), (0, 4)}))
    assert ([-1, 0, -1, 2], [1, 2, 1, 2]) == (tree.parents.tolist(), tree.hops.tolist())


def test_the_lounges_tree_reaches_everybody_by_a_neighbour_that_is_one_hop_nearer():
    tree, cells = Tree(lounge()), np.array(lounge().cells)
    below = np.flatnonzero(tree.parents >= 0)
    assert 424 == len(below)
    assert 1 == np.abs(cells[below] - cells[tree.parents[below]]).max()
    assert (tree.hops[below] == tree.hops[tree.parents[below]] + 1).all()
    assert cells.max(axis=1).tolist() == (tree.hops - 1).tolist()


# Gathering


def test_single_readings_are_sent_once_in_the_star_and_once_a_hop_in_the_tree():
    found = costs(CHAIN, [[2000, 2001, 2002]])["raw_gather"]
    assert [(3, 30, 30 + 3 * 21)] == totals(found["star"])
    assert [(6, 60, 60 + 6 * 21)] == totals(found["tree"])
    assert (0, 3) == (found["tree"].per_node.hottest, found["tree"].per_node.frames[0])
    assert [2, 1, 0] == found["tree"].per_node.heard_frames.tolist()
    assert [20, 10, 0] == found["tree"].per_node.heard_sizes.tolist()


def test_aggregated_readings_share_a_header_and_name_their_nodes_by_a_bit_each():
    """Header, one byte of bits, two bytes a reading: of one, two and three nodes."""
    found = costs(CHAIN, [[2000, 2001, 2002]])["raw_gather_aggregated"]
    assert [(3, 8 + 1 + 2 + 8 + 1 + 4 + 8 + 1 + 6, 39 + 3 * 21)] == totals(found["tree"])
    assert [(3, 30, 93)] == totals(found["star"])


def test_what_does_not_fit_a_frame_goes_on_in_a_second_one():
    """104 bytes beside the header: 48 nodes' readings, 6 bytes of bits and 96, fit; of 49, 7 and 98, they do not."""
    for nodes, frames in ((48, 1), (49, 2)):
        site = site_of_cells("row", {(0, col) for col in range(nodes)})
        per_node = costs(site, [[2000] * nodes])["raw_gather_aggregated"]["tree"].per_node
        assert (frames, -(-nodes // 8) + 2 * nodes + 8 * frames) == (per_node.frames[0], per_node.sizes[0])


def test_nodes_without_a_reading_say_nothing_and_relay_all_the_same():
    found = costs(CHAIN, [[0, 0, 2002]], [[False, False, True]])
    assert [(1, 10, 31)] == totals(found["raw_gather"]["star"])
    assert [(3, 30, 93)] == totals(found["raw_gather"]["tree"])
    assert [(3, 33, 96)] == totals(found["raw_gather_aggregated"]["tree"])


def test_a_difference_of_up_to_127_takes_one_byte_and_any_other_three():
    values = column(2000, 2127, 2000, 2128, 0, 2001)
    there = column(True, True, True, True, False, True)
    assert [3, 1, 1, 3, 0, 1] == delta_sizes(values, there)[:, 0].tolist()


def test_a_first_reading_takes_three_bytes_whenever_it_comes():
    assert [0, 3, 1] == delta_sizes(column(0, 0, 0), column(False, True, True))[:, 0].tolist()


def test_deltas_cost_one_byte_where_readings_cost_two():
    found = costs(CHAIN, [[2000, 2000, 2000], [2001, 1999, 2000]])["deltas"]
    assert [(3, 33, 96), (3, 27, 90)] == totals(found["star"])
    assert [(3, 3 * 9 + 3 + 6 + 9, 108), (3, 3 * 9 + 1 + 2 + 3, 96)] == totals(found["tree"])


def test_a_reading_is_sent_once_it_is_further_than_the_threshold_from_the_last_one_sent():
    values, there = column(2000, 2025, 2026, 2001, 2000, 2100, 2100), column(*[True] * 5, False, True)
    assert [True, False, True, False, True, False, True] == moved(values, there, 25)[:, 0].tolist()


def test_the_threshold_of_send_on_change_can_be_another():
    readings = np.array([2000, 2010, 2021], np.int16).reshape(3, 1, 1)
    site, there = site_of_cells("one", {(0, 0)}), np.ones((3, 1, 1), np.bool_)
    assert [1, 0, 0] == alternatives(site, readings, there)["send_on_change"]["star"].frames.tolist()
    assert [1, 0, 1] == alternatives(site, readings, there, 20)["send_on_change"]["star"].frames.tolist()


def test_send_on_change_names_few_nodes_of_many_by_row_and_column():
    nodes = 60
    site = site_of_cells("row", {(0, col) for col in range(nodes)})
    quiet, one = [2000] * nodes, [2000] * 59 + [2026]
    found = costs(site, [quiet, quiet, one])["send_on_change"]
    assert [(0, 0, 0), (1, 10, 31)] == totals(found["star"])[1:]
    # The first eight nodes on its way know it by one byte of bits, the others by row and column.
    assert [(0, 0, 0), (60, 60 * (8 + 2 + 2) - 8, 60 * 33 - 8)] == totals(found["tree"])[1:]


# What gathers nothing


def test_the_naive_formula_gives_17000_values_for_the_seeds_lounge():
    assert 17_000 == naive_values(425)
    found = costs(lounge(), np.full((1, 425), 2000))["naive_unicast"]
    assert [(17_000, 170_000, 170_000 + 17_000 * 21)] == totals(found["star"]) == totals(found["tree"])
    assert (40, 40) == (found["star"].per_node.frames[7], found["star"].per_node.heard_frames[7])


def test_one_frame_is_a_header_from_beside_the_gateway_in_each_cycle():
    found = costs(CHAIN, [[2000, 2000, 2000]] * 2)["one_frame"]["tree"]
    assert [(1, 8, 29)] * 2 == totals(found)
    assert [1, 0, 0] == found.per_node.frames.tolist()


def test_changes_only_says_first_and_at_each_change_whether_anything_is_abnormal():
    normal, abnormal = [2000, 2000, 2000], [2000, 2000, 2300]
    found = costs(CHAIN, [normal, normal, abnormal, abnormal, normal])["changes_only"]["star"]
    assert [1, 0, 1, 0, 1] == found.frames.tolist()
    assert [9, 0, 9, 0, 9] == found.sizes.tolist()


@pytest.mark.parametrize("name", ["raw_gather", "raw_gather_aggregated", "deltas", "send_on_change"])
@pytest.mark.parametrize("topology", ["star", "tree"])
def test_what_nodes_send_adds_up_to_what_cycles_cost(name, topology):
    rng = np.random.default_rng(3)
    site = site_of_cells("holes", {(row, col) for row in range(6) for col in range(7) if rng.random() < 0.8})
    found = costs(site, rng.integers(1900, 2300, (20, len(site.cells))), rng.random((20, len(site.cells))) < 0.9)
    cost = found[name][topology]
    assert cost.frames.mean() == pytest.approx(cost.per_node.frames.sum())
    assert cost.sizes.mean() == pytest.approx(cost.per_node.sizes.sum())
    assert (cost.sizes <= 112 * cost.frames).all()
