"""Topics under `tm/1/<site>/` (docs/protocol.md): who publishes what where.

`n/<id>` is a node by name (n-RR-CC), `b/<row>-<col>` a block, below it each member by name.
"""

from protocol.grid import BLOCK_SIDE, block_name, node_name

ROOT = "tm/1/"
SITE_CHARACTERS_MAX = 32
# Below a node's topics: what the gateway tells this node alone, as a topic filter; and there what it acknowledges.
DOWN = "down/#"
ACK = "down/ack"
# Bytes, for each character of a text that MicroPython looks at becomes a name, and stays in the heap for ever.
_SITE_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789-_"


def check_site(name: str) -> str:
    """The name itself when it can stand in a topic: 1..32 of a-z, 0-9, '-' and '_'.

    Raises:
        ValueError: any other name.
    """
    if 0 < len(name) <= SITE_CHARACTERS_MAX and all(c in _SITE_CHARACTERS for c in name.encode()):
        return name
    raise ValueError("site name " + repr(name) + ": write 1 to 32 of a-z, 0-9, '-' and '_'")


def base(site: str) -> str:
    """The prefix of every topic of a site, with its closing slash."""
    return ROOT + site + "/"


def cycle(site: str) -> str:
    """The beacon's topic."""
    return base(site) + "cycle"


def wave(site: str) -> str:
    """Where the gateway hands its filter sets to the nodes next to it."""
    return base(site) + "wave"


def nodes(site: str) -> str:
    """How every node's topics begin."""
    return base(site) + "n/"


def of_node(site: str, row: int, col: int, leaf: str) -> str:
    """A node's own topic: leaf is halo, up, wave, state, about or health."""
    return base(site) + "n/" + node_name(row, col) + "/" + leaf


def of_nodes(site: str, leaf: str) -> str:
    """The topic filter for one leaf of every node."""
    return nodes(site) + "+/" + leaf


def of_block(site: str, row: int, col: int) -> str:
    """The topic filter for what members of the block of node (row, col) hand over."""
    return base(site) + "b/" + block_name(row // BLOCK_SIDE, col // BLOCK_SIDE) + "/+"


def of_member(site: str, row: int, col: int) -> str:
    """The topic on which node (row, col) hands its activations over: its own, so that nobody can in its name."""
    return of_block(site, row, col)[:-1] + node_name(row, col)
