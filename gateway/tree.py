"""The tree along which frames go hop by hop to the gateway where it is out of most nodes' reach.

Links are those between the eight neighbours, every node's way is a shortest one, and the roots are the site's cells
next to the gateway, one hop away from it. Few nodes should have to repeat a beacon: among the nodes of one distance
those become relays first that reach most nodes of the next, the first in reading order of equals. The tree is fixed;
one that has to mend itself would cost more. Nodes stand in the order of the site's cells.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.site import Site
from protocol.grid import SLOTS, neighbour_of

Number = TypeVar("Number", bound=np.generic)


class Tree:
    """Who hands on whose frames.

    Attributes:
        parents: int64 [nodes], the place of the next hop; a root's is -1.
        hops: int64 [nodes], to the gateway, 1 for a root.
        sizes: int64 [nodes], of each node's subtree, the node itself included.
        relays: bool [nodes], who has children: these hand on frames and repeat a beacon.
    """

    def __init__(self, site: Site):
        """Find the shortest ways, level by level; every part of a site has a root."""
        around = _neighbours(site)
        self.parents = np.full(len(around), -1)
        self.hops = np.zeros(len(around), np.int64)
        self._levels: list[NDArray[np.int64]] = []
        level = {site.cells.index(cell) for cell in site.next_to_gateway}
        while level:
            here = np.array(sorted(level))
            self.hops[here] = len(self._levels) + 1
            self._levels.append(here)
            reached = {one: {place for place in around[one] if not self.hops[place]} for one in here.tolist()}
            level = set().union(*reached.values())
            self._choose_parents(reached)
        self.sizes = self.gathered(np.ones(len(around), np.int64))
        self.relays = self.sizes > 1

    def gathered(self, values: NDArray[Number]) -> NDArray[Number]:
        """Sums over each node's subtree: [..., nodes] -> [..., nodes]."""
        found = values.copy()
        for level in self._levels[:0:-1]:
            np.add.at(found.T, self.parents[level], found.T[level])
        return found

    def from_children(self, values: NDArray[Number]) -> NDArray[Number]:
        """Sums over each node's children alone: [..., nodes] -> [..., nodes]."""
        found = np.zeros_like(values)
        below = np.flatnonzero(self.parents >= 0)
        np.add.at(found.T, self.parents[below], values.T[below])
        return found

    def _choose_parents(self, reached: dict[int, set[int]]) -> None:
        """Greedy set cover: which nodes of a level take which of the next; `reached` is used up."""
        while True:
            relay = max(reached, key=lambda one: (len(reached[one]), -one))
            children = list(reached[relay])
            if not children:
                return
            self.parents[children] = relay
            for left in reached.values():
                left.difference_update(children)


def _neighbours(site: Site) -> list[list[int]]:
    """By place of a node the places of its neighbours."""
    places = {cell: place for place, cell in enumerate(site.cells)}
    around = [[neighbour_of(*cell, slot) for slot in range(SLOTS)] for cell in site.cells]
    return [[places[cell] for cell in cells if cell in places] for cells in around]
