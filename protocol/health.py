"""A node's counters: what each place of its health message means.

The message is this list of u32, little-endian. Counters wrap at 2^30, so that they stay small integers on every
board; a reader adds up differences modulo 2^30.

    0..6    frames sent, by kind (protocol/frame.py)
    7..13   bytes of them
    14..20  frames taken in, by kind
    21..27  bytes of them
    28..33  MQTT: packets in, bytes in, packets out, bytes out, packets skipped as too long, connections lost
    34..43  faults, in the order of FAULTS
"""

from protocol.compat import const

SENT = const(0)
SENT_BYTES = const(7)
TAKEN = const(14)
TAKEN_BYTES = const(21)
MQTT_PACKETS_IN = const(28)
MQTT_BYTES_IN = const(29)
MQTT_PACKETS_OUT = const(30)
MQTT_BYTES_OUT = const(31)
MQTT_SKIPPED = const(32)
MQTT_LOST = const(33)
# Faults and rare events. None of them stops a node: the frame is dropped, the event counted.
MALFORMED = const(34)  # no frame of this wire version, or of a wrong length
STRANGER = const(35)  # from a node that is no neighbour
STALE = const(36)  # of another run, of an earlier cycle, or too far ahead
DOUBLE = const(37)  # says what was said before in this cycle
OTHER_SHAPE = const(38)  # channels that do not fit the filter set
ABANDONED = const(39)  # a cycle that the next one cut short
DEADLINE = const(40)  # waited in vain for a neighbour or a member
OWN_CLOCK = const(41)  # a cycle entered without beacon
REPEATED = const(42)  # a report sent again, because the beacon did not confirm it
SENSOR_FAULT = const(43)  # the sensor's driver failed
COUNTERS = const(44)
WRAP_MASK = const((1 << 30) - 1)

FAULTS = (
    "malformed",
    "stranger",
    "stale",
    "double",
    "other_shape",
    "abandoned",
    "deadline",
    "own_clock",
    "repeated",
    "sensor_fault",
)
