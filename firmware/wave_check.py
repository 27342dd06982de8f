"""What a node checks of a signed set before it holds it: that it is whole, meant for it, and rightly computed."""

from firmware import slots
from firmware.filters import convolve_layer
from protocol import filter_set
from protocol.filter_set import next_input
from protocol.health import REFUSED_FORM, REFUSED_SITE, REFUSED_VERSION, WAVE_BROKEN


def read_back(path: str, site: str, least: int, digest: bytes) -> tuple:
    """The set in a slot, if it is the one whose signature was right.

    Args:
        path: of the file that the set was received in.
        site: the node's own.
        least: the lowest version that is taken.
        digest: of the set as it was received (slots.digest_of).

    Returns:
        (FilterSet, 0), or (None, the counter of protocol/health.py that says why not).

    Raises:
        OSError: the flash fails.
    """
    try:
        found = slots.load(path, digest, filter_set.read)
    except ValueError:
        return None, REFUSED_FORM
    if found is None:
        return None, WAVE_BROKEN
    if found.site != site:
        return None, REFUSED_SITE
    if found.version < least:
        return None, REFUSED_VERSION
    return (found, 0) if found.tests else (None, REFUSED_FORM)


def passes(filters, tests) -> bool:
    """Whether each layer gives the activations that the self-tests name (protocol/filter_set.py)."""
    at = 0
    while at < len(tests):
        state = tests[at] | tests[at + 1] << 8
        at += 2
        for layer in range(len(filters.values)):
            inputs, values = filters.inputs[layer], filters.values[layer]
            for tap in range(len(inputs)):
                state = next_input(state)
                inputs[tap] = state >> 8 if layer else state
            convolve_layer(filters, layer)
            if bytes(values) != tests[at : at + len(values)]:
                return False
            at += len(values)
    return True
