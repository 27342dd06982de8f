"""Who may publish and read what on a site's broker, from the topics that nodes and gateway themselves work out."""

from collections.abc import Mapping
from typing import NamedTuple

from firmware import start
from gateway import link
from gateway.broker import Guests
from gateway.passwords import GATEWAY, users
from gateway.site import Cell, Site
from protocol import topic
from protocol.grid import node_name


class Rights(NamedTuple):
    """Topic filters of one user: where it may publish, and what it may read."""

    publishes: list[str]
    reads: list[str]


def rights(site: Site) -> dict[str, Rights]:
    """What each user of a site may do, by user name; nothing else is allowed to anybody."""
    of_gateway = Rights(link.said_topics(site.name), link.heard_topics(site.name))
    return {GATEWAY: of_gateway} | {node_name(*cell): _of_node(site, cell) for cell in site.cells}


def acl_text(site: Site) -> str:
    """The rights as mosquitto's `acl_file`: a section for each user."""
    lines = [f"# Site {site.name}: what is not written here nobody may."]
    for user, (publishes, reads) in rights(site).items():
        lines += ["", f"user {user}"]
        lines += [f"topic write {name}" for name in publishes]
        lines += [f"topic read {name}" for name in reads]
    return "\n".join(lines) + "\n"


def guests_of(site: Site, known: Mapping[str, str]) -> Guests:
    """Whom a broker of this process lets in; `known`: passwords by user name, others' among them."""
    return Guests({user: known[user] for user in users(site)}, acl_text(site))


def _of_node(site: Site, cell: Cell) -> Rights:
    where = (site.name, *cell, int(site.neighbour_masks[cell]))
    reads = start.heard_topics(*where) + start.neighbours_topics(*where, "wave")
    reads.append(topic.of_node(site.name, *cell, topic.DOWN))
    if cell in site.next_to_gateway:
        reads.append(topic.wave(site.name))
    return Rights(start.said_topics(site.name, *cell), reads)
