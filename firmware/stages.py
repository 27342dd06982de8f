"""How far a node is in a cycle, and where its frames go."""

from protocol.compat import const

IDLE = const(0)  # no cycle entered yet, or there was no room to enter it
COLLECT = const(1)  # waiting for the halo of the current exchange
GATHER = const(2)  # owner: waiting for the block's members
DONE = const(3)  # nothing left to do in this cycle

# Where a frame goes.
TO_HALO = const(0)
TO_BLOCK = const(1)
TO_GATEWAY = const(2)
