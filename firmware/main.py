"""Start one node: `main.py CONFIG.json`. What only the start needs is forgotten before the rest is loaded."""

import gc
import sys

from protocol.compat import forget, keep_compact, ticks_ms
from protocol.filter_set import CONV3X3_SIGN


def run(path: str) -> None:
    """Run the node of a configuration file until the process ends.

    Raises:
        ValueError, OSError: configuration, filters or sensor are not usable; the message names what.
    """
    from firmware import start

    keep_compact()
    prepared, name = start.prepare(path), start.__name__
    del start
    forget(name)
    from firmware import link

    # The mode that the node will take at first is loaded here already, where the heap is in order.
    if prepared[-1][0].layers[0].kind == CONV3X3_SIGN:
        from firmware import event

        del event
    else:
        from firmware import layerwise

        del layerwise
    gc.collect()  # loading left holes; small objects shall go there first
    node = link.Link(prepared, ticks_ms())
    del prepared
    link.start_node(node)


if __name__ == "__main__":
    run(sys.argv[1])
