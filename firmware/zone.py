"""The zone: how far a node's reading may move before anybody has to be told.

Spec zone has one layer whose filters look at the 2x2 windows {C, E, S, SE}; a window is abnormal where any filter's
sum is 0 or more. All four members of a window hear each other, so from everybody's last broadcast, the *view*, they
derive the same limits, within which the window's state cannot change. A node that keeps within the limits of its
windows keeps silent, and when all are silent the state of every window is what the readings make it. docs/zones.md
proves it.

The rules of firmware/unit.py hold here: nothing is allocated, every loop counts machine words.
"""

from array import array

from protocol.compat import const, micropython, ptr8, ptr16, ptr32

# Further than any reading can move.
FAR = const(65535)
# Where `limits` writes.
UP = const(0)
DOWN = const(1)
ABNORMAL = const(2)
RESULTS = const(3)


# Taps of the members C E S SE of the four windows that a node is in: its own, then those whose corners are W, N, NW.
WINDOWS = bytes((4, 5, 7, 8, 3, 4, 6, 7, 1, 2, 4, 5, 0, 1, 3, 4))


@micropython.viper
def limits(out, view, there: int, weights, bias):
    """Work out a node's limits and the states of its windows.

    Absent members of a window, which have no reading or are no node, lend their weights to the corner. For filter f
    with the sum s_f and A_f = |w_f1| + ... + |w_f4|:
    - all s_f < 0: no member may move towards 0 by more than (-1 - s_f) // A_f;
    - else, of the filters with s_f >= 0, the one with the largest s_f // A_f stands witness: none may move its sum down
      by more than that; the window stays abnormal whatever the others do.

    |s_f| < 2^30 (protocol/filter_set.py), so each sum is a small integer everywhere.

    Args:
        out: uint16 [RESULTS], written: how far the reading may rise (FAR: as it likes), and fall; bits of the windows,
            in the order of WINDOWS, that are abnormal.
        view: uint16 [9], each member's last broadcast as the first layer stores it, taps NW..SE, the node's own at C.
        there: bits of taps whose view is a reading; the node's own is one of them.
        weights: uint8 [filters * 9], weight + 2^7, zero outside C E S SE.
        bias: uint32 [filters], bias + 2^29; filters: 1..16.
    """
    to = ptr16(out)
    members = ptr8(WINDOWS)
    to[0] = 65535
    to[1] = 65535
    to[2] = 0
    at = 0
    while at < 16:
        if there >> int(members[at]) & 1:
            _narrow(out, view, there, weights, bias, at)
        at += 4


@micropython.viper
def _narrow(out, view, there: int, weights, bias, at: int):
    """Narrow the limits in `out` by what one window allows, whose members stand in WINDOWS from `at` on."""
    to = ptr16(out)
    b = ptr32(bias)
    filters = int(len(bias))  # noqa: RUF046  # to viper it is an object
    sums = ptr32(_SUMS)
    rise = 65535
    fall = 65535
    witness = -1
    pull = 0
    f = 0
    while f < filters:
        _sum_up(view, there, weights, at, f)
        total = int(sums[0]) + int(b[f]) - 536870912 - 536870912
        size = int(sums[1])
        mine = int(sums[2]) - 1024
        if total >= 0:
            room = 65535
            if size > 0:
                room = total // size
            if room > witness:
                witness = room
                pull = mine
        elif mine != 0:
            room = (0 - 1 - total) // size
            if mine > 0 and room < rise:
                rise = room
            if mine < 0 and room < fall:
                fall = room
        f += 1
    if witness >= 0:
        rise = 65535
        fall = 65535
        if pull > 0 and witness < fall:
            fall = witness
        if pull < 0 and witness < rise:
            rise = witness
        to[2] = int(to[2]) | 1 << (at >> 2)
    if rise < int(to[0]):
        to[0] = rise
    if fall < int(to[1]):
        to[1] = fall


# What one filter makes of one window, for _narrow: sum of products + 2^29, A_f, the node's own weight + 1024.
_SUMS = array("I", (0, 0, 0))


@micropython.viper
def _sum_up(view, there: int, weights, at: int, f: int):
    """Fill _SUMS for one filter and one window."""
    sums = ptr32(_SUMS)
    values = ptr16(view)
    w = ptr8(weights)
    members = ptr8(WINDOWS)
    base = f * 9 + 4
    corner = int(w[base]) - 128
    total = 0
    size = 0
    mine = 0
    k = 1
    while k < 4:
        weight = int(w[base + k + (k >> 1)]) - 128
        tap = int(members[at + k])
        if there >> tap & 1:
            total += (int(values[tap]) - 32768) * weight
            if tap == 4:
                mine = weight
            if weight < 0:
                size -= weight
            else:
                size += weight
        else:
            corner += weight
        k += 1
    total += (int(values[int(members[at])]) - 32768) * corner
    if int(members[at]) == 4:
        mine = corner
    if corner < 0:
        size -= corner
    else:
        size += corner
    sums[0] = total + 536870912
    sums[1] = size
    sums[2] = mine + 1024
