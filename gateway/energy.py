"""What a node's radio, sleep and waking cost a day: estimates, from published figures and from assumptions named here.

Nothing of this was measured on a board of this project. Not in it: the sensor, computing (no board's times are known),
flash, lost frames and their repetition, waiting for a busy channel, and what a battery loses by itself.

Parts, in mJ a node and day:

    transmit   frames sent, each with the radio's start
    receive    frames taken in, of neighbours or of whom one relays
    listen     the radio on without hearing anything: in mode event, where silence is an answer, nobody knows who will
               speak, so everybody listens; only a wake tone spares that
    beacon     the wait for it, as long as two clocks may have drifted apart since the last one, and itself
    wake       from sleep until the radio works, once a cycle
    sleep      the whole day
"""

from typing import NamedTuple

from protocol.frame import HEADER_SIZE
from protocol.grid import SLOTS

DAY_S = 86_400
# Assumption: in the time that is listened to, node and neighbours could each send the shortest frame with a value
# twice, one after the other; two rounds settle most cycles, and a busy channel takes its time.
_TURNS: int = 2 * (SLOTS + 1)
# A wake tone, for radios that are on within a millisecond: a sample of the channel is the radio's start and the eight
# symbols, 128 us, of IEEE 802.15.4's clear channel assessment (from memory). The tone is assumed to last 1 ms, longer
# than clocks drift apart within a cycle.
SAMPLE_S = 0.000_258
TONE_S = 0.001


class Radio(NamedTuple):
    """A board, as far as its radio and sleep go.

    Attributes:
        volts: of the supply.
        send_ma, receive_ma: while on the air, and while listening or taking in.
        sleep_ua: memory kept, waiting for its clock.
        bits_per_s: on the air.
        frame_overhead: bytes on the air that a frame adds to its payload.
        frame_start_s: of the radio, or the part of a frame that is sent more slowly.
        wake_mj: from sleep until the radio works.
        clock_ppm: by how much a clock may be wrong; 0 where somebody keeps frames until they are asked for.
    """

    volts: float
    send_ma: float
    receive_ma: float
    sleep_ua: float
    bits_per_s: int
    frame_overhead: int
    frame_start_s: float
    wake_mj: float
    clock_ppm: float

    def send_mj(self, seconds: float) -> float:
        """Energy of sending for so long."""
        return self.volts * self.send_ma * seconds

    def receive_mj(self, seconds: float) -> float:
        """Energy of listening for so long."""
        return self.volts * self.receive_ma * seconds

    def air_s(self, frames: float, size: float) -> float:
        """How long frames with `size` bytes of payload altogether take on the air, their start included."""
        return frames * self.frame_start_s + 8 * (frames * self.frame_overhead + size) / self.bits_per_s


# IEEE 802.15.4 at 250 kbit/s. Send and receive: nRF52840 Product Specification, Current consumption, "Radio
# transmitting/receiving", IRADIO_TX5 (0 dBm) and IRADIO_RX2, both for that mode, DC/DC, at 3 V. Sleep: the same,
# "Sleep", ION_RAMON_RTC, System ON with 256 KB kept (from memory). The radio's start: nRF5340 Product Specification,
# RADIO timings, tTXEN,IEEE 802.15.4, taken to be the same. Clock: a crystal of 20 ppm, as that specification has it
# among its common conditions. Waking is not counted. Overhead: physical layer 6, MAC 15 (gateway/ledger.py).
NRF52840 = Radio(3.0, 6.40, 6.53, 3.16, 250_000, 21, 0.000_130, 0.0, 20.0)

# Send and receive: Espressif, ESP32-PICO-ZERO User's Manual, Table 6, 802.11b at 1 Mbps, the peak (its averages are of
# 50 % duty), at 3.3 V. Sleep: ESP32-WROOM-32 Datasheet, Table 4, deep sleep with RTC timer and RTC memory. Rate and
# overhead: ESP-IDF Programming Guide, ESP-NOW, Frame Format: 36 bytes and 7 of the vendor's element; before them 192 us
# of long preamble and header (IEEE 802.11, from memory). Waking: github.com/glenn20/upy-esp32-experiments,
# ESPNowvsWifiEnergyUsage: MicroPython from deep sleep to one ESP-NOW message sent, 7.68 mC at 5 V; 16.6 of the 38.4 mJ
# are the boot. Clock: an external crystal, as above; the oscillator inside is far worse.
ESP32_ESPNOW = Radio(3.3, 368.0, 110.0, 10.0, 1_000_000, 43, 0.000_192, 38.4, 20.0)

# The same source for WiFi with a fixed address and one MQTT message: 108.6 mC at 5 V. A broker keeps what came for
# sleepers, so nobody waits for a beacon. Overhead: 802.11 QoS data 26, CCMP 16, LLC/SNAP 8, FCS 4, IPv4 20, TCP 20
# (from memory).
ESP32_WIFI = Radio(3.3, 368.0, 110.0, 10.0, 1_000_000, 94, 0.000_192, 543.0, 0.0)


class Load(NamedTuple):
    """What a node does in a cycle, in the mean; sizes are bytes of payload.

    Attributes:
        frames, sizes: sent.
        heard, heard_sizes: taken in, but for beacons.
        beacons, beacon_sizes: taken in.
        listening_s: the radio on in vain.
        tone_s: wake tones sent.
    """

    frames: float
    sizes: float
    heard: float
    heard_sizes: float
    beacons: float
    beacon_sizes: float
    listening_s: float = 0.0
    tone_s: float = 0.0


def energy_mj(radio: Radio, load: Load, cycle_s: float) -> dict[str, float]:
    """Energy of one node in a day, by part and in `total`.

    Args:
        radio: the board.
        load: what the node does in each cycle.
        cycle_s: from one cycle to the next, above 0; also from one beacon to the next.
    """
    cycles = DAY_S / cycle_s
    drift_s = 2 * radio.clock_ppm * 1e-6 * cycle_s
    parts = {
        "transmit": cycles * radio.send_mj(radio.air_s(load.frames, load.sizes) + load.tone_s),
        "receive": cycles * radio.receive_mj(radio.air_s(load.heard, load.heard_sizes)),
        "listen": cycles * radio.receive_mj(load.listening_s),
        "beacon": cycles * radio.receive_mj(load.beacons * drift_s + radio.air_s(load.beacons, load.beacon_sizes)),
        "wake": cycles * radio.wake_mj,
        "sleep": radio.volts * radio.sleep_ua / 1000 * DAY_S,
    }
    return parts | {"total": sum(parts.values())}


def window_s(radio: Radio) -> float:
    """How long a node listens in a cycle in which silence is an answer."""
    return _TURNS * radio.air_s(1, HEADER_SIZE)


def listening(radio: Radio, load: Load) -> Load:
    """The same node, listening through the window of each cycle."""
    return load._replace(listening_s=window_s(radio))


def with_wake_tone(radio: Radio, load: Load, said: float, heard: float) -> Load:
    """The same node, listening only if a wake tone was heard, and sending one before it speaks.

    Args:
        radio: the board.
        load: what the node does.
        said, heard: frames a cycle for which nobody could know a time, its own and its neighbours'. Each is taken to
            come in a cycle of its own, so the node listens as often as it can be.
    """
    awake = min(1.0, said + heard)
    return load._replace(listening_s=SAMPLE_S + awake * window_s(radio), tone_s=min(1.0, said) * TONE_S)
