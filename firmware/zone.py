"""The zone: how far a node's reading may move before anybody has to be told.

Spec zone has one layer whose filters look at the 2x2 windows {C, E, S, SE}; a window is abnormal where any filter's
sum is 0 or more. All four members of a window hear each other, so from everybody's last broadcast, the *view*, they
derive the same limits, within which the window's state cannot change. A node that keeps within the limits of its
windows keeps silent, and when all are silent the state of every window is what the readings make it. docs/zones.md
proves it.

The rules of firmware/unit.py hold here: nothing is allocated, every loop counts machine words.
"""

from protocol.compat import micropython, ptr8, ptr16, ptr32

# Further than any reading can move.
FAR = 65535
# Where `limits` writes.
UP, DOWN, STATE = 0, 1, 2
RESULTS = 3


@micropython.viper
def limits(out, view, there: int, weights, bias, windows, filters: int):
    """Work out a node's limits and the state of its own window.

    Absent members of a window, which have no reading or are no node, lend their weights to the corner. For filter f
    with the sum s_f and A_f = |w_f1| + ... + |w_f4|:
    - all s_f < 0: no member may move towards 0 by more than (-1 - s_f) // A_f;
    - else, of the filters with s_f >= 0, the one with the largest s_f // A_f stands witness: none may move its sum down
      by more than that; the window stays abnormal whatever the others do.

    |s_f| < 2^30 (protocol/filter_set.py), so each sum is a small integer everywhere.

    Args:
        out: uint16 [RESULTS], written: how far the reading may rise (FAR: as it likes), and fall; 1 where the node's
            own window is abnormal, else 0.
        view: uint16 [9], each member's last broadcast as the first layer stores it, taps NW..SE, the node's own at C.
        there: bits of taps whose view is a reading; the node's own is one of them.
        weights: uint8 [filters * 9], weight + 2^7, zero outside C E S SE.
        bias: uint32 [filters], bias + 2^29.
        windows: WINDOWS.
        filters: how many, 1..16.
    """
    to = ptr16(out)
    values = ptr16(view)
    w = ptr8(weights)
    b = ptr32(bias)
    members = ptr8(windows)
    up = 65535
    down = 65535
    to[2] = 0
    at = 0
    while at < 16:
        if there >> int(members[at]) & 1:
            rise = 65535
            fall = 65535
            witness = -1
            pull = 0
            f = 0
            while f < filters:
                base = f * 9 + 4
                corner = int(w[base]) - 128
                total = int(b[f]) - 536870912
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
                if total >= 0:
                    room = 65535
                    if size > 0:
                        room = total // size
                    if room > witness:
                        witness = room
                        pull = mine
                        if size == 0:
                            pull = 0
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
                if pull > 0:
                    fall = witness
                if pull < 0:
                    rise = witness
                if at == 0:
                    to[2] = 1
            if rise < up:
                up = rise
            if fall < down:
                down = fall
        at += 4
    to[0] = up
    to[1] = down


# Taps of the members C E S SE of the four windows that a node is in: its own, then those whose corners are W, N, NW.
WINDOWS = bytes((4, 5, 7, 8, 3, 4, 6, 7, 1, 2, 4, 5, 0, 1, 3, 4))
