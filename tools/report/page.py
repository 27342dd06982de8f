"""The report as a page of Markdown."""

from gateway.alternatives import STATE_SIZE
from gateway.energy import ESP32_ESPNOW, ESP32_WIFI, NRF52840, window_s
from gateway.ledger import AIR_OVERHEAD
from tools.report import tables
from tools.report.charge import HEALTH_EVERY, HEALTH_FRAMES
from tools.report.choice import choices
from tools.report.rooms import ALL_ROOMS
from tools.report.summary import Report
from tools.report.verdicts import Verdict
from tools.zones import TEST, TRAIN
from tools.zones_loss import CYCLES_A_DAY

_WHAT = """
`{command}`: the mean of rooms {rooms} of the simulated lounge,
17 x 25 nodes, a cycle every half hour, split as it happened: models learned from the first {train:,} cycles, all is
judged on the {test} behind them, cycle by cycle without hysteresis, by the label of the site's rule. Simulated, not
measured on boards. Figures, verdicts and the direction of each comparison are computed.
"""

_SCHEME_NOTES = """
- A cycle, all nodes together, without loss; on the air a frame takes {overhead} bytes more than its payload. *Frames*,
  *bytes*: in the star, without heartbeats. *With heartbeats*: last words that are said again, so that who died is
  missed. Raw gather needs none; readings that moved, and the study of lean, have none here.
- *And control*: a beacon a cycle, one more every {health_every} cycles to ask for health, and what each node answers,
  {health_frames} frames. The same for everybody. Not in it: the start, in which everybody speaks, and filters on their
  way.
- *Tree*: its root is in the north-western corner; reports and states count at each hop, what neighbours say to each
  other once. *Hottest node*: frames a cycle of the one that is on the air longest, in the tree with control traffic.
- *As full exchange*: cycles decided as by the same network in mode always; in mode event of spec zone, cycles in which
  every node's state is that of the twin; of gathered readings, cycles decided as by the rule on all of them.
- *The rule as filters of zone*: set by hand; in mode event it is the closed-form rule with zones. Gathered readings are
  judged by that rule, which makes the labels: raw ones are right by definition, and so is who computes the rule.
- The naive convolution moves the values of one layer and gathers nothing. An empty frame, and an oracle that sends
  {state} bytes when the answer changes, are bounds. Seed has no mode event here.
"""

_LOSS_NOTES = """
- Bytes a cycle on the air in the star, challenges among them, without heartbeats, which stand beside, and control
  traffic. *Agree*: the gateway's answer is that of a full exchange among those that live. *Missed*, *false*: the other
  cycles, in a day of {day}. *Given up after*: cycles from a node's death until no neighbour counts on it.
- Policies are those of `python -m tools.zones_loss`, picked on these rooms; docs/zones.md says how far other seeds lie
  from them. Nodes follow the first, or a watched one where the beacon says so (`python -m tools.event_loss`). Frames to
  the gateway arrive in mode event; gathered readings are sent once, over links that fail as those between nodes do.
  Readings that moved know no heartbeat, so a dead node's last one stays.
"""

_ENERGY_NOTES = """
- A node and day with control traffic: transmit, receive, listen, wait for the beacon, wake, sleep. Estimates: no board
  was measured; sensor, computing and repetition are not in them. gateway/energy.py names every source and assumption.
- nRF52840 at {nrf.volts:g} V: sends with {nrf.send_ma:g} mA, listens with {nrf.receive_ma:g} (nRF52840 Product
  Specification, Current consumption, IRADIO_TX5 and IRADIO_RX2), sleeps with {nrf.sleep_ua:g} uA (ION_RAMON_RTC there;
  from memory).
- ESP32 at {esp.volts:g} V: {esp.send_ma:g} and {esp.receive_ma:g} mA (Espressif, ESP32-PICO-ZERO User's Manual,
  Table 6), {esp.sleep_ua:g} uA (ESP32-WROOM-32 Datasheet, Table 4); to wake up {esp.wake_mj:g} mJ with
  ESP-NOW, {wifi.wake_mj:g} with WiFi and MQTT (github.com/glenn20/upy-esp32-experiments, ESPNowvsWifiEnergyUsage).
- Where silence is an answer everybody listens, {window_ms:.1f} ms a cycle on the nRF52840; with a wake tone only those
  in whose neighbourhood somebody speaks.
"""

_SMALL_NOTES = """
Square, each a simulated room of its own with filters fitted to it; the gateway stands beside the north-western node.
*Total*, *tree*: with control traffic.
"""

_STEP_NOTES = """
Bytes a cycle in the star, heartbeats among them, without control traffic, if only these cycles had happened: the same
filters, larger steps.
"""


def page(report: Report, found: list[Verdict], command: str) -> str:
    """All of it.

    Args:
        report: the figures.
        found: what was promised, and whether it holds.
        command: that makes it again.
    """
    notes = _SCHEME_NOTES.format(
        overhead=AIR_OVERHEAD, health_every=HEALTH_EVERY, health_frames=HEALTH_FRAMES, state=STATE_SIZE
    )
    energy = _ENERGY_NOTES.format(nrf=NRF52840, esp=ESP32_ESPNOW, wifi=ESP32_WIFI, window_ms=1000 * window_s(NRF52840))
    parts = [
        "# Accuracy over bytes",
        _WHAT.format(command=command, rooms=report.rooms_text, train=TRAIN, test=TEST),
        "![Accuracy over bytes a cycle](traffic.png)",
        f"## What was promised of rooms {ALL_ROOMS}",
        _joined(tables.verdict_table(found)),
        "## Right, and at what price",
        _joined(tables.scheme_table(report)),
        notes,
        "### Learning from what was said",
        _joined(tables.tuning_table(report)),
        "## When what is the better choice",
        _joined(choices(report)),
        "## Frames that are lost, nodes that die",
        *(part for loss, ways in report.losses.items() for part in (f"**{loss}**", _joined(tables.loss_table(ways)))),
        _LOSS_NOTES.format(day=CYCLES_A_DAY),
        "## Energy",
        _joined(tables.energy_table(report)),
        energy,
        "## Small sites",
        _joined(tables.small_table(report)),
        _SMALL_NOTES,
        "## Rooms that change faster",
        _joined(tables.step_table(report)),
        _STEP_NOTES,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _joined(lines: list[str]) -> str:
    return "\n".join(lines)
