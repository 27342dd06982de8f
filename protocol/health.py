"""A node's counters: what each place of its health message means.

The message is this list of u32, little-endian. Counters wrap at 2^30, so that they stay small integers on every
board; a reader adds up differences modulo 2^30.

    0..12   frames sent, by kind (protocol/frame.py)
    13..25  bytes of them
    26..38  frames taken in, by kind
    39..51  bytes of them
    52..57  MQTT: packets in, bytes in, packets out, bytes out, packets skipped (see firmware/mqtt.py), connections lost
    58..78  faults, in the order of FAULTS

New counters come behind all others, so a node of an older release sends a shorter message; it is COUNTERS_LEAST long at
least. What it lacks counts as 0.
"""

from protocol.compat import const

SENT = const(0)
SENT_BYTES = const(13)
TAKEN = const(26)
TAKEN_BYTES = const(39)
MQTT_PACKETS_IN = const(52)
MQTT_BYTES_IN = const(53)
MQTT_PACKETS_OUT = const(54)
MQTT_BYTES_OUT = const(55)
MQTT_SKIPPED = const(56)
MQTT_LOST = const(57)
# Faults and rare events. None of them stops a node: the frame is dropped, the event counted.
MALFORMED = const(58)  # no frame of this wire version, or of a wrong length
STRANGER = const(59)  # from a node that is no neighbour
STALE = const(60)  # of another run, of an earlier cycle, or too far ahead
DOUBLE = const(61)  # says what was said before in this cycle
OTHER_SHAPE = const(62)  # channels that do not fit the filter set
ABANDONED = const(63)  # a cycle that the next one cut short
DEADLINE = const(64)  # waited in vain for a neighbour or a member
OWN_CLOCK = const(65)  # a cycle entered without beacon
REPEATED = const(66)  # a report sent again, because the beacon did not confirm it
SENSOR_FAULT = const(67)  # the sensor's driver failed: nobody answers, or what it gives is no number
# A filter set that came with the wave and was not taken: why.
REFUSED_FORM = const(68)  # cut short, of another format, or a sum could overflow
REFUSED_SIGNATURE = const(69)  # not signed by the site's key
REFUSED_SITE = const(70)  # belongs to another site
REFUSED_VERSION = const(71)  # not above the highest version ever held
REFUSED_SELF_TEST = const(72)  # this node does not compute what the set says it should
WAVE_BROKEN = const(73)  # a pull that ended early: time over, connection lost, flash or heap full
SET_RETURNED = const(74)  # a reset while a set was on trial, or no cycle asked for it: the set before it is back
# A reading that is none: why.
SENSOR_CRC = const(75)  # damaged on its way from the sensor
SENSOR_POWER_ON = const(76)  # what the sensor holds from power-on until it measured
SENSOR_RANGE = const(77)  # no sensor of this kind measures that, or no reading is that far off
SENSOR_STUCK = const(78)  # the very same for longer than a live sensor gives it
COUNTERS = const(79)
COUNTERS_LEAST = const(75)
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
    "refused_form",
    "refused_signature",
    "refused_site",
    "refused_version",
    "refused_self_test",
    "wave_broken",
    "set_returned",
    "sensor_crc",
    "sensor_power_on",
    "sensor_range",
    "sensor_stuck",
)
